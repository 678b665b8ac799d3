from collections.abc import Callable

import pytest
import torch

from mofme.core.gated_experts import GatedFeedForwardExperts
from mofme.core.moe import MoE, activated_parameters
from mofme.core.routers import LinearRouter
from mofme.core.routing import ScoreRouter
from mofme.language.pretrained import PretrainedLM, decoder_layers, dense_weights
from mofme.papers.ladimo.converted_layer import (
    ConvertedLayer,
    FixedRouter,
    Policy,
    PolicyRouter,
    Recipe,
    RepresentativeRouter,
    Split,
    converted_layers,
)

PROBABILITIES = torch.tensor([[0.5, 0.3, 0.15, 0.05], [0.1, 0.2, 0.3, 0.4]])


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        (Policy("dense"), [[1, 1, 1, 1], [1, 1, 1, 1]]),
        (Policy("top-k", 1), [[1, 0, 0, 0], [0, 0, 0, 1]]),
        (Policy("top-k", 3), [[1, 1, 1, 0], [0, 1, 1, 1]]),
        (Policy("threshold", 0.3), [[1, 1, 0, 0], [0, 0, 1, 1]]),
        (Policy("threshold", 0.9), [[1, 0, 0, 0], [0, 0, 0, 1]]),  # nothing is heavy enough: the best alone
        (Policy("threshold", 0.0), [[1, 1, 1, 1], [1, 1, 1, 1]]),
    ],
)
def test_what_each_policy_chooses(policy: Policy, expected: list[list[int]]) -> None:
    assert policy.choose(PROBABILITIES).int().tolist() == expected


def test_chosen_experts_take_part_whole() -> None:
    inner = LinearRouter(3, 4, top_k=4)
    x = torch.randn(5, 3)
    decision = PolicyRouter(inner, Policy("top-k", 2))(x)
    logits = x @ inner.score.weight.T
    torch.testing.assert_close(decision.logits_TE, logits)
    assert (decision.weights_TE.sum(-1) == 2).all()
    chosen = logits.gather(-1, decision.weights_TE.topk(2).indices).min(-1).values
    left = logits.masked_fill(decision.chosen_TE, -torch.inf).max(-1).values
    assert (chosen > left).all()


def test_a_fixed_router_leaves_out_the_last() -> None:
    decision = PolicyRouter(FixedRouter(4), Policy("top-k", 3))(torch.randn(2, 3))
    assert decision.weights_TE.tolist() == [[1, 1, 1, 0]] * 2


def test_a_representative_scores_as_its_neuron_is_active() -> None:
    router = RepresentativeRouter(2, 2)
    router.gate_ED.data = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
    router.up_ED.data = torch.tensor([[3.0, 0.0], [0.0, -1.0]])
    # silu(1) = 1 / (1 + e^-1) = .731059, times 3; silu(2) = 2 / (1 + e^-2) = 1.761594, times |-1|.
    logits = router.logits(torch.tensor([[1.0, 1.0]]))
    torch.testing.assert_close(logits, torch.tensor([[3 * 0.731059, 1.761594]]), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("policy", "most"), [(Policy("top-k", 3), 3), (Policy("threshold", 0.3), 4), (Policy("dense"), 4)]
)
@pytest.mark.parametrize(
    ("router", "own"), [(LinearRouter(6, 4), 24), (RepresentativeRouter(6, 4), 48), (FixedRouter(4), 0)]
)
def test_a_policy_says_how_many_experts_are_activated(policy: Policy, most: int, router: ScoreRouter, own: int) -> None:
    # An expert of 5 neurons with 6 features has 3 * 5 * 6 = 90 parameters; 4 * 6 stand in for those that are left out.
    layer = MoE(PolicyRouter(router, policy), GatedFeedForwardExperts(6, 5, 4))
    assert activated_parameters(layer) == own + 24 + most * 90
    assert activated_parameters(layer, [1.5]) == own + 24 + 1.5 * 90


@pytest.mark.parametrize("split", ["activation", "co-activation", "random", "importance"])
def test_cut_and_untrained_with_all_experts_it_is_the_dense_model(
    tiny_pretrained: Callable[..., PretrainedLM], split: Split
) -> None:
    lm = tiny_pretrained()
    ids = torch.arange(1, 31)[None]
    dense = lm.model(ids).logits
    for layer in decoder_layers(lm.model):
        weights = dense_weights(layer.mlp)
        layer.mlp = ConvertedLayer.cut(weights, torch.randperm(48), Recipe(experts=4, active=2, split=split))
    for moe in converted_layers(lm.model):
        moe.router.policy = Policy("dense")
    torch.testing.assert_close(lm.model(ids).logits, dense, rtol=1e-3, atol=1e-4)
