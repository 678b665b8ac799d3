import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from typer.testing import CliRunner

from mofme.cli.app import app
from mofme.measure.result import load_result
from mofme.vision import benchmark
from mofme.vision.benchmark import Arm, Cost

Call = tuple[str, int, list[int], int]
COSTS = [
    Cost(Arm("dense", 1), 1_000_000, 1_000_000, 2 * 10**9, (10.0, 30.0, 20.0), 50 * 10**6),
    Cost(Arm("moe", 4), 4_000_000, 2_000_000, 3 * 10**9, (50.0, 50.0, 50.0), 200 * 10**6),
    Cost(Arm("moe-top4", 4), 4_000_000, 4_000_000, 3 * 10**9, (100.0, 100.0, 100.0), 200 * 10**6),
    Cost(Arm("mofme", 4), 1_100_000, 1_050_000, 3 * 10**9, (25.0, 30.0, 35.0), 60 * 10**6),
    Cost(Arm("moe", 8), 8_000_000, 2_000_000, 3 * 10**9, (50.0, 60.0, 50.0), 300 * 10**6),
    Cost(Arm("moe-top4", 8), 8_000_000, 4_000_000, 3 * 10**9, (50.0, 60.0, 50.0), 300 * 10**6),
    Cost(Arm("mofme", 8), 6_000_000, 1_050_000, 3 * 10**9, (25.0, 30.0, 35.0), None),
]


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[Call]:
    """Takes the arguments instead of measuring, and answers with costs made up."""
    taken: list[Call] = []

    def measure(
        backbone: str, side: int, chosen: Sequence[Arm], repeats: int, on_progress: Callable[[float], None]
    ) -> list[Cost]:
        taken.append((backbone, side, sorted({arm.num_experts for arm in chosen[1:]}), repeats))
        on_progress(1.0)
        return COSTS

    monkeypatch.setattr(benchmark, "measure", measure)
    return taken


def run(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["bench", *map(str, arguments)])
    return result.exit_code, result.stdout


def test_both_widths_and_all_numbers_of_experts(calls: list[Call]) -> None:
    code, output = run()
    assert code == 0 and "Cost on small-x4" in output
    assert calls == [(name, 256, [1, 4, 16, 64, 128], 5) for name in ("small", "small-x4")]


def test_what_is_measured_and_what_is_saved(calls: list[Call], tmp_path: Path) -> None:
    options = "--backbone tiny-x4 --side 64 --experts 4 --experts 8 --json --out"
    code, output = run(*options.split(), tmp_path)
    assert code == 0
    assert calls == [("tiny-x4", 64, [4, 8], 5)]
    result = load_result("bench", tmp_path)
    assert json.loads(output)["verdict"] == result.verdict
    rows = {(row.table, row.name): row.figures for row in result.rows}
    cost = {name: figure.value for name, figure in rows["Cost on tiny-x4", "MoFME, 4 experts"].items()}
    # Ratios to the dense net in the same repeat: 25 / 10, 30 / 30, 35 / 20; their median is 1.75.
    assert cost == {
        "parameters, M": 1.1,
        "activated, M": 1.05,
        "GMACs": 3,
        "CPU time, ms": 30,
        "time against dense": 1.75,
        "peak memory, MB": 60,
    }
    saved = "Saved by MoFME on tiny-x4, against the conventional MoE"
    # 1.1 of 4 M; 25, 30 and 35 of 50 ms: 50, 40 and 30 %; 60 of 200 MB.
    assert {name: figure.value for name, figure in rows[saved, "4 experts"].items()} == pytest.approx(
        {"parameters saved, %": 72.5, "time saved, %": 40, "peak memory saved, %": 70}
    )
    time = rows[saved, "4 experts"]["time saved, %"]
    assert (time.low, time.high) == pytest.approx((30, 50))
    # 6 of 8 M is less than the paper says; 50, 50 and 30 % of the time.
    assert {name: figure.value for name, figure in rows[saved, "8 experts"].items()} == pytest.approx(
        {"parameters saved, %": 25, "time saved, %": 50}
    )
    for experts, parameters, of_four, of_two in ((4, 72, 70, 40), (8, 25, 50, 50)):
        told = f"With {experts} experts on tiny-x4 ours saves {parameters} % of parameters and {of_four} % of time"
        assert f"{told}, {of_two} % against two at work." in result.verdict


@pytest.mark.parametrize("words", [("--side", 60), ("--side", 0), ("--backbone", "tower"), ("--repeats", 0)])
def test_what_makes_no_sense_is_refused(calls: list[Call], words: tuple[object, ...]) -> None:
    assert run(*words)[0] == 2 and calls == []
