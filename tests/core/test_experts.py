import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from mofme.core.experts.feature_modulated import FeatureModulatedExperts, GeneratedModulationExperts
from mofme.core.experts.feed_forward import FeedForward, FeedForwardExperts
from mofme.core.routing import Experts, keep_top_k

SIZES = {
    "tokens": st.integers(0, 7),
    "dim": st.integers(1, 5),
    "hidden": st.integers(1, 6),
    "experts": st.integers(1, 6),
    "seed": st.integers(0, 99),
    "data": st.data(),
}


def inputs(tokens: int, dim: int, experts: int, seed: int, data: st.DataObject) -> tuple[Tensor, Tensor]:
    """Tokens, and signed weights of which k stay, in float64."""
    generator = torch.Generator().manual_seed(seed)
    weights = torch.randn(tokens, experts, generator=generator, dtype=torch.float64)
    k = data.draw(st.integers(1, experts))
    return torch.randn(tokens, dim, generator=generator, dtype=torch.float64), keep_top_k(weights, k)


def randomize(module: nn.Module, seed: int) -> nn.Module:
    generator = torch.Generator().manual_seed(seed)
    module.double()
    for parameter in module.parameters():
        parameter.data.normal_(generator=generator)
    return module


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


@given(**SIZES)
def test_sparse_dispatch_equals_a_loop_over_tokens_and_experts(
    tokens: int, dim: int, hidden: int, experts: int, seed: int, data: st.DataObject
) -> None:
    layer = randomize(FeedForwardExperts(dim, hidden, experts), seed)
    assert isinstance(layer, FeedForwardExperts)
    x, weights = inputs(tokens, dim, experts, seed, data)
    torch.testing.assert_close(layer(x, weights), one_by_one(layer, x, weights))


def test_sparse_dispatch_has_the_gradients_of_the_loop() -> None:
    layer = randomize(FeedForwardExperts(4, 5, 3), 0)
    assert isinstance(layer, FeedForwardExperts)
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


def test_one_expert_of_weight_1_is_a_plain_feed_forward() -> None:
    torch.manual_seed(0)
    layer, plain = FeedForwardExperts(4, 5, 1), FeedForward(4, 5)
    plain.expand.weight.data, plain.expand.bias.data = layer.expand_EHD.data[0], layer.expand_bias_EH.data[0]
    plain.contract.weight.data, plain.contract.bias.data = layer.contract_EDH.data[0], layer.contract_bias_ED.data[0]
    x = torch.randn(6, 4)
    torch.testing.assert_close(layer(x, torch.ones(6, 1)), plain(x))


@given(**SIZES)
def test_feature_modulation_is_the_sum_over_experts_then_one_feed_forward(
    tokens: int, dim: int, hidden: int, experts: int, seed: int, data: st.DataObject
) -> None:
    layer = randomize(FeatureModulatedExperts(dim, hidden, experts), seed)
    assert isinstance(layer, FeatureModulatedExperts)
    x, weights = inputs(tokens, dim, experts, seed, data)
    summed = torch.zeros_like(x)
    for expert in range(experts):
        summed += weights[:, expert, None] * (layer.gamma_ED[expert] * x + layer.beta_ED[expert])
    torch.testing.assert_close(layer(x, weights), layer.feed_forward(summed))


@given(**SIZES)
def test_generated_modulation_is_the_sum_over_experts_then_one_feed_forward(
    tokens: int, dim: int, hidden: int, experts: int, seed: int, data: st.DataObject
) -> None:
    layer = randomize(GeneratedModulationExperts(dim, hidden, experts), seed)
    assert isinstance(layer, GeneratedModulationExperts)
    x, weights = inputs(tokens, dim, experts, seed, data)
    summed = torch.zeros_like(x)
    for expert, (gamma, beta) in enumerate(zip(layer.gamma, layer.beta, strict=True)):
        summed += weights[:, expert, None] * ((x @ gamma.weight.T + gamma.bias) * x + x @ beta.weight.T + beta.bias)
    torch.testing.assert_close(layer(x, weights), layer.feed_forward(summed))


def test_feature_modulation_by_hand() -> None:
    # Two experts, gamma (1, 2) and (3, 4), beta (0, 1) and (1, 0), weights .5 and 2, x = (1, 10):
    # .5 (1*1 + 0, 2*10 + 1) + 2 (3*1 + 1, 4*10 + 0) = (.5, 10.5) + (8, 80) = (8.5, 90.5).
    layer = FeatureModulatedExperts(2, 3, 2)
    layer.gamma_ED.data = torch.tensor([[1.0, 2], [3, 4]])
    layer.beta_ED.data = torch.tensor([[0.0, 1], [1, 0]])
    layer.feed_forward = nn.Identity()  # type: ignore[assignment]
    assert layer(torch.tensor([[1.0, 10]]), torch.tensor([[0.5, 2]])).tolist() == [[8.5, 90.5]]


@pytest.mark.parametrize("experts", [1, 4, 16])
def test_the_cost_of_an_expert_in_parameters(experts: int) -> None:
    # D = 6, H = 10. A feed-forward: 6 * 10 + 10 + 10 * 6 + 6 = 136. A modulation: two vectors, 12.
    # A generated one: two linear layers, 2 (36 + 6) = 84.
    def count(layer: Experts) -> int:
        return sum(parameter.numel() for parameter in layer.parameters())

    assert count(FeedForwardExperts(6, 10, experts)) == 136 * experts
    assert count(FeatureModulatedExperts(6, 10, experts)) == 136 + 12 * experts
    assert count(GeneratedModulationExperts(6, 10, experts)) == 136 + 84 * experts


@pytest.mark.parametrize("tokens", [1, 3, 4, 9])
def test_many_tokens_are_worked_on_in_parts(tokens: int, monkeypatch: pytest.MonkeyPatch) -> None:
    # Room for 16 hidden values is room for 3 tokens of 5.
    torch.manual_seed(0)
    layer, x = FeedForward(4, 5).double(), torch.randn(tokens, 4, dtype=torch.float64)
    at_once = layer(x)
    monkeypatch.setattr("mofme.core.experts.feed_forward._HIDDEN_VALUES", 16)
    monkeypatch.setattr("mofme.core.experts.feed_forward._FEWEST_TOKENS", 1)
    in_parts = layer(x)
    torch.testing.assert_close(in_parts, at_once)
    for ours, expected in zip(
        torch.autograd.grad(in_parts.square().sum(), list(layer.parameters())),
        torch.autograd.grad(at_once.square().sum(), list(layer.parameters())),
        strict=True,
    ):
        torch.testing.assert_close(ours, expected)


def test_a_feed_forward_takes_a_single_vector() -> None:
    torch.manual_seed(0)
    layer, x = FeedForward(4, 5), torch.randn(3, 4)
    torch.testing.assert_close(torch.stack([layer(row) for row in x]), layer(x))
