import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from mofme.cli.app import app
from mofme.core.routers import RouterKind
from mofme.errors import ModelError
from mofme.language.scoring import FloatArray, TextScore
from mofme.language.small_lm import Shape
from mofme.language.small_lm_training import Plan
from mofme.measure.result import load_result
from mofme.papers.attention_router import experiment
from mofme.papers.attention_router.experiment import Findings, Measured, Setting, as_result, compare

TEXT = "".join(f"{number} and {number * 7 % 13} make {number + number * 7 % 13}. " for number in range(400))
SMALL = Setting(
    {"sums": TEXT},
    Plan(steps=3, batch=2, context=16, warm_up=1),
    Shape(vocabulary=260, dim=8, layers=1, heads=2, hidden=8, experts=4),
    passages=4,
    repeats=2,
)


def measured(*nats: float, entropy: float = 0.5) -> Measured:
    """Passages of ten tokens each."""
    tokens = np.full(len(nats), 10.0)
    along = {1000: 5.0, 2000: float(np.mean(nats))}
    return Measured({"text": TextScore(10 * np.array(nats), tokens)}, along, entropy, 1000, 10, 60.0)


def found(linear: list[Measured], mlp: list[Measured], attention: list[Measured]) -> Findings:
    seconds: dict[RouterKind, FloatArray] = {
        "linear": np.array([1.0, 1.0]),
        "mlp": np.array([1.1, 1.1]),
        "attention": np.array([1.2, 1.2]),
    }
    return Findings({"linear": linear, "mlp": mlp, "attention": attention}, seconds)


def quiet(_: str) -> None: ...


def test_every_router_is_trained_once_with_every_seed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = compare(SMALL, range(2), tmp_path, quiet)
    assert {router: len(seeds) for router, seeds in first.arms.items()} == {"linear": 2, "mlp": 2, "attention": 2}
    monkeypatch.setattr(experiment, "train", lambda *_: pytest.fail("trained again"))
    again = compare(SMALL, range(2), tmp_path, quiet)
    for router, seeds in first.arms.items():
        for one, other in zip(seeds, again.arms[router], strict=True):
            assert one.score.nats == pytest.approx(other.score.nats)
            assert one.along == other.along and list(one.along) == [3 * 2 * 16]  # three steps of two passages
            assert one.along[96] == pytest.approx(one.score.nats)
    # Attention: 3 D E = 96 parameters. MLP: the nearest to it in steps of D + E = 12. Linear: D E = 32.
    assert [first.arms[router][0].router_parameters for router in ("linear", "mlp", "attention")] == [32, 96, 96]


def test_gains_are_paired_and_have_students_interval() -> None:
    # Gains over linear by seed: 0.02 and 0.04 in the mean of both passages: mean 0.03, half-width
    # t(0.975, 1) * sd / sqrt(2) = 12.7062 * 0.0141421 / 1.41421 = 0.127062.
    linear = [measured(2.00, 3.00), measured(2.50, 3.50)]
    attention = [measured(1.99, 2.97), measured(2.45, 3.47)]
    result = as_result(found(linear, linear, attention), range(2), "x")
    row = next(row for row in result.rows if row.name == "attention router against linear router")
    gain = row.figures["gain, nats a token (seeds)"]
    assert (gain.value, gain.low, gain.high) == pytest.approx((0.03, 0.03 - 0.127062, 0.03 + 0.127062), abs=1e-6)
    assert row.figures["smallest gain these seeds can tell, nats"].value == pytest.approx(0.127062, abs=1e-6)
    assert "within the noise" in result.verdict and result.verdict.startswith("Cannot be seen here")
    assert result.figure("loads and cost", "attention router", "time against linear").value == pytest.approx(1.2)
    along = [row.figures["attention router against linear router, gain"] for row in result.rows if "along" in row.table]
    assert [gain.value for gain in along] == pytest.approx([0, 0.03])
    assert "after 1,000 tokens +0.000" in result.verdict and "after 2,000 tokens +0.03" in result.verdict


def test_a_gain_that_every_seed_shows_is_beyond_the_noise() -> None:
    linear = [measured(2.0, 3.0), measured(2.5, 3.5), measured(2.2, 3.1)]
    attention = [measured(1.980, 2.980), measured(2.481, 3.481), measured(2.181, 3.081)]
    verdict = as_result(found(linear, linear, attention), range(3), "x").verdict
    assert "beyond the noise" in verdict and verdict.startswith("Reproduced")


def test_the_command_measures_and_says_how(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = tmp_path / "sums.txt"
    text.write_text(TEXT * 4)
    monkeypatch.setattr(experiment, "Setting", lambda texts, plan: replace(SMALL, texts=texts, plan=plan, passages=3))
    words = ["evaluate", "attention-router", "--text", str(text), "--arms", str(tmp_path / "arms")]
    done = CliRunner().invoke(app, [*words, "--seeds", "2", "--steps", "2", "--out", str(tmp_path), "--json"])
    assert done.exit_code == 0, done.output
    result = load_result("attention_router", tmp_path)
    assert result.command == (
        "python -m mofme evaluate attention-router --text sums.txt --arms arms --seeds 2 --steps 2"
    )
    assert json.loads(done.stdout)["verdict"] == result.verdict
    assert math.isclose(result.rows[0].figures["sums"].value, result.rows[0].figures["all texts"].value)
    assert (tmp_path / "attention_router-loss.png").is_file()


def test_texts_of_one_name_are_refused(tmp_path: Path) -> None:
    words = ["evaluate", "attention-router", "--arms", str(tmp_path / "arms")]
    for name in ("wiki.train.txt", "wiki.valid.txt"):
        (tmp_path / name).write_text(TEXT)
        words += ["--text", str(tmp_path / name)]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 2 and "wiki.valid.txt: another text is called 'wiki' too" in done.stderr


def test_models_of_another_plan_are_not_replaced(tmp_path: Path) -> None:
    compare(SMALL, range(1), tmp_path, lambda _: None)
    before = (tmp_path / "seed-0/linear/model.safetensors").read_bytes()
    with pytest.raises(ModelError, match="another steps"):
        compare(replace(SMALL, plan=replace(SMALL.plan, steps=4)), range(1), tmp_path, lambda _: None)
    assert (tmp_path / "seed-0/linear/model.safetensors").read_bytes() == before
