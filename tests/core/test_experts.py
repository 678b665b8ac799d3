import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from mofme.core.experts import (
    FeatureModulatedExperts,
    FeedForward,
    FeedForwardExperts,
    GeneratedModulationExperts,
    LinearExperts,
    LowRankExperts,
)
from mofme.core.gated_experts import GatedFeedForwardExperts
from mofme.core.routing import Experts, keep_top_k

Case = tuple[tuple[int, int, int], Tensor, Tensor]


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Features, hidden features and experts of a layer; tokens, and signed weights of which k stay, in float64."""
    dim, hidden, experts = (draw(st.integers(1, most)) for most in (5, 6, 6))
    tokens, k = draw(st.integers(0, 7)), draw(st.integers(1, experts))
    torch.manual_seed(draw(st.integers(0, 99)))
    weights = torch.randn(tokens, experts, dtype=torch.float64)
    return (dim, hidden, experts), torch.randn(tokens, dim, dtype=torch.float64), keep_top_k(weights, k)


def randomize(module: nn.Module) -> None:
    module.double()
    for parameter in module.parameters():
        parameter.data.normal_()


def one_by_one(layer: FeedForwardExperts, x_TD: Tensor, weights_TE: Tensor) -> Tensor:
    """Every expert on every token, one at a time."""
    rows = []
    for x, weights in zip(x_TD, weights_TE, strict=True):
        row = torch.zeros_like(x)
        for expert, weight in enumerate(weights):
            hidden = F.gelu(layer.expand_EHD[expert] @ x + layer.expand_bias_EH[expert])
            row = row + weight * (layer.contract_EDH[expert] @ hidden + layer.contract_bias_ED[expert])
        rows.append(row)
    return torch.stack(rows) if rows else torch.zeros_like(x_TD)


@given(cases())
def test_sparse_dispatch_equals_a_loop_over_tokens_and_experts(case: Case) -> None:
    sizes, x, weights = case
    layer = FeedForwardExperts(*sizes)
    randomize(layer)
    torch.testing.assert_close(layer(x, weights), one_by_one(layer, x, weights))


def test_sparse_dispatch_has_the_gradients_of_the_loop() -> None:
    layer = FeedForwardExperts(4, 5, 3)
    randomize(layer)
    x = torch.randn(6, 4, dtype=torch.float64, requires_grad=True)
    weights = keep_top_k(torch.randn(6, 3, dtype=torch.float64), 2).requires_grad_()
    leaves = [x, *layer.parameters()]
    sparse = torch.autograd.grad(layer(x, weights).square().sum(), [*leaves, weights])
    loop = torch.autograd.grad(one_by_one(layer, x, weights).square().sum(), [*leaves, weights])
    for ours, expected in zip(sparse[:-1], loop[:-1], strict=True):
        torch.testing.assert_close(ours, expected)
    # A weight of 0 is a decision not to ask that expert, so nothing flows back to it.
    torch.testing.assert_close(sparse[-1], loop[-1] * (weights != 0))


def test_an_expert_sees_only_the_tokens_that_chose_it() -> None:
    # A NaN expert would spoil every token it touches.
    layer = FeedForwardExperts(4, 5, 3)
    layer.expand_EHD.data[1] = torch.nan
    weights = torch.tensor([[0.5, 0, 0.5], [0, 1, 0], [0, 0, 1]])
    y = layer(torch.randn(3, 4), weights)
    assert y.isfinite().all(dim=-1).tolist() == [True, False, True]


def modulations(layer: Experts, x_TD: Tensor) -> list[Tensor]:
    """What each expert makes of the tokens before the shared network."""
    if isinstance(layer, FeatureModulatedExperts):
        return [gamma * x_TD + beta for gamma, beta in zip(layer.gamma_ED, layer.beta_ED, strict=True)]
    assert isinstance(layer, GeneratedModulationExperts)
    return [
        (x_TD @ gamma.weight.T + gamma.bias) * x_TD + x_TD @ beta.weight.T + beta.bias
        for gamma, beta in zip(layer.gamma, layer.beta, strict=True)
    ]


@pytest.mark.parametrize("kind", [FeatureModulatedExperts, GeneratedModulationExperts])
@given(case=cases())
def test_modulation_is_the_sum_over_experts_then_one_feed_forward(
    kind: type[FeatureModulatedExperts | GeneratedModulationExperts], case: Case
) -> None:
    sizes, x, weights = case
    layer = kind(*sizes)
    randomize(layer)
    summed = torch.zeros_like(x)
    for weights_T, modulated in zip(weights.T, modulations(layer, x), strict=True):
        summed += weights_T[:, None] * modulated
    torch.testing.assert_close(layer(x, weights), layer.feed_forward(summed))


@pytest.mark.parametrize("tokens", [1, 3, 4, 9])
def test_many_tokens_are_worked_on_in_parts(tokens: int, monkeypatch: pytest.MonkeyPatch) -> None:
    # Room for 16 hidden values is room for 3 tokens of 5.
    torch.manual_seed(0)
    layer, x = FeedForward(4, 5).double(), torch.randn(tokens, 4, dtype=torch.float64)
    at_once = layer(x)
    monkeypatch.setattr("mofme.core.experts._HIDDEN_VALUES", 16)
    monkeypatch.setattr("mofme.core.experts._FEWEST_TOKENS", 1)
    in_parts = layer(x)
    torch.testing.assert_close(in_parts, at_once)
    for ours, expected in zip(
        torch.autograd.grad(in_parts.square().sum(), list(layer.parameters())),
        torch.autograd.grad(at_once.square().sum(), list(layer.parameters())),
        strict=True,
    ):
        torch.testing.assert_close(ours, expected)


def test_with_linear_experts_every_token_gets_the_weighed_sum_of_its_experts_maps() -> None:
    experts = LinearExperts(dim=3, out=2, num_experts=4).double()
    x_TD = torch.randn(5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    weights_TE = torch.tensor([[0.0, 0.5, 0, 0]] * 4 + [[0.25, 0, 0, -1]], dtype=torch.float64)
    for token in range(5):
        expected = torch.zeros(2, dtype=torch.float64)
        for expert in range(4):
            expected += weights_TE[token, expert] * (experts.weight_EFD[expert] @ x_TD[token])
        torch.testing.assert_close(experts(x_TD, weights_TE)[token], expected)


@given(case=cases(), alpha=st.floats(0.5, 16))
def test_low_rank_experts_equal_a_loop_over_tokens_and_experts(case: Case, alpha: float) -> None:
    (dim, rank, experts), x_TD, weights_TE = case
    layer = LowRankExperts(dim, 3, experts, rank, alpha, dropout=0)
    randomize(layer)
    expected = torch.zeros(len(x_TD), 3, dtype=torch.float64)
    for y_F, x_D, weights_E in zip(expected, x_TD, weights_TE, strict=True):
        for weight, down_RD, up_RF in zip(weights_E, layer.down_ERD, layer.up_ERF, strict=True):
            y_F += weight * (up_RF.T @ (down_RD @ x_D)).detach() * alpha / rank
    torch.testing.assert_close(layer(x_TD, weights_TE), expected)


def test_at_first_low_rank_experts_add_nothing_and_only_the_way_up_learns() -> None:
    torch.manual_seed(0)
    layer = LowRankExperts(6, 4, 3)
    y_TF = layer(torch.randn(5, 6), torch.rand(5, 3))
    assert not y_TF.any()
    (y_TF - 1).square().sum().backward()
    assert layer.up_ERF.grad is not None and layer.up_ERF.grad.any()
    assert layer.down_ERD.grad is not None and not layer.down_ERD.grad.any()


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
