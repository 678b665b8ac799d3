"""Routers that score, then choose: each against a loop over numbers, by hand, and what holds for all of them."""

import math
from collections.abc import Sequence

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from mofme.core.experts import FeatureModulatedExperts
from mofme.core.losses import switch_loss
from mofme.core.moe import MoE, observe_routing
from mofme.core.routers import ROUTERS, AttentionRouter, LinearRouter, MixtureOfRouters, MLPRouter, RouterKind
from mofme.core.routing import ScoreRouter, keep_top_k

KINDS: tuple[RouterKind, ...] = ("linear", "mlp", "attention", "mixture")
SIZES = {
    "tokens": st.integers(0, 40),
    "dim": st.integers(1, 9),
    "experts": st.integers(1, 20),
    "seed": st.integers(0, 99),
    "data": st.data(),
}


def random_router(kind: RouterKind, dim: int, experts: int, top_k: int, seed: int = 0) -> ScoreRouter:
    """In double precision, with decisions that are far from even."""
    torch.manual_seed(seed)
    router = ROUTERS[kind](dim, experts, top_k).double()
    assert isinstance(router, ScoreRouter)
    for parameter in router.parameters():
        torch.nn.init.normal_(parameter)
    return router


def product(weight: Tensor, x: Sequence[float]) -> list[float]:
    return [sum(w * value for w, value in zip(row, x, strict=True)) for row in weight.tolist()]


def softmax(scores: Sequence[float]) -> list[float]:
    odds = [math.exp(score) for score in scores]
    return [one / sum(odds) for one in odds]


def mlp_scores(router: MLPRouter, x: Sequence[float]) -> list[float]:
    return product(router.score.weight, [h / (1 + math.exp(-h)) for h in product(router.expand.weight, x)])


def attention_scores(router: AttentionRouter, x: Sequence[float]) -> list[float]:
    experts = router.num_experts
    projected = product(router.query_key_value.weight, x)
    query, key, value = (projected[part * experts : (part + 1) * experts] for part in range(3))
    return [sum(a * v for a, v in zip(softmax([q * k for k in key]), value, strict=True)) for q in query]


def mixture_scores(router: MixtureOfRouters, x: Sequence[float]) -> list[float]:
    shares = softmax(product(router.main.score.weight, x))
    votes = [softmax(product(weight, x)) for weight in router.members.parameters()]
    return [
        math.log(sum(g * vote[i] for g, vote in zip(shares, votes, strict=True))) for i in range(router.num_experts)
    ]


