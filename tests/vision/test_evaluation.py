import csv
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import Tensor
from typer.testing import CliRunner

from mofme.cli.app import app
from mofme.errors import MofmeError
from mofme.measure.result import Result, load_result
from mofme.vision.datasets import find_sets, held_back
from mofme.vision.evaluation import HARM_TABLE, PairReport, as_result, compare, evaluate, measure, write_csv
from tests.vision.pictures import save_grey as save

Run = Callable[..., tuple[int, str, str]]


@dataclass
class Answer:
    image: Tensor
    seconds: float = 0.25


class Darker:
    """Stands in for a restorer: takes a constant away, and all light in an ensemble."""

    def __init__(self, amount: float) -> None:
        self.amount = amount

    def __call__(self, image: Tensor, /, *, ensemble: bool = False) -> Answer:
        return Answer(torch.zeros_like(image) if ensemble else image - self.amount)


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    """Two pairs: inputs 20 and 40 levels too bright."""
    folder = tmp_path / "set"
    for name, level in (("a.png", 120), ("b.png", 140)):
        save(folder / "input" / name, level)
        save(folder / "target" / name, 100)
    return folder


def test_an_input_finds_its_target(tmp_path: Path) -> None:
    targets = {
        "1.png": "1.png",
        "sub/1.png": "sub/1.jpg",
        "rain-002.png": "norain-002.png",
        "7_rain.png": "7_clean.png",
        "0003_0.8_0.2.jpg": "0003.png",
        "im_0001_s80_a04.png": "im_0001.png",
        "snow.png": "snow.png",
        "雨 1.png": "雨 1.png",
        "5.png": None,
    }
    for name, target in targets.items():
        save(tmp_path / "input" / name, 0)
        save(tmp_path / "target" / (target or "other.png"), 0)
    (found,) = find_sets(tmp_path).values()
    expected = {name: target and tmp_path / "target" / target for name, target in targets.items()}
    assert {pair.name: pair.target for pair in found} == expected


def test_an_input_is_not_given_the_target_of_another(tmp_path: Path) -> None:
    save(tmp_path / "input" / "1.png", 0)
    for target in ("2.png", "sub/1.png", "10.png", "1_2.png"):
        save(tmp_path / "target" / target, 0)
    ((pair,),) = find_sets(tmp_path).values()
    assert pair.target is None


def test_scores_of_pictures_that_differ_by_a_constant() -> None:
    # Off by .1 in every channel: 20 dB. Luma is scaled by (65.481 + 128.553 + 24.966) / 255 = 219 / 255,
    # so off by .1 * 219 / 255: 20 - 20 log10(219 / 255) = 21.32196 dB.
    # SSIM of constants x, y has contrast 1 and luminance (2xy + C1) / (x^2 + y^2 + C1), C1 = 1e-4:
    # (2 * .5 * .6 + .0001) / (.25 + .36 + .0001) = .983609.
    scores = measure(torch.full((3, 40, 32), 0.5), torch.full((3, 40, 32), 0.6))
    assert scores.psnr_rgb == pytest.approx(20, abs=1e-3)
    assert scores.psnr_y == pytest.approx(21.32196, abs=1e-3)
    assert scores.ssim_rgb == pytest.approx(0.983609, abs=1e-4)
    assert scores.lpips is None


def test_gain_is_restored_minus_input(pairs: Path) -> None:
    # Inputs are off by 20 and 40 levels; taking 20 away leaves 0 (cap, 100 dB) and 20.
    # PSNR at 20 levels: 20 log10(255 / 20) = 22.1103 dB; at 40 levels 6.0206 less: 16.0897 dB.
    reports = list(evaluate(Darker(20 / 255), find_sets(pairs)["set"]))
    assert [one.gain("psnr_rgb") for one in reports] == pytest.approx([100 - 22.1103, 6.0206], abs=1e-3)
    assert (reports[0].width, reports[0].height, reports[0].seconds) == (40, 32, 0.25)
    result = as_result({"far": reports, "near": reports[:1]}, "a command", [3])
    rows = figures(result)
    assert rows["PSNR, dB", "far"] == pytest.approx({"input": 19.1, "restored": 61.0551, "gain": 41.9551}, abs=1e-3)
    assert rows["PSNR, dB", "near"]["gain"] == pytest.approx(77.8897, abs=1e-3)
    assert rows["Time", "far"] == {"pictures": 2, "seconds a picture": 0.25}
    assert {table for table, _ in rows} == {
        *("PSNR, dB", "PSNR of luma, dB", "SSIM", "SSIM of luma", "Time"),
        HARM_TABLE,
    }
    gain = result.rows[0].figures["gain"]
    assert gain.low is not None and gain.high is not None and gain.low < gain.value < gain.high
    assert (result.room, result.command, result.seeds) == ("restoration", "a command", [3])
    # What is measured is the picture in 8 bits: 20.4 levels less than 120 is saved as 100, the target itself.
    first, _ = evaluate(Darker(20.4 / 255), find_sets(pairs)["set"])
    assert first.restored is not None and first.restored.psnr_rgb == 100


