import json
from collections.abc import Callable, Sequence

import pytest
import typer
from typer.testing import CliRunner

from mofme.cli.bench import bench
from mofme.vision import benchmark
from mofme.vision.benchmark import Arm, Cost

app = typer.Typer()
app.command()(bench)

Call = tuple[str, int, list[int], int]


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[Call]:
    """Takes the arguments instead of measuring, and answers with costs made up."""
    taken: list[Call] = []

    def measure(
        backbone: str, side: int, experts: Sequence[int], repeats: int, on_progress: Callable[[float], None]
    ) -> list[Cost]:
        taken.append((backbone, side, list(experts), repeats))
        on_progress(1.0)
        return [
            Cost(Arm("dense", 1), 1_000_000, 1_000_000, 2 * 10**9, (10.0, 30.0, 20.0), 50 * 10**6),
            Cost(Arm("mofme", 4), 1_100_000, 1_050_000, 3 * 10**9, (25.0, 30.0, 35.0), None),
        ]

    monkeypatch.setattr(benchmark, "measure", measure)
    return taken


def run(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    return result.exit_code, result.stdout


def test_the_table(calls: list[Call]) -> None:
    code, output = run()
    assert code == 0
    assert calls == [("small", 256, [4, 16, 64], 5)]
    # Ratios in the same repeat: 25 / 10, 30 / 30, 35 / 20; their median is 1.75.
    rows = {line.split()[0]: line.split() for line in output.splitlines() if line.strip()}
    assert rows["dense"] == ["dense", "1", "1.000", "1.000", "2.000", "20", "(10-30)", "1.00", "50"]
    assert rows["MoFME"] == ["MoFME", "4", "1.100", "1.050", "3.000", "30", "(25-35)", "1.75", "unknown"]
    assert f"threads: {benchmark.machine().threads}" in output
    assert benchmark.machine().precision in output


def test_json_only(calls: list[Call]) -> None:
    code, output = run("--json", "--side", 64, "--experts", 2, "--experts", 8, "--repeats", 3, "--backbone", "vit")
    assert code == 0
    assert calls == [("vit", 64, [2, 8], 3)]
    answer = json.loads(output)
    assert (answer["backbone"], answer["side"]) == ("vit", 64)
    assert answer["machine"].keys() == {"cpu", "threads", "precision", "torch"}
    assert answer["arms"][1] == {
        "feed_forward": "mofme",
        "num_experts": 4,
        "parameters": 1_100_000,
        "activated": 1_050_000,
        "macs": 3 * 10**9,
        "milliseconds": [25.0, 30.0, 35.0],
        "median": 30.0,
        "peak_bytes": None,
    }


@pytest.mark.parametrize("words", [("--side", 60), ("--side", 0), ("--backbone", "tower"), ("--repeats", 0)])
def test_what_makes_no_sense_is_refused(calls: list[Call], words: tuple[object, ...]) -> None:
    code, _ = run(*words)
    assert code == 2
    assert calls == []
