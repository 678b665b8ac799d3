import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from mofme.core.experts.feature_modulated import FeatureModulatedExperts
from mofme.core.moe import MoE
from mofme.core.routers.attention import AttentionRouter


def router_of(dim: int, experts: int, top_k: int, seed: int = 0) -> AttentionRouter:
    torch.manual_seed(seed)
    router = AttentionRouter(dim, experts, top_k).double()
    torch.nn.init.normal_(router.query_key_value.weight)  # attention far from uniform
    return router


def by_loops(x: list[float], weight: list[list[float]], experts: int, top_k: int) -> tuple[list[float], list[float]]:
    """P and the weights of one token, number by number, as the paper writes them."""
    projected = [sum(w * value for w, value in zip(row, x, strict=True)) for row in weight]
    query, key, value = (projected[part * experts : (part + 1) * experts] for part in range(3))
    scores = []
    for i in range(experts):
        odds = [math.exp(query[i] * key[j]) for j in range(experts)]
        scores.append(sum(odds[j] / sum(odds) * value[j] for j in range(experts)))
    chosen = sorted(range(experts), key=lambda i: -scores[i])[:top_k]
    total = sum(math.exp(scores[i]) for i in (chosen if top_k > 1 else range(experts)))
    return scores, [math.exp(scores[i]) / total if i in chosen else 0.0 for i in range(experts)]


@pytest.mark.parametrize("top_k", [1, 2, 3, 5])
def test_it_equals_a_loop_over_numbers(top_k: int) -> None:
    router = router_of(4, 5, top_k)
    x_TD = torch.randn(7, 4, dtype=torch.float64)
    decision = router(x_TD)
    weight = router.query_key_value.weight.tolist()
    expected = [by_loops(x, weight, 5, top_k) for x in x_TD.tolist()]
    torch.testing.assert_close(decision.logits_TE, torch.tensor([p for p, _ in expected], dtype=torch.float64))
    torch.testing.assert_close(decision.weights_TE, torch.tensor([w for _, w in expected], dtype=torch.float64))
    assert decision.uncertainty_T is None


def test_two_experts_by_hand() -> None:
    # x = 1, q = (0, ln 3), k = (1, 0), v = (4, 8). Expert 1 attends to both alike: P_1 = 6. Expert 2 with e^(ln 3) = 3
    # to 1: P_2 = 3/4 * 4 + 1/4 * 8 = 5. The gates are e / (1 + e) and 1 / (1 + e).
    router = AttentionRouter(1, 2, top_k=2).double()
    router.query_key_value.weight.data = torch.tensor([[0, math.log(3), 1, 0, 4, 8]], dtype=torch.float64).T
    decision = router(torch.ones(1, 1, dtype=torch.float64))
    torch.testing.assert_close(decision.logits_TE, torch.tensor([[6, 5]], dtype=torch.float64))
    gates = [math.e / (1 + math.e), 1 / (1 + math.e)]
    torch.testing.assert_close(decision.weights_TE, torch.tensor([gates], dtype=torch.float64))


def test_keys_make_experts_depend_on_each_other() -> None:
    router = router_of(3, 4, top_k=4)
    x_TD = torch.randn(2, 3, dtype=torch.float64)
    before = router(x_TD).logits_TE
    router.query_key_value.weight.data[4] += 1  # the key of the first expert
    assert (router(x_TD).logits_TE != before).all()


@given(
    tokens=st.integers(0, 6), dim=st.integers(1, 6), experts=st.integers(1, 6), seed=st.integers(0, 99), data=st.data()
)
def test_weights_are_a_distribution_over_k_experts(
    tokens: int, dim: int, experts: int, seed: int, data: st.DataObject
) -> None:
    top_k = data.draw(st.integers(1, experts))
    torch.manual_seed(seed)
    decision = AttentionRouter(dim, experts, top_k)(torch.randn(tokens, dim))
    assert decision.weights_TE.shape == decision.logits_TE.shape == (tokens, experts)
    assert decision.chosen_TE.sum(dim=-1).tolist() == [top_k] * tokens
    assert (decision.weights_TE >= 0).all()
    if top_k > 1:
        torch.testing.assert_close(decision.weights_TE.sum(dim=-1), torch.ones(tokens))


@given(order=st.permutations(range(5)), top_k=st.integers(1, 5))
def test_renamed_experts_get_the_same_weights(order: list[int], top_k: int) -> None:
    router = router_of(4, 5, top_k)
    x_TD = torch.randn(3, 4, dtype=torch.float64)
    before = router(x_TD)
    parts = router.query_key_value.weight.data.chunk(3)
    router.query_key_value.weight.data = torch.cat([part[order] for part in parts])
    after = router(x_TD)
    torch.testing.assert_close(after.weights_TE, before.weights_TE[:, order])
    torch.testing.assert_close(after.logits_TE, before.logits_TE[:, order])


def test_tokens_do_not_see_each_other() -> None:
    router = router_of(4, 5, top_k=2)
    x_TD = torch.randn(6, 4, dtype=torch.float64)
    torch.testing.assert_close(router(x_TD).weights_TE[2:3], router(x_TD[2:3]).weights_TE)


@pytest.mark.parametrize("top_k", [1, 2, 4])
def test_gradients_are_those_of_finite_differences(top_k: int) -> None:
    router = router_of(3, 4, top_k)
    x_TD = torch.randn(2, 3, dtype=torch.float64, requires_grad=True)
    weight = router.query_key_value.weight.detach().clone().requires_grad_()

    def decide(x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        decision = torch.func.functional_call(router, {"query_key_value.weight": weight}, x)
        return decision.weights_TE, decision.logits_TE

    assert torch.autograd.gradcheck(decide, (x_TD, weight))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_it_decides_in_single_precision(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    router, x_TD = AttentionRouter(8, 4).to(dtype), torch.randn(5, 8, dtype=dtype)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        decision = router(x_TD)
    assert decision.logits_TE.dtype == decision.weights_TE.dtype == torch.float32
    torch.testing.assert_close(decision.weights_TE, router.float()(x_TD.float()).weights_TE)


def test_a_token_of_zeros_and_huge_scores_stay_finite() -> None:
    router = router_of(3, 4, top_k=2).float()
    x_TD = torch.tensor([[0.0, 0, 0], [1e4, -1e4, 1e4]], requires_grad=True)
    decision = router(x_TD)
    decision.weights_TE.square().sum().backward()
    assert decision.weights_TE.isfinite().all()
    assert x_TD.grad is not None and x_TD.grad.isfinite().all()


def test_it_stands_in_a_mixture_of_experts_and_learns() -> None:
    torch.manual_seed(0)
    layer = MoE(AttentionRouter(4, 6, top_k=2), FeatureModulatedExperts(4, 8, 6))
    x = torch.randn(2, 3, 4)
    before = layer(x)
    before.square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in layer.router.parameters())
    assert before.shape == (2, 3, 4)