@pytest.mark.parametrize(("amount", "lost", "over_1_dB"), [(10, (3.5218, 1.9382), 2), (2, (0.8279, 0.4238), 0)])
def test_pictures_that_lose_are_counted_and_models_compared(
    pairs: Path, amount: int, lost: tuple[float, float], over_1_dB: int
) -> None:
    # Inputs are off by 20 and 40 levels, and come out off by so many more: 20 log10(30 / 20) = 3.5218 dB, and so on.
    kept, brighter = (list(evaluate(Darker(-more / 255), find_sets(pairs)["set"])) for more in (0, amount))
    harm = figures(as_result({"set": brighter}, ""))[HARM_TABLE, "set"]
    expected = {"pictures": 2, "worse": 2, "by more than 1 dB": over_1_dB, "least gain, dB": -lost[0]}
    assert harm == pytest.approx(expected, abs=1e-3)
    assert figures(as_result({"set": kept}, ""))[HARM_TABLE, "set"]["worse"] == 0
    (row,) = compare({"set": {"first": kept, "other": brighter}, "none": {"first": [], "other": []}})
    assert (row.table, row.name, list(row.figures)) == ("PSNR beside first, dB", "other", ["set", "all pictures"])
    assert row.figures["set"].value == pytest.approx(-sum(lost) / 2, abs=1e-3)


def test_a_bad_pair_is_reported_and_the_rest_go_on(pairs: Path) -> None:
    for name, size, other in (("0.png", (9, 9), (9, 9)), ("c.png", (8, 8), (8, 8)), ("d.png", (40, 30), (40, 32))):
        save(pairs / "input" / name, 0, size)
        save(pairs / "target" / name, 0, other)
    (pairs / "input" / "0.png").write_bytes(b"not a picture")
    save(pairs / "input" / "e.png", 0)
    reports = list(evaluate(Darker(0), find_sets(pairs)["set"]))
    errors = {report.name: report.error for report in reports}
    assert "0.png" in errors["0.png"]
    assert "at least 11 pixels" in errors["c.png"]
    assert "40x30" in errors["d.png"] and "40x32" in errors["d.png"]
    assert "target/" in errors["e.png"]
    assert errors["a.png"] == errors["b.png"] == ""
    assert figures(as_result({"set": reports}, ""))["Time", "set"] == {"pictures": 2, "seconds a picture": 0.25}


def test_the_csv_has_a_row_a_pair(pairs: Path, tmp_path: Path) -> None:
    save(pairs / "input" / "c, d.png", 0)
    path = tmp_path / "new" / "scores.csv"
    write_csv(path, {"set": list(evaluate(Darker(20 / 255), find_sets(pairs)["set"]))})
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows] == ["a.png", "b.png", "c, d.png"]
    assert float(rows[1]["gain_psnr_rgb"]) == pytest.approx(6.0206, abs=1e-3)
    assert rows[1]["gain_lpips"] == rows[2]["gain_psnr_rgb"] == ""
    assert "target/" in rows[2]["error"]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """The command with a stand-in for the restorer, and neither LPIPS weights nor network."""

    def no_network(*_: object, **__: object) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr("torch.hub.urlopen", no_network)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "empty"))
    monkeypatch.setattr("mofme.vision.restorer.Restorer.from_pretrained", lambda *_, **__: Darker(20 / 255))

    def invoke(*arguments: object) -> tuple[int, str, str]:
        result = CliRunner().invoke(app, ["evaluate", "restoration", *map(str, arguments)])
        return result.exit_code, result.stdout, result.stderr

    return invoke


def figures(result: Result) -> dict[tuple[str, str], dict[str, float]]:
    return {(row.table, row.name): {name: figure.value for name, figure in row.figures.items()} for row in result.rows}


def test_equal_pairs_tell_how_much_is_kept(tmp_path: Path) -> None:
    # 2 levels off everywhere: 20 log10(255 / 2) = 42.1102 dB; 4 levels: 36.0896 dB. Mean 39.0999.
    for part in ("input", "target"):
        save(tmp_path / part / "a.png", 100)
        save(tmp_path / part / "b.png", 200)
    first, second = find_sets(tmp_path)[tmp_path.name]
    reports = [*evaluate(Darker(2 / 255), [first]), *evaluate(Darker(4 / 255), [second])]
    rows = figures(as_result({"clean": reports}, ""))
    kept = rows["Clean photographs, compared with themselves", "clean"]
    del kept["SSIM"]
    assert kept == pytest.approx({"pictures": 2, "PSNR, dB": 39.0999, "worst, dB": 36.0896, "below 40 dB": 1}, abs=1e-3)
    assert {table for table, _ in rows} == {"Clean photographs, compared with themselves", "Time"}
    unchanged = as_result({"clean": [*reports, *evaluate(Darker(0), [first])]}, "")
    kept = figures(unchanged)["Clean photographs, compared with themselves", "clean"]
    assert kept["PSNR, dB"] == pytest.approx((42.1102 + 36.0896 + 60) / 3, abs=1e-3)


