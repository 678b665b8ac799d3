from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from mofme.cli.app import app
from mofme.measure.result import load_result
from mofme.papers.mofme import experiment, training
from mofme.papers.mofme.result import ROUTERS, Measured, RouterCost, difference_rows, quality_rows, routers_verdict
from mofme.papers.mofme.training import Recipe
from mofme.vision.benchmark import Arm
from mofme.vision.evaluation import Scores
from mofme.vision.weather import WEATHERS
from tests.vision.pictures import save_grey

LINEAR = Arm("mofme-linear", 16)


def measured(gains: Sequence[Sequence[float]]) -> Measured:
    """Every router's PSNR is 20 dB and its gains, one for each seed; the linear router's gains are 0."""
    return {
        arm: [[Scores(20 + gain + picture, 0.5, 20, 0.5) for _ in WEATHERS for picture in (0, 1)] for gain in of_seeds]
        for arm, of_seeds in zip(ROUTERS.arms, [[0.0] * len(gains[0]), *gains], strict=True)
    }


def test_differences_are_paired_by_seed() -> None:
    found = measured([[0.1, 0.3], [0.2, 0.2], [-0.1, 0.1], [0.0, 0.0]])
    rows = {row.name: row.figures for row in difference_rows(ROUTERS, found)}
    gain = rows["uncertainty-aware, sampled minus linear"]["gain, dB (seeds)"]
    # Mean 0.2, half-width t(0.975, 1) * sd / sqrt(2) = 12.7062 * 0.141421 / 1.41421 = 1.27062.
    assert (gain.value, gain.low, gain.high) == pytest.approx((0.2, 0.2 - 1.27062, 0.2 + 1.27062), abs=1e-5)
    closed = rows["attention minus uncertainty-aware, closed form"]["gain, dB (seeds)"]
    assert closed.value == pytest.approx(-0.2)
    quality = next(row.figures for row in quality_rows(ROUTERS, found) if row.name == "linear")
    assert quality["mean"].value == quality["rain"].value == pytest.approx(20.5)


def test_the_verdict_names_the_best_and_counts_what_is_certain() -> None:
    costs = {arm: RouterCost(1000, 10, np.array([2.0, 2.0] if arm == LINEAR else [3.0, 3.0])) for arm in ROUTERS.arms}

    def said(gains: Sequence[Sequence[float]]) -> str:
        return routers_verdict(measured(gains), costs, Recipe(), 2)

    verdict = said([[0.1, 0.3], [0.2, 0.2], [-0.1, 0.1], [0.0, 0.0]])
    # Two equal seeds leave no noise: the closed form's 0.20 is certain, the sampled router's 0.20 is not.
    assert "uncertainty-aware, closed form +0.20 (+0.20 to +0.20)" in verdict
    assert "1 of 4 gains beyond the noise" in verdict and "at 1.50 times" in verdict
    worse = said([[-0.1, -0.3], [-0.2, -0.2], [-0.1, 0.1], [-0.1, -0.2]])
    assert "none has a higher mean than the linear router, and none gains beyond" in worse


def test_the_command_trains_measures_and_finds_both_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    photographs = tmp_path / "photos"
    for number in range(3):
        save_grey(photographs / f"{number}.png", 60 * number)
    monkeypatch.setattr(training, "Recipe", partial(Recipe, batch=2, crop=16))
    monkeypatch.setattr(experiment, "_REPEATS", 1)
    words = ["evaluate", "routers", str(photographs), "--arms", str(tmp_path / "arms"), "--out", str(tmp_path)]
    words += ["--seeds", "1", "--steps", "2"]
    first = CliRunner().invoke(app, words)
    assert first.exit_code == 0, first.output
    before = load_result("routers", tmp_path)
    assert before.command == "python -m mofme evaluate routers photos --arms arms --seeds 1 --steps 2"
    assert (tmp_path / "routers-quality.png").is_file()
    monkeypatch.setattr(training, "train_arms", lambda *_: pytest.fail("trained again"))
    monkeypatch.setattr(experiment, "score", lambda *_: pytest.fail("measured again"))
    assert CliRunner().invoke(app, words).exit_code == 0
    after = load_result("routers", tmp_path)
    quality = [[row for row in result.rows if row.table != "cost"] for result in (before, after)]
    assert quality[0] == quality[1]
    words[2] = str(tmp_path / "arms")  # without photographs
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 2 and "error" in done.stderr
