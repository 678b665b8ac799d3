"""Experts cut out of a gated feed-forward, against the network they were cut out of and against a loop."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from mofme.core.gated_experts import GatedFeedForwardExperts

DIM, NEURONS = 6, 20


def dense_weights(seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    random = torch.Generator().manual_seed(seed)
    shapes = ((NEURONS, DIM), (NEURONS, DIM), (DIM, NEURONS))
    gate, up, down = (torch.randn(shape, generator=random) for shape in shapes)
    return gate, up, down


def dense(x_TD: Tensor, gate_ND: Tensor, up_ND: Tensor, down_DN: Tensor) -> Tensor:
    return (F.silu(x_TD @ gate_ND.T) * (x_TD @ up_ND.T)) @ down_DN.T


def cut(shared: int = 4, experts: int = 4, seed: int = 0) -> tuple[GatedFeedForwardExperts, Tensor]:
    order = torch.randperm(NEURONS, generator=torch.Generator().manual_seed(seed))
    return GatedFeedForwardExperts.from_dense(*dense_weights(), order, experts, shared), order


@pytest.mark.parametrize(("shared", "experts"), [(0, 1), (0, 5), (4, 4), (12, 2), (16, 1)])
@pytest.mark.parametrize("tokens", [1, 7])
def test_with_all_experts_it_is_the_dense_network(shared: int, experts: int, tokens: int) -> None:
    layer, _ = cut(shared, experts)
    x = torch.randn(tokens, DIM)
    torch.testing.assert_close(layer(x, torch.ones(tokens, experts)), dense(x, *dense_weights()))


@given(seed=st.integers(0, 100), tokens=st.integers(1, 6), shared=st.sampled_from([0, 4, 8]), binary=st.booleans())
def test_each_token_gets_its_own_experts(seed: int, tokens: int, shared: int, binary: bool) -> None:
    layer, order = cut(shared, 4, seed)
    random = torch.Generator().manual_seed(seed)
    x = torch.randn(tokens, DIM, generator=random)
    with torch.no_grad():
        layer.idle_ED.copy_(torch.randn(4, DIM, generator=random))
    weights = torch.rand(tokens, 4, generator=random) * (torch.rand(tokens, 4, generator=random) < 0.6)
    if binary:
        weights = (weights > 0).float()
    gate, up, down = dense_weights()
    expected = torch.zeros(tokens, DIM)
    for token in range(tokens):
        groups = [(order[:shared], 1.0)]
        hidden = (NEURONS - shared) // 4
        for expert in range(4):
            begin = shared + expert * hidden
            groups.append((order[begin : begin + hidden], float(weights[token, expert])))
            if weights[token, expert] == 0:
                expected[token] += layer.idle_ED[expert].detach()
        for neurons, weight in groups:
            expected[token] += weight * dense(x[token : token + 1], gate[neurons], up[neurons], down[:, neurons])[0]
    torch.testing.assert_close(layer(x, weights), expected, rtol=1e-4, atol=1e-4)


def test_an_idle_expert_learns_nothing_but_its_stand_in() -> None:
    layer, _ = cut(0, 5)
    weights = torch.tensor([[1.0, 0, 1, 0, 0], [0, 0, 1, 1, 0]])
    layer(torch.randn(2, DIM), weights).sum().backward()
    assert layer.gate_ND.grad is not None
    assert layer.idle_ED.grad is not None
    used = layer.gate_ND.grad.view(5, 4, DIM).abs().sum((1, 2)) > 0
    assert used.tolist() == [True, False, True, True, False]
    assert layer.idle_ED.grad[:, 0].tolist() == [1, 2, 0, 1, 2]  # tokens that left the expert out


def test_gradients_are_those_of_the_dense_network() -> None:
    layer, order = cut(4, 4)
    x = torch.randn(5, DIM)
    weights = [weight.requires_grad_() for weight in dense_weights()]
    (dense(x, *weights) ** 2).sum().backward()
    # Not quite 1, so that every token is sent to every expert one by one.
    (layer(x, torch.full((5, 4), 1 - 1e-6)) ** 2).sum().backward()
    assert layer.up_ND.grad is not None
    torch.testing.assert_close(layer.up_ND.grad, weights[1].grad[order], rtol=1e-3, atol=1e-3)  # type: ignore[index]
    torch.testing.assert_close(layer.down_ND.grad, weights[2].grad.T[order], rtol=1e-3, atol=1e-3)  # type: ignore[union-attr]


def test_neurons_must_divide_evenly() -> None:
    with pytest.raises(ValueError, match="20 neurons cannot be divided evenly among 3 experts"):
        cut(0, 3)