SCORES = {
    "linear": lambda router, x: product(router.score.weight, x),
    "mlp": mlp_scores,
    "attention": attention_scores,
    "mixture": mixture_scores,
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("top_k", [1, 2, 3, 5])
def test_it_equals_a_loop_over_numbers(kind: RouterKind, top_k: int) -> None:
    router = random_router(kind, 4, 5, top_k)
    x_TD = torch.randn(7, 4, dtype=torch.float64)
    decision = router(x_TD)
    for x, logits, weights in zip(x_TD.tolist(), decision.logits_TE, decision.weights_TE, strict=True):
        scores = SCORES[kind](router, x)  # type: ignore[operator]
        p = softmax(scores)
        chosen = sorted(range(5), key=lambda i: -p[i])[:top_k]
        total = sum(p[i] for i in chosen) if top_k > 1 else 1.0
        assert logits.tolist() == pytest.approx(scores, abs=1e-12)
        assert weights.tolist() == pytest.approx([p[i] / total if i in chosen else 0.0 for i in range(5)], abs=1e-12)
    assert decision.uncertainty_T is None


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("top_k", [1, 2, 4])
def test_gradients_are_those_of_finite_differences(kind: RouterKind, top_k: int) -> None:
    router = random_router(kind, 3, 4, top_k)
    names = [name for name, _ in router.named_parameters()]
    weights = [parameter.detach().clone().requires_grad_() for parameter in router.parameters()]
    x_TD = torch.randn(2, 3, dtype=torch.float64, requires_grad=True)

    def decide(x: Tensor, *weights: Tensor) -> tuple[Tensor, Tensor]:
        decision = torch.func.functional_call(router, dict(zip(names, weights, strict=True)), x)
        return decision.weights_TE, decision.logits_TE

    assert torch.autograd.gradcheck(decide, (x_TD, *weights))


@pytest.mark.parametrize("kind", KINDS)
def test_a_token_of_zeros_and_huge_scores_stay_finite(kind: RouterKind) -> None:
    router = random_router(kind, 3, 4, top_k=2).float()
    x_TD = torch.tensor([[0.0, 0, 0], [1e4, -1e4, 1e4]], requires_grad=True)
    decision = router(x_TD)
    (decision.weights_TE.square().sum() + switch_loss(decision)).backward()
    assert decision.weights_TE.isfinite().all() and decision.logits_TE.isfinite().all()
    for learnt in (x_TD, *router.parameters()):
        assert learnt.grad is not None and learnt.grad.isfinite().all()


@pytest.mark.parametrize("kind", KINDS)
def test_it_decides_in_single_precision_under_autocast(kind: RouterKind) -> None:
    torch.manual_seed(0)
    router, x_TD = ROUTERS[kind](8, 4, 2), torch.randn(5, 8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        decision = router(x_TD)
    assert decision.logits_TE.dtype == decision.weights_TE.dtype == torch.float32
    torch.testing.assert_close(decision.weights_TE, router(x_TD).weights_TE)


@pytest.mark.parametrize("kind", KINDS)
def test_in_a_mixture_of_experts_every_part_learns_and_only_the_whole_is_observed(kind: RouterKind) -> None:
    torch.manual_seed(0)
    layer = MoE(ROUTERS[kind](4, 6, 2), FeatureModulatedExperts(4, 8, 6))
    with observe_routing(layer) as observed:
        y = layer(torch.randn(2, 3, 4))
    y.square().sum().backward()
    assert y.shape == (2, 3, 4)
    assert len(observed) == 1
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in layer.router.parameters())


@pytest.mark.parametrize(("dim", "experts"), [(96, 8), (128, 16), (64, 32)])
def test_mlp_router_has_as_many_parameters_as_the_attention_router(dim: int, experts: int) -> None:
    mine, theirs = (
        sum(p.numel() for p in router.parameters())
        for router in (MLPRouter(dim, experts), AttentionRouter(dim, experts))
    )
    assert abs(mine - theirs) <= (dim + experts) / 2  # half a hidden feature


@given(**SIZES)
def test_one_router_is_its_only_member_to_the_last_bit(
    tokens: int, dim: int, experts: int, seed: int, data: st.DataObject
) -> None:
    top_k = data.draw(st.integers(1, experts))
    torch.manual_seed(seed)
    mixture = MixtureOfRouters(dim, experts, top_k, num_routers=1)
    member = LinearRouter(dim, experts, top_k)
    member.load_state_dict(mixture.members[0].state_dict())
    x_TD = torch.randn(tokens, dim)
    ours, theirs = mixture(x_TD), member(x_TD)
    assert torch.equal(ours.weights_TE, theirs.weights_TE)
    assert torch.equal(ours.logits_TE, theirs.logits_TE)


def test_the_largest_scores_stay_and_the_rest_become_zero() -> None:
    scores = torch.tensor([[0.1, 0.5, 0.4], [-3.0, -1.0, -2.0]])
    # Signed scores are ranked by value, not by size: -1 and -2 are the two largest of the second row.
    assert keep_top_k(scores, 2).tolist() == [[0, 0.5, pytest.approx(0.4)], [0, -1, -2]]
    assert torch.equal(keep_top_k(scores, 3), scores)
    for k in (0, 4):
        with pytest.raises(ValueError, match=f"k = {k}"):
            keep_top_k(scores, k)


@given(
    tokens=st.integers(0, 9),
    experts=st.integers(1, 9),
    values=st.integers(1, 6),
    experts_first=st.booleans(),
    dtype=st.sampled_from([torch.float64, torch.float32, torch.bfloat16]),
    seed=st.integers(0, 99),
    data=st.data(),
)
def test_it_chooses_as_topk_does_also_among_equal_scores(
    tokens: int, experts: int, values: int, experts_first: bool, dtype: torch.dtype, seed: int, data: st.DataObject
) -> None:
    # Few different values make many scores equal; both orders in memory, and k on both sides of the limit for passes.
    k = data.draw(st.integers(1, experts))
    generator = torch.Generator().manual_seed(seed)
    scores = (torch.randint(1, values + 1, (tokens, experts), generator=generator) - 2.5).to(dtype)
    if experts_first:
        scores = scores.T.contiguous().T
    top, index = scores.topk(k, dim=-1)
    assert torch.equal(keep_top_k(scores, k), torch.zeros_like(scores).scatter(-1, index, top))


@pytest.mark.parametrize("scale", [1e-38, 1e38])
def test_the_smallest_and_the_largest_numbers_are_told_apart(scale: float) -> None:
    scores = scale * torch.tensor([[1.0, -2.0, 3.0, -3.0, 2.0], [-3.0, -1.0, -2.0, -1.5, -2.5]])
    expected = scale * torch.tensor([[1.0, 0, 3.0, 0, 2.0], [0, -1.0, -2.0, -1.5, 0]])
    assert torch.equal(keep_top_k(scores, 3), expected)


def test_scores_that_are_no_numbers_stay_visible() -> None:
    scores = torch.tensor([[1.0, torch.nan, 3.0], [1.0, 2.0, 3.0]])
    kept = keep_top_k(scores, 2)
    assert kept[0].isnan().any()
    assert kept[1].tolist() == [0, 2, 3]
