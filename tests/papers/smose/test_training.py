import json
from pathlib import Path

import pytest
import torch

from mofme.core.weights import load_card
from mofme.papers.smose import experiment
from mofme.papers.smose.environments import Evaluation
from mofme.papers.smose.experiment import ControlPlan, ControlProgress, train
from mofme.papers.smose.policy import load_policy


def plan(out: Path, steps: int, seed: int = 0) -> ControlPlan:
    return ControlPlan("Reacher", out, steps, seed, experts=4, check_steps=30, check_episodes=1)


def test_training_is_resumed_and_saved(tmp_path: Path) -> None:
    seen: list[ControlProgress] = []
    first = train(plan(tmp_path, 60), seen.append)
    assert [progress.step for progress in seen] == [30, 60]
    resumed = train(plan(tmp_path, 90), seen.append)
    assert [progress.step for progress in seen] == [30, 60, 90]
    assert not torch.equal(first.experts_EFD, resumed.experts_EFD)
    assert [json.loads(line)["step"] for line in (tmp_path / "curve.jsonl").read_text().splitlines()] == [30, 60, 90]
    assert load_policy(tmp_path)[1] == "Reacher"


def test_the_policy_of_the_best_check_is_kept_over_all_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    returns = iter([1.0, 3.0, 2.0, 3.5])
    monkeypatch.setattr(experiment, "evaluate", lambda *_, **__: Evaluation((next(returns),), (50,), (1.0,)))

    def kept_after(steps: int) -> tuple[torch.Tensor, torch.Tensor, int]:
        last = train(plan(tmp_path, steps))
        return last.experts_EFD, load_policy(tmp_path)[0].experts_EFD, load_card(tmp_path).training["steps"]

    best, kept, steps = kept_after(60)
    torch.testing.assert_close(kept, best, atol=1e-3, rtol=1e-3)  # half precision
    assert steps == 60
    _, still_kept, steps = kept_after(90)
    assert torch.equal(still_kept, kept) and steps == 60
    best, kept, steps = kept_after(120)
    torch.testing.assert_close(kept, best, atol=1e-3, rtol=1e-3)
    assert steps == 120


def test_nothing_is_lost_between_two_runs(tmp_path: Path) -> None:
    train(plan(tmp_path, 60))
    learner = experiment.fresh_learner(plan(tmp_path, 60))
    memory = experiment.Replay(60, 11, 2)
    assert experiment._resume(tmp_path, learner, memory) == 60
    saved = experiment.load_file(tmp_path / "state.safetensors")
    assert {key: value.tolist() for key, value in experiment._state(learner, 60).items()} == {
        key: value.tolist() for key, value in saved.items()
    }
    assert len(memory) == 60