def test_the_verdict_goes_by_the_interval(pairs: Path) -> None:
    # Inputs are off by 20, 40 and 30 levels. Darker by 10: all gain; brighter by 10: all lose;
    # darker by 40: they are off by 20, 0 and 10: the first neither, the others gain; so one more that loses: off by 2.
    for amount, words in ((10, "Closer to the truth: set (+"), (-10, "Further from it: set (-"), (40, "Neither for")):
        name, level = ("d.png", 102) if amount == 40 else ("c.png", 130)
        save(pairs / "input" / name, level)
        save(pairs / "target" / name, 100)
        result = as_result({"set": list(evaluate(Darker(amount / 255), find_sets(pairs)["set"]))}, "")
        assert result.verdict.startswith(words)
    result = as_result({"set": list(evaluate(Darker(20 / 255), find_sets(pairs)["set"][:1]))}, "")
    gain = next(row.figures["gain"] for row in result.rows if row.table == "PSNR, dB")
    assert (gain.low, gain.high) == (None, None)
    assert result.verdict == "One picture only: set (+77.89 dB)."
    with pytest.raises(MofmeError, match=r"1\.png: why"):
        as_result({"set": [PairReport("1.png", error="1.png: why")]}, "")


def test_command_prints_json_and_writes_its_files(run: Run, pairs: Path) -> None:
    out = pairs.parent / "out"
    code, stdout, stderr = run(pairs, "--model", "small", "--json", "--out", out, "--limit", 1)
    assert code == 0, stderr
    result = load_result("restoration", out)
    assert json.loads(stdout) == json.loads((out / "restoration.json").read_text(encoding="utf-8"))
    rows = figures(result)
    assert rows["PSNR, dB", "set"]["gain"] == pytest.approx(77.8897, abs=1e-3)
    assert rows["Time", "set"]["pictures"] == 1
    # Where the folder lies is left out: it differs from machine to machine.
    assert result.command == "python -m mofme evaluate restoration set --model small --limit 1"
    assert (out / "restoration.csv").is_file()
    assert stderr.count("LPIPS is left out") == 1
    assert not any("LPIPS" in table for table, _ in rows)

    # The ensemble is a result of its own.
    code, _, stderr = run(pairs, "--model", "small", "--ensemble", "--out", out)
    assert code == 0, stderr
    result = load_result("restoration_ensemble", out)
    assert result.command == "python -m mofme evaluate restoration set --model small --ensemble"
    assert figures(result)["PSNR, dB", "set"]["gain"] < 0
    assert (out / "restoration_ensemble.csv").is_file()

    save(pairs / "input" / "c.png", 0)
    code, stdout, stderr = run(pairs)
    assert code == 1 and "Closer to the truth" in stdout and "c.png" in stderr


def test_command_measures_several_folders_and_models_at_once(run: Run, pairs: Path) -> None:
    save(pairs.parent / "more" / "snow" / "input" / "1.png", 50)
    save(pairs.parent / "more" / "snow" / "target" / "1.png", 40)
    code, stdout, stderr = run(pairs, pairs.parent / "more", "--model", "small", "--model", "big", "--json")
    assert code == 0, stderr
    answer = json.loads(stdout)
    rows = answer["rows"]
    assert answer["verdict"].startswith("PSNR beside small, dB, on all pictures: big ")
    names = [row["name"] for row in rows if row["table"] == "SSIM"]
    assert names == ["set, small", "set, big", "snow, small", "snow, big"]
    (beside,) = [row for row in rows if row["table"] == "PSNR beside small, dB"]
    assert beside["name"] == "big" and list(beside["figures"]) == ["set", "snow", "all pictures"]


def test_command_puts_weather_on_what_training_held_back(run: Run, tmp_path: Path) -> None:
    names = [f"{number}.png" for number in range(60)]
    held = [name for name in names if held_back(Path(name))]
    assert 0 < len(held) < 10
    for name in [*held, next(name for name in names if name not in held)]:
        save(tmp_path / "photos" / name, 100)
    code, stdout, stderr = run("--held-back", tmp_path / "photos", "--seed", 3, "--json")
    assert code == 0, stderr
    answer = json.loads(stdout)
    pictures = {row["name"]: row["figures"]["pictures"]["value"] for row in answer["rows"] if row["table"] == "Time"}
    weathers = ("rain", "snow", "raindrop", "haze")
    assert pictures == {**{f"synthesized {name}": len(held) for name in weathers}, "clean photographs": len(held)}
    assert answer["seeds"] == [3]
    assert "clean photographs keep" in answer["verdict"]


def test_command_refuses_what_cannot_be_meant(run: Run, pairs: Path) -> None:
    for arguments, message in (
        ([], "nothing to measure"),
        ([pairs, pairs], "another set is called set"),
        (["--held-back", pairs], "set"),
        ([pairs, "--model", "first/net", "--model", "second/net"], "first/net, second/net have the same name"),
    ):
        code, _, stderr = run(*arguments)
        assert code == 2 and message in " ".join(stderr.split())
