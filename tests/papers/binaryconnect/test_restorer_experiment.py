"""What is measured of a restorer with binary weights, on made-up figures and on tiny nets."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torch import nn
from typer.testing import CliRunner

from mofme.cli.app import app
from mofme.errors import MofmeError
from mofme.measure.result import Row, load_result
from mofme.papers.binaryconnect.restorer_experiment import (
    KEPT,
    QUALITY,
    SIZE,
    TIME,
    Model,
    as_result,
    entries,
    two_models,
)
from mofme.vision import comparison
from mofme.vision.comparison import NOTHING, Entry, Outcome, Trial
from mofme.vision.datasets import CLEAN, held_back
from mofme.vision.evaluation import Scores
from mofme.vision.models import build_net, stays_real
from tests.vision.tiny_models import save_two_models

BOTH = (
    Model(Entry("model", "signs"), weights=1000, binary=900, bytes=400),
    Model(Entry("model", "real"), weights=1000, binary=0, bytes=2000),
)


def trial(set_: str, untouched: float, real: float, binary: float, seconds: tuple[float, float] = (2, 2)) -> Trial:
    def outcome(psnr: float, seconds: float = 0.0) -> Outcome:
        return Outcome(Scores(psnr, 0.5, psnr, 0.5), seconds)

    outcomes = {NOTHING: outcome(untouched), "signs": outcome(binary, seconds[0]), "real": outcome(real, seconds[1])}
    return Trial(set_, "a.png", Path("a.png"), 500_000, outcomes)


def figures(rows: list[Row], table: str, name: str) -> dict[str, float]:
    row = next(row for row in rows if (row.table, row.name) == (table, name))
    return {name: figure.value for name, figure in row.figures.items()}


def test_figures_and_verdict_by_hand() -> None:
    trials = [
        trial("rain", 20, 26, 25, (1, 2)),
        trial("rain", 22, 30, 29.5, (2, 2)),
        trial(CLEAN, 100, 48, 44, (3, 2)),
        Trial("rain", "broken.png", Path("broken.png"), error="broken"),
    ]
    result = as_result(trials, BOTH, "measure", 7)
    rows = list(result.rows)
    assert figures(rows, QUALITY, "rain") == {
        "photographs": 2,
        "input": 21,
        "real weights": 28,
        "binary weights": 27.25,
        "binary against real, gain in dB": -0.75,
    }
    # Each photograph against itself: the difference lies between -1 and -.5, though the pictures are 4 dB apart.
    difference = next(row for row in rows if row.table == QUALITY).figures["binary against real, gain in dB"]
    assert (difference.low, difference.high) == (-1, -0.5)
    assert figures(rows, KEPT, CLEAN)["binary against real, gain in dB"] == -4
    assert "input" not in figures(rows, KEPT, CLEAN)
    assert figures(rows, SIZE, "signs") == {"file, kB": 0.4, "times smaller": 5, "weights": 1000, "of one bit, %": 90}
    # Half a megapixel each: 2, 4 and 6 s a megapixel against 4; the ratios are .5, 1 and 1.5.
    assert figures(rows, TIME, "signs") == {"CPU time, ms a megapixel": 4000, "times as long": 1}
    assert figures(rows, TIME, "real") == {"CPU time, ms a megapixel": 4000}
    for words in ("90 % of its weights", "5.0 times smaller", "rain -0.75 (-1.00 to -0.50)", "44.0 instead of 48.0"):
        assert words in result.verdict
    assert result.seeds == [7]


def test_nothing_measured_is_an_error() -> None:
    with pytest.raises(MofmeError, match="broken picture"):
        as_result([Trial("rain", "a.png", Path("a.png"), error="broken picture")], BOTH, "measure", 0)


def test_sizes_are_those_of_the_files(tmp_path: Path) -> None:
    binary, real = save_two_models(tmp_path)
    both = two_models(str(binary), str(real))
    assert [model.entry.title for model in both] == ["tiny-binary", "tiny"]
    assert [model.bytes for model in both] == [(path / "model.safetensors").stat().st_size for path in (binary, real)]
    assert [model.binary for model in both] == [2 * 8 * 8 * 3 * 3, 0]
    assert both[0].weights == both[1].weights
    with pytest.raises(MofmeError, match="one model of binary"):
        two_models(str(real), str(real))


def test_the_command_measures_both_on_photographs_held_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    binary, real = save_two_models(tmp_path)
    photographs = tmp_path / "photographs"
    photographs.mkdir()
    names = [f"{number}.png" for number in range(200) if held_back(Path(f"{number}.png"))][:2]
    random = np.random.default_rng(0)
    for name in [*names, "trained on.png"]:
        Image.fromarray(random.integers(0, 255, (48, 40, 3), np.uint8)).save(photographs / name)
    words = ["binary", "restorer", str(photographs), "--model", str(binary), "--against", str(real), "--seed", "0"]
    done = CliRunner().invoke(app, [*words, "--out", str(tmp_path / "out"), "--json"])
    assert done.exit_code == 0, done.output
    result = load_result("binary_restorer", tmp_path / "out")
    assert json.loads(done.stdout)["verdict"] == result.verdict
    assert result.command == ("python -m mofme binary restorer photographs --model tiny-binary --against tiny --seed 0")
    weathers = [row.name for row in result.rows if row.table == QUALITY]
    assert weathers == [f"synthesized {name}" for name in ("rain", "snow", "raindrop", "haze")]
    assert {row.figures["photographs"].value for row in result.rows if row.table in (QUALITY, KEPT)} == {2}

    # On the same photographs in the same weather the comparison of restorers finds the same.
    monkeypatch.setattr(comparison, "peak_of", lambda *_: None)
    beside = ["bench", "restorers", "--held-back", str(photographs), "--model", str(binary), "--model", str(real)]
    done = CliRunner().invoke(app, [*beside, "--seed", "0", "--out", str(tmp_path / "out")])
    assert done.exit_code == 0, done.output
    found = load_result("restorers", tmp_path / "out")
    assert found.seeds == [0] and CLEAN not in found.tables()
    for weather in weathers:
        one, other = (found.figure(weather, name, "PSNR, dB") for name in ("tiny-binary", "tiny"))
        assert one == result.figure(QUALITY, weather, "binary weights")
        assert other == result.figure(QUALITY, weather, "real weights")

    refused = CliRunner().invoke(app, [*words[:4], str(real), "--against", str(real)])
    assert refused.exit_code == 2
    assert "one model of binary" in refused.stderr


def test_two_thirds_of_the_weights_are_of_one_bit() -> None:
    net = build_net("small")
    names = [name for name, layer in net.named_modules() if isinstance(layer, nn.Linear | nn.Conv2d)]
    binary = [name for name in names if not stays_real(name)]
    # 4 blocks at 1/4 (64 channels) and 4 at 1/8 (96), of two 3x3 convolutions each
    assert len(binary) == 16
    weights = sum(net.get_parameter(f"{name}.weight").numel() for name in binary)
    assert weights == 8 * 64 * 64 * 9 + 8 * 96 * 96 * 9
    assert not any("router" in name or "half" in name for name in binary)


def test_two_of_one_name_are_refused() -> None:
    both = replace(BOTH[0], entry=Entry("model", "a/mine")), replace(BOTH[1], entry=Entry("model", "b/mine"))
    with pytest.raises(MofmeError, match="name mine"):
        entries(both)
