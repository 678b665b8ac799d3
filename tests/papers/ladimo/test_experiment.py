from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from mofme.errors import ModelError
from mofme.language.pretrained import PretrainedLM
from mofme.language.text import Question
from mofme.papers.ladimo import FRONTIER, experiment
from mofme.papers.ladimo.converted_layer import Recipe
from mofme.papers.ladimo.experiment import ARMS, CMOE, DENSE, OURS, PRUNED, RANDOM, UNIFORM, Comparison, Measured

IDS = [(i * i + i // 7) % 60 + 1 for i in range(2600)]
QUESTIONS = [Question("Who?", ("me", "you"), 0), Question("What?", ("that", "this"), 1)]


def test_every_arm_is_measured_and_nothing_twice(
    tiny_pretrained: Callable[..., PretrainedLM], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    setting = experiment.Setting(
        IDS[:1024], IDS[2048:], QUESTIONS, Recipe(experts=8, active=1, tokens=512), 0.2, frontier=[0.05], repeats=2
    )
    monkeypatch.setattr(experiment, "gc", SimpleNamespace(collect=lambda: None))  # longer than a conversion so small
    fresh = partial(tiny_pretrained, layers=2)
    first = experiment.compare(fresh, setting, [0, 1], tmp_path, lambda _: None)
    assert tuple(first.arms) == ARMS and all(len(seeds) == 2 for seeds in first.arms.values())
    dense = first.arms[DENSE][0]
    assert dense.activated == first.parameters
    for arm in (OURS, UNIFORM, RANDOM, PRUNED, CMOE):
        one = first.arms[arm][0]
        assert one.activated < 0.87 * first.parameters
        assert one.tokens_W.tolist() == dense.tokens_W.tolist() and one.nats_W.tolist() != dense.nats_W.tolist()
    assert first.arms[RANDOM][0].nats_W.tolist() != first.arms[RANDOM][1].nats_W.tolist()
    assert {name: rows.shape for name, rows in first.seconds.items()} == dict.fromkeys((DENSE, OURS, PRUNED), (2, 2))
    assert all((rows > 0).all() for rows in first.seconds.values())
    assert set(first.frontier) == {OURS, PRUNED}
    for arm, points in first.frontier.items():
        assert first.arms[arm][0].activated < points[0.05].activated < dense.activated
        assert points[0.05].nats_W.tolist() != first.arms[arm][0].nats_W.tolist()

    def measures_again(*_: object) -> None:
        raise AssertionError

    monkeypatch.setattr(experiment, "_measure", measures_again)
    again = experiment.compare(fresh, setting, [0, 1], tmp_path, lambda _: None)
    assert again.arms[OURS][1].nats_W.tolist() == first.arms[OURS][1].nats_W.tolist()
    with pytest.raises(ModelError, match="another questions, target: take another folder"):
        experiment.compare(fresh, replace(setting, target=0.1, questions=QUESTIONS[:1]), [0], tmp_path, lambda _: None)
    assert again.frontier[OURS][0.05].nats_W.tolist() == first.frontier[OURS][0.05].nats_W.tolist()


def measured(nats: list[float], right: list[bool], activated: float = 80e6) -> Measured:
    """Windows of ten tokens."""
    return Measured(activated, np.array(nats), np.full(len(nats), 10.0), np.array(right), np.array(right))


def some_comparison() -> Comparison:
    arms = {arm: [measured([24.0, 26.0, 28.0], [True, False, False, False])] for arm in ARMS}
    arms[DENSE] = [measured([20.0, 22.0, 24.0], [True, True, False, False], activated=100e6)]
    arms[OURS] = [measured([23.0, 25.0, 27.0], [True, False, False, False])]
    arms[RANDOM] = [measured([30.0, 24.0, 30.0], [False, False, False, False])]
    seconds = {DENSE: np.array([[1.0, 0.1], [2.0, 0.1]]), OURS: np.array([[0.8, 0.1], [1.6, 0.1]])}
    # 24 nats for ten tokens, thrice: 2.4 nats a token, a perplexity of 11.02.
    return Comparison(arms, seconds, 100_000_000, {OURS: {0.1: measured([24.0, 24.0, 24.0], [], activated=90e6)}})


def test_figures_by_hand(tmp_path: Path) -> None:
    comparison = some_comparison()
    result = experiment.as_result(comparison, [0], "command")
    assert result.figure("quality", OURS, "saved, %").value == pytest.approx(20)
    assert result.figure("quality", OURS, "nats a token").value == pytest.approx(2.5)
    assert result.figure("quality", OURS, "perplexity").value == pytest.approx(np.exp(2.5))
    assert result.figure("quality", DENSE, "accuracy, normalized, %").value == pytest.approx(50)
    # 0.1 nats a token better on every window: no noise at all.
    gain = "gain, nats a token"
    assert result.figure("differences", f"{OURS} against {PRUNED}", gain).text() == "0.100 (0.100 to 0.100)"
    # .7, -.1 and .3: mean .3, deviation .4, t(.975, 2) = 4.30265: half width .99366.
    low = result.figure("differences", f"{OURS} against {RANDOM}", gain).low
    assert low == pytest.approx(0.3 - 0.99366, abs=1e-4)
    time = "CPU time of one thread"
    assert result.figure(time, OURS, "read 256 tokens: saved, %").value == pytest.approx(20)
    assert result.figure(time, OURS, "write one token, ms").value == pytest.approx(100)
    assert result.figure(FRONTIER, f"{OURS}: target 10%", "saved, %").value == pytest.approx(10)
    experiment.plot_frontier(comparison, tmp_path / "frontier.png")
    assert (tmp_path / "frontier.png").read_bytes().startswith(b"\x89PNG")
    for said in (
        "With 20.0 % fewer activated parameters",
        "Perplexity goes from 9.0 to 12.2",
        "With 10 % fewer activated parameters perplexity is 11.0",
        "over a random split is +0.300 nats (within the noise)",
        "over static pruning is +0.100 nats (beyond the noise)",
        "CPU time to read changes by -20 %, to write by +0 %",
    ):
        assert said in result.verdict
