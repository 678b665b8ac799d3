import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mofme.errors import ModelError
from mofme.measure.result import Figure
from mofme.papers.moe_distillation import METHODS, experiment, quality
from mofme.papers.moe_distillation.distillation import Plan
from mofme.papers.moe_distillation.experiment import Candidate, Findings, as_result, compare
from mofme.papers.moe_distillation.quality import Quality

PLAN = Plan("gkd", steps=1, batch=2, samplings=1)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(experiment, "_HELD_BACK", 3)
    monkeypatch.setattr(quality, "RESPONSE", 8)  # tokens that are written after a prompt
    shapes = {role: replace(shape, dim=8, heads=2, hidden=8, layers=1) for role, shape in experiment.SHAPES.items()}
    monkeypatch.setattr(experiment, "SHAPES", shapes)


@pytest.mark.usefixtures("small")
def test_what_is_finished_is_not_done_again(tmp_path: Path) -> None:
    draw = random.Random(0)
    text = " ".join("".join(draw.choices("abcdefgh", k=draw.randint(1, 9))) for _ in range(3500))
    said: list[str] = []
    first = compare({"letters": text}, range(2), PLAN, 2, tmp_path, "CC0", said.append)
    assert {method: len(seeds) for method, seeds in first.arms.items()} == dict.fromkeys(METHODS, 2)
    assert any(line.startswith("teacher: step") for line in said) and any(
        line.startswith("sar, seed 1") for line in said
    )
    (tmp_path / "ka-1.json").unlink()
    again: list[str] = []
    second = compare({"letters": text}, range(2), PLAN, 2, tmp_path, "CC0", again.append)
    assert again and all(line.startswith("ka, seed 1") for line in again)
    np.testing.assert_allclose(second.arms["ka"][1].kl_P, first.arms["ka"][1].kl_P, atol=2e-6)
    # 8 experts of 2 * 8 * 8 weights and 16 biases; a token visits 2, so that 6 * 144 parameters are idle
    teacher = first.candidates["teacher"]
    assert teacher.parameters - teacher.activated == 6 * 144
    assert first.candidates["teacher, all experts"].activated == teacher.parameters
    with pytest.raises(ModelError, match="another steps: take another folder"):
        compare({"letters": text}, range(2), replace(PLAN, steps=2), 2, tmp_path, "CC0", again.append)


def quality_of(kl: float, rouge: float) -> Quality:
    ones = np.ones(4)
    return Quality(kl * ones, 3 * ones, np.array([2 * kl * ones] * 2), np.array([rouge * ones] * 2))


def made_up(ka: Sequence[float], gkd: Sequence[float]) -> Findings:
    """Every arm but KA has GKD's divergences; all else is equal."""
    others = {method: [quality_of(kl, 0.1) for kl in gkd] for method in METHODS}
    candidates = {
        "teacher": Candidate(np.full(4, 2.0), 4_000_000, 1_000_000),
        "student": Candidate(np.full(4, 3.5), 1_000_000, 1_000_000),
    }
    arms = {**others, "ka": [quality_of(kl, 0.1) for kl in ka]}
    return Findings(candidates, quality_of(2, 0.1), arms, np.array([0.25]))


def test_differences_by_hand() -> None:
    result = as_result(made_up(ka=[0.5, 0.7, 0.6], gkd=[1.0, 1.0, 1.0]), range(3), "it")
    gain = result.figure("differences", "ka against gkd", "gain, KL on held-out text")
    # .5, .3, .4: mean .4, deviation .1; Student's 4.303 * .1 / sqrt(3) = .248, wider than no spread over passages
    assert (gain.value, gain.low, gain.high) == pytest.approx((0.4, 0.152, 0.648), abs=1e-3)
    assert result.figure("differences", "ka against gkd", "gain, KL on its own text").value == pytest.approx(0.8)
    assert result.figure("differences", "sar against gkd", "gain, KL on held-out text") == Figure(0, 0, 0)
    assert result.figure("models", "teacher", "gain over the student, nats").value == pytest.approx(1.5)
    assert result.figure("idle experts", "layer 0", "share of the router's probability, %") == Figure(25)
    # Where nothing is taught nothing is claimed.
    (judgement,) = result.judgements
    teacher, taught = judgement.gates  # GKD's students have the cross-entropy that they began with
    assert (teacher.side, taught.side) == (1, 0) and teacher.figure.value == pytest.approx(1.5)
    assert result.verdict.startswith("Cannot be seen here")
