import csv
import json
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from PIL import Image
from scipy.stats import ttest_1samp
from typer.testing import CliRunner

from mofme.cli.app import app
from mofme.errors import ModelError
from mofme.measure.result import Figure, Result, Row, load_result
from mofme.papers.mofme import experiment, judge_quality, training
from mofme.papers.mofme.experiment import samples, score
from mofme.papers.mofme.result import ABLATION, difference_rows, gain
from mofme.papers.mofme.training import Recipe, name_of, train_arms, train_or_load
from mofme.vision.benchmark import Arm
from mofme.vision.evaluation import Scores
from mofme.vision.nets.unet import RestorationNet
from mofme.vision.restorer import Restorer
from mofme.vision.weather import WEATHERS

DENSE, OURS, RIVAL, LINEAR = Arm("dense", 1), Arm("mofme", 16), Arm("moe", 16), Arm("mofme-linear", 16)
SHORT = Recipe(steps=2, batch=2, crop=16, learning_rate=1e-3)


def photographs(count: int = 2, side: int = 40) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randint(0, 256, (3, side, side), generator=generator, dtype=torch.uint8) for _ in range(count)]


def measured(psnr_SP: Sequence[Sequence[float]]) -> list[list[Scores]]:
    """The same numbers for each of the four weathers."""
    return [[Scores(value, 0.5, value, 0.5) for _ in WEATHERS for value in seed] for seed in psnr_SP]


def quiet(_: str) -> None: ...


def test_an_arm_does_not_depend_on_those_trained_beside_it() -> None:
    alone = train_arms([DENSE], photographs(), SHORT, 3, quiet)[DENSE]
    beside = train_arms([Arm("mofme", 4), DENSE], photographs(), SHORT, 3, quiet)[DENSE]
    for name, value in alone.state_dict().items():
        torch.testing.assert_close(value, beside.state_dict()[name], msg=name)
    assert all(parameter.abs().sum() > 0 for parameter in alone.head.parameters())  # it has learnt


def test_arms_of_another_recipe_or_other_photographs_are_neither_taken_nor_replaced(tmp_path: Path) -> None:
    train_or_load(tmp_path, [DENSE], photographs(), SHORT, 0, quiet)
    weights = tmp_path / "seed-0" / "dense" / "model.safetensors"
    before = weights.read_bytes()
    longer = replace(SHORT, steps=100)
    with pytest.raises(ModelError, match=r"seed-0/dense was trained with steps 2: name another folder"):
        train_or_load(tmp_path, [OURS, DENSE], photographs(), longer, 0, pytest.fail)
    with pytest.raises(ModelError, match="trained with photographs"):
        train_or_load(tmp_path, [DENSE], [255 - picture for picture in photographs()], SHORT, 0, quiet)
    assert weights.read_bytes() == before
    assert not (tmp_path / "seed-0" / name_of(OURS)).exists()


def test_samples_are_the_same_each_time_and_an_untrained_net_scores_as_they_do() -> None:
    chosen, again = samples(photographs(side=45), seed=1), samples(photographs(side=45), seed=1)
    assert [sample.weather for sample in chosen] == [weather for weather in WEATHERS for _ in range(2)]
    assert all(sample.clean.shape == (3, 40, 40) for sample in chosen)
    assert all(torch.equal(a.weathered, b.weathered) for a, b in zip(chosen, again, strict=True))
    [scores] = score(Restorer(RestorationNet((8, 8, 8), (1, 1, 1), num_experts=4), "untrained"), chosen[:1], None)
    expected = -10 * torch.log10((chosen[0].weathered - chosen[0].clean).square().mean()).item()
    assert scores.psnr_rgb == pytest.approx(expected, abs=0.1)


def test_the_difference_over_seeds_is_students() -> None:
    # Two pictures a seed; means 31, 30.5, 30 against 30, 30, 29.5: gains 1, 0.5, 0.5.
    ours = measured([[30, 32], [30, 31], [29, 31]])
    rival = measured([[29, 31], [30, 30], [29, 30]])
    figures = gain(ours, rival)
    gained = figures["gain, dB (seeds)"]
    interval = ttest_1samp([1, 0.5, 0.5], 0).confidence_interval(0.95)
    assert gained.value == pytest.approx(2 / 3)
    assert (gained.low, gained.high) == (pytest.approx(interval.low), pytest.approx(interval.high))
    # The first picture gains 1, 0, 0, the second 1, 1, 1: both are better in the mean.
    assert figures["better pictures, %"].value == 100


