import itertools
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mofme.core.gated_experts import GatedFeedForwardExperts
from mofme.core.moe import MoE, activated_parameters
from mofme.core.routers import LinearRouter
from mofme.core.routing import ScoreRouter
from mofme.language.pretrained import PretrainedLM, decoder_layers, dense_weights
from mofme.papers.ladimo.converted_layer import (
    Candidate,
    ConvertedLayer,
    FixedRouter,
    Policy,
    PolicyRouter,
    Recipe,
    RepresentativeRouter,
    Split,
    choose,
    profile,
    set_policies,
    uniform,
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


@pytest.mark.parametrize(("policy", "most"), [(Policy("top-k", 3), 3), (Policy("threshold", 0.3), 4)])
@pytest.mark.parametrize(
    ("router", "own"), [(LinearRouter(6, 4), 24), (RepresentativeRouter(6, 4), 48), (FixedRouter(4), 0)]
)
def test_a_policy_says_how_many_experts_are_activated(policy: Policy, most: int, router: ScoreRouter, own: int) -> None:
    # An expert of 5 neurons with 6 features has 3 * 5 * 6 = 90 parameters; 4 * 6 stand in for those that are left out.
    layer = MoE(PolicyRouter(router, policy), GatedFeedForwardExperts(6, 5, 4))
    assert activated_parameters(layer) == own + 24 + most * 90
    assert activated_parameters(layer, [1.5]) == own + 24 + 1.5 * 90


@pytest.mark.parametrize("split", ["activation", "importance"])
def test_cut_and_untrained_with_all_experts_it_is_the_dense_model(
    tiny_pretrained: Callable[..., PretrainedLM], split: Split
) -> None:
    lm = tiny_pretrained()
    ids = torch.arange(1, 31)[None]
    dense = lm.model(ids).logits
    for layer in decoder_layers(lm.model):
        weights = dense_weights(layer.mlp)
        experts = GatedFeedForwardExperts.from_dense(*weights, torch.randperm(48), 4)
        layer.mlp = ConvertedLayer.of(experts, Recipe(experts=4, active=2, split=split))
    set_policies(lm.model, [Policy("dense")] * 3)
    torch.testing.assert_close(lm.model(ids).logits, dense, rtol=1e-3, atol=1e-4)


def layer() -> ConvertedLayer:
    torch.manual_seed(0)
    return ConvertedLayer.empty(6, 16, Recipe(experts=4, active=2)).requires_grad_(False)


def test_errors_are_relative_to_the_stream_and_thresholds_activate_as_many_as_their_top_k() -> None:
    moe = layer()
    x, stream = torch.randn(500, 6), torch.randn(500, 6)
    y = moe.experts(x, torch.ones(500, 4))
    found = {(one.policy.kind, round(one.active)): one for one in profile(moe, x, y, stream)}
    assert found["dense", 4].error == pytest.approx(0, abs=1e-10)
    moe.router.policy = Policy("top-k", 2)
    expected = float((((moe(x) - y) ** 2).sum(-1) / ((stream + y) ** 2).sum(-1)).mean())
    assert found["top-k", 2].error == pytest.approx(expected, rel=1e-4)
    for k in (1, 2, 3):
        assert found["threshold", k].active == pytest.approx(k, abs=0.3) and found["top-k", k].active == k


def candidates(errors: list[float]) -> list[Candidate]:
    """Top-1, top-2, ... with these errors."""
    return [Candidate(Policy("top-k", k), k, error) for k, error in enumerate(errors, start=1)]


def test_the_layer_that_loses_least_gives_up_first() -> None:
    # Giving up an expert costs the first layer 5, then 1 more; the second 2, then 3 more.
    profiles = [candidates([6.0, 5.0, 0.0]), candidates([5.0, 2.0, 0.0])]
    # Hull of the first: from 3 experts at 0 to 1 expert at 6, a slope of 3 for each: the middle lies above it.
    expected = {6: [[3, 3]], 5: [[3, 2]], 4: [[1, 2], [3, 1]], 1: [[1, 1]]}
    for affordable, either in expected.items():
        assert [one.active for one in choose(profiles, affordable)] in either
    worse_and_dearer = Candidate(Policy("dense"), 3, 1.5)
    assert choose([[*candidates([2.0, 1.0]), worse_and_dearer]], 10)[0].policy == Policy("top-k", 2)


@given(
    errors=st.lists(st.lists(st.integers(0, 20), min_size=3, max_size=3), min_size=1, max_size=3),
    budget=st.integers(3, 9),
)
def test_with_convex_errors_no_choice_is_better(errors: list[list[int]], budget: int) -> None:
    # Falling errors whose falls grow smaller, as sums of sorted falls.
    profiles = []
    for falls in errors:
        small, middle, large = sorted(falls)
        profiles.append(candidates([float(small + middle + large), float(small + middle), float(small), 0.0]))
    budget = max(budget, len(profiles))
    chosen = choose(profiles, budget)
    assert sum(one.active for one in chosen) <= budget
    affordable = [one for one in itertools.product(*profiles) if sum(part.active for part in one) <= budget]
    best = min(sum(part.error for part in one) for one in affordable)
    assert sum(one.error for one in chosen) == pytest.approx(best)


def test_a_uniform_top_k_keeps_the_average() -> None:
    # 10 experts over 4 layers: 2.5 each.
    assert uniform(4, 10.0) == [Policy("top-k", k) for k in (2, 3, 2, 3)]
    assert uniform(3, 6.0) == [Policy("top-k", 2)] * 3
    assert sum(policy.value for policy in uniform(30, 197.4)) == 197
