from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from mofme.core.rerouting import descend, frozen, rerouted, routing_of
from mofme.language.scoring import choice_likelihoods
from mofme.language.text import Question
from mofme.papers.r2t2.text_experiment import Tail, continuous_gates

if TYPE_CHECKING:
    from mofme.language.pretrained import PretrainedLM

QUESTION = Question("Question: What is it?\nAnswer:", ("a stone", "ice", "a very old tree"), 1)


@pytest.fixture
def lm(tiny_pretrained: Callable[..., PretrainedLM]) -> PretrainedLM:
    """Converted by hand: 4 experts of 12 neurons, of which the 2 best take part."""
    from mofme.papers.ladimo.conversion import set_layers
    from mofme.papers.ladimo.converted_layer import Recipe

    lm = tiny_pretrained()
    torch.manual_seed(1)
    set_layers(lm.model, Recipe(experts=4, active=2), [{"kind": "top-k", "value": 2}] * 3)
    for moe in lm.model.model.layers:
        torch.nn.init.normal_(moe.mlp.experts.idle_ED, std=0.1)
    lm.model.requires_grad_(False)
    return lm


def test_one_pass_scores_as_a_pass_for_every_choice(lm: PretrainedLM) -> None:
    lengths = np.array([7, 3, 15])
    expected = choice_likelihoods(lm, QUESTION) / lengths * lengths.mean()
    for layers in (1, 3):
        tail = Tail(lm, layers)
        scores = tail(tail.read(QUESTION)).numpy()
        np.testing.assert_allclose(scores, expected, rtol=1e-4)


def test_gates_of_zero_and_one_stay_as_they_are_and_a_small_shift_changes_little(lm: PretrainedLM) -> None:
    """Without the stand-ins' shares, opening an idle expert by nothing would take its stand-in away at once."""
    tail = Tail(lm, 2)
    row = tail.read(QUESTION)
    plain, own_R = tail(row), tail.routing(row)
    # Two of four experts with weight 1 for every token, in the last layers alone.
    torch.testing.assert_close(own_R.unflatten(0, (2, 4)).sum(1), torch.full((2,), 2.0))
    with rerouted(tail, own_R + 1e-6):
        assert (tail(row) - plain).abs().max() > 1e-2
    with continuous_gates(lm.model):
        torch.testing.assert_close(tail(row), plain)
        with rerouted(tail, own_R + 1e-6):
            torch.testing.assert_close(tail(row), plain, atol=1e-3, rtol=1e-3)


def test_the_gradient_is_that_of_differences(lm: PretrainedLM) -> None:
    lm.model.double()
    with continuous_gates(lm.model), torch.no_grad():
        tail = Tail(lm, 2)
        row = tail.read(QUESTION)
        own_R = tail.routing(row).double() + 0.01
        with torch.enable_grad():
            leaf_R = own_R.clone().requires_grad_()
            tail.loss(row, leaf_R).backward()
        assert leaf_R.grad is not None
        for index in (0, 5):
            step_R = torch.zeros(8, dtype=torch.float64)
            step_R[index] = 1e-4
            slope = (tail.loss(row, own_R + step_R) - tail.loss(row, own_R - step_R)) / 2e-4
            assert leaf_R.grad[index].item() == pytest.approx(slope.item(), rel=1e-2, abs=1e-4)


def test_the_oracle_makes_the_right_choice_likelier_and_leaves_nothing_changed(lm: PretrainedLM) -> None:
    tail = Tail(lm, 2)
    row = tail.read(QUESTION)
    before = {name: value.clone() for name, value in lm.model.state_dict().items()}
    chance = tail.answer(row)[1]
    with continuous_gates(lm.model), frozen(tail):
        own_R = tail.routing(row)
        moved_R = descend(own_R, lambda routing_R: tail.loss(row, routing_R), rates=(0.1, 1e-4))
        assert tail.answer(row, moved_R - own_R)[1] > chance
    assert tail.answer(row)[1] == chance
    assert all(torch.equal(value, before[name]) for name, value in lm.model.state_dict().items())
    assert not any(module._forward_hooks for module in lm.model.modules())
    torch.testing.assert_close(routing_of(tail, lambda: tail(row)), own_R)