@pytest.mark.parametrize(
    ("gains", "words", "verdict"),
    [([0.2, 0.21, 0.19], "beyond", "reproduced"), ([0.5, -0.5, 0.1], "within", "cannot be seen here")],
)
def test_the_verdict_says_whether_it_is_noise(gains: list[float], words: str, verdict: str) -> None:
    arms = {OURS: measured([[30 + one] for one in gains]), **dict.fromkeys((RIVAL, LINEAR), measured([[30]] * 3))}
    guesses = {"the guess": Figure(0.4, 0.3, 0.5), "the other": Figure(-0.1, -0.2, 0.1)}
    rows = [Row("uncertainty", name, {"Spearman, parts of a picture": figure}) for name, figure in guesses.items()]
    rows += difference_rows(ABLATION, arms)
    result = judge_quality(Result("ablation", "MoFME", "a claim", "", "x --steps 2000", rows, [0, 1, 2]))
    assert result.verdict.count(f"{words} the noise of the seeds") == 2
    assert [one.verdict for one in result.judgements] == [verdict]
    ranked = "where 0 is chance: the guess +0.40 (+0.30 to +0.50); the other -0.10 (-0.20 to +0.10)."
    assert ranked in result.verdict


def test_the_whole_ablation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for number, picture in enumerate(photographs(4, 48)):
        Image.fromarray(picture.permute(1, 2, 0).numpy()).save(photos / f"{number}.png")
    few = {arm: ABLATION.arms[arm] for arm in (DENSE, OURS, Arm("mofme-sampled", 16))}
    monkeypatch.setattr(experiment, "ABLATION", replace(ABLATION, arms=few))
    out = tmp_path / "out"
    short = {"batch": SHORT.batch, "crop": SHORT.crop, "learning_rate": SHORT.learning_rate}
    monkeypatch.setattr(training, "Recipe", partial(Recipe, **short))
    monkeypatch.setattr("mofme.papers.mofme.command.open_lpips", lambda *_: None)
    words = ["evaluate", "ablation", str(photos), "--arms", str(tmp_path / "arms"), "--seeds", "2", "--steps", "2"]
    done = CliRunner().invoke(app, [*words, "--limit", "1", "--out", str(out), "--json"])
    assert done.exit_code == 0, done.output
    result = load_result("ablation", out)
    assert json.loads(done.stdout)["verdict"] == result.verdict
    assert result.command == "python -m mofme evaluate ablation photos --arms arms --seeds 2 --steps 2 --limit 1"
    tables = {row.table for row in result.rows}
    assert {"PSNR, dB", "SSIM", "differences", "uncertainty"} <= tables
    with (out / "ablation.csv").open() as file:
        lines = list(csv.DictReader(file))
    # Three arms, two seeds, four weathers, one picture held back.
    assert len(lines) == 3 * 2 * 4
    assert result.verdict in (out / "ablation.md").read_text()
    for plot in ("quality", "uncertainty"):
        with Image.open(out / f"ablation-{plot}.png") as image:
            assert image.width > 500
    assert (tmp_path / "arms" / "seed-1" / name_of(OURS) / "card.json").is_file()

    arms = ["--arm", "dense", "--arm", "mofme-16"]
    assert CliRunner().invoke(app, [*words, *arms, "--limit", "1", "--out", str(out)]).exit_code == 0
    some = load_result("ablation_arms", out)
    assert [row.name for row in some.rows if row.table == "PSNR, dB"] == ["dense", "MoFME, 16 experts"]
    wrong = CliRunner().invoke(app, [*words, "--arm", "moe-3"])
    assert wrong.exit_code == 2
    assert "no arm is called moe-3: choose from dense, mofme-16, mofme-sampled-16" in wrong.stderr


def test_generated_experts_are_judged_beside_the_conventional_ones() -> None:
    arms = {Arm("generated", 16): measured([[30.2], [30.21], [30.19]]), RIVAL: measured([[30]] * 3)}
    rows = difference_rows(ABLATION, arms)
    (one,) = judge_quality(Result("ablation_arms", "MoFME", "a claim", "", "x --steps 9", rows, [0, 1, 2])).judgements
    assert one.claim.startswith("experts generated from the input") and one.verdict == "reproduced"
    assert one.gates[0].figure.value == pytest.approx(0.0248, abs=1e-4)  # Student's 4.303 * .01 / sqrt 3
