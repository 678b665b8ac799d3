from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor, nn

from mofme.core.experts import (
    FeatureModulatedExperts,
    FeedForwardExperts,
    GeneratedModulationExperts,
    LinearExperts,
    LowRankExperts,
)
from mofme.core.gated_experts import GatedFeedForwardExperts
from mofme.core.moe import MoE, activated_parameters, moe_layers, observe_routing, parameters, replace_routing
from mofme.core.routers import ROUTERS, LinearRouter, RouterKind
from mofme.core.routing import Experts, Router, RoutingDecision
from tests.core.toy_layers import Fixed, Multiples


@pytest.fixture
def model() -> nn.Sequential:
    return nn.Sequential(MoE(Fixed(1, 0), Multiples(2)), nn.Identity(), MoE(Fixed(0, 1), Multiples(2)))


def only(*weights: float) -> RoutingDecision:
    weights_TE = torch.tensor([weights], dtype=torch.float32)
    return RoutingDecision(weights_TE, weights_TE)


@pytest.mark.parametrize("leading", [(5,), (2, 3), (2, 3, 4), (0,)])
def test_it_stands_in_for_any_layer_from_d_to_f(leading: tuple[int, ...]) -> None:
    # Weights .5 and .25 of experts that multiply by 1 and 2: a factor of .5 + .5 = 1.
    layer = MoE(Fixed(0.5, 0.25), Multiples(2, copies=3))
    x = torch.rand(*leading, 4)
    y = layer(x)
    assert y.shape == (*leading, 12)
    torch.testing.assert_close(y, torch.cat([x, x, x], dim=-1))


def test_a_token_without_an_axis_and_a_router_for_another_number_of_experts_are_refused() -> None:
    with pytest.raises(ValueError, match=r"takes tokens .*: give one token as \(1, D\)"):
        MoE(Fixed(0.5, 0.25), Multiples(2))(torch.rand(4))
    with pytest.raises(ValueError, match=r"3 experts.* 2"):
        MoE(Fixed(1, 1, 1), Multiples(2))


@pytest.mark.parametrize("router", ROUTERS.values())
def test_a_layer_in_double_precision_computes_in_it(router: type[Router]) -> None:
    torch.manual_seed(0)
    layer = MoE(router(6, 4, top_k=2), FeatureModulatedExperts(6, 8, 4))  # type: ignore[call-arg]
    x = torch.randn(50, 6)
    single = layer(x)
    double = layer.double()(x.double())
    assert double.dtype == torch.float64
    torch.testing.assert_close(double.float(), single, rtol=1e-4, atol=1e-5)


def test_observing_gives_every_decision_in_order(model: nn.Sequential) -> None:
    with observe_routing(model, tokens=True) as observed:
        model(torch.ones(2, 3, 4))
        assert [(o.layer, o.leading_shape) for o in observed] == [("0", (2, 3)), ("2", (2, 3))]
        assert observed[0].decision.weights_TE.tolist() == [[1, 0]] * 6
        assert observed[0].x_TD is not None and observed[0].x_TD.tolist() == [[1] * 4] * 6
        model(torch.ones(7, 4))
    assert [o.leading_shape for o in observed] == [(2, 3), (2, 3), (7,), (7,)]
    model(torch.ones(7, 4))
    assert len(observed) == 4


def test_a_mixture_inside_an_expert_keeps_its_own_shape() -> None:
    class Nested(Multiples):
        def __init__(self) -> None:
            super().__init__(2)
            self.inner = MoE(Fixed(0, 1), Multiples(2))

        def forward(self, x_TD: Tensor, weights_TE: Tensor) -> Tensor:
            y: Tensor = self.inner(super().forward(x_TD, weights_TE))
            return y

    layer = MoE(Fixed(1, 0), Nested())
    with observe_routing(layer) as observed:
        layer(torch.ones(2, 3, 4))
    assert [(o.layer, o.leading_shape) for o in observed] == [("", (2, 3)), ("experts.inner", (6,))]


def test_replaced_decisions_are_followed_and_observed_inside_the_block_only(model: nn.Sequential) -> None:
    # Alone the model multiplies by 1, then by 2.
    own = []

    def second(layer: str, decision: RoutingDecision) -> RoutingDecision:
        own.append((layer, decision.weights_TE.tolist()))
        return only(0, 1)

    x = torch.ones(1, 4)
    with replace_routing(model, second), observe_routing(model) as observed:
        assert model(x).unique().item() == 4
    assert own == [("0", [[1, 0]]), ("2", [[0, 1]])]
    assert [o.decision.weights_TE.tolist() for o in observed] == [[[0, 1]], [[0, 1]]]
    assert model(x).unique().item() == 2


def test_another_thread_is_neither_observed_nor_replaced(model: nn.Sequential) -> None:
    x, edit = torch.ones(1, 4), lambda _, __: only(0, 1)
    own, elsewhere = model(x), ThreadPoolExecutor(1)
    with elsewhere, replace_routing(model, edit), observe_routing(model) as observed:
        assert torch.equal(elsewhere.submit(model, x).result(), own)
        assert observed == []
        assert not torch.equal(model(x), own) and len(observed) == 2


@pytest.mark.parametrize("context", [observe_routing, lambda m: replace_routing(m, lambda _, __: only(0, 1))])
def test_nothing_stays_behind_after_an_exception(model: nn.Sequential, context: type) -> None:
    with pytest.raises(KeyError), context(model):
        raise KeyError
    assert model(torch.ones(1, 4)).unique().item() == 2
    hooks = [m._forward_hooks or m._forward_pre_hooks for m in model.modules()]
    assert not any(hooks)


# D = 6 and E = 4. One map; two through round(3 * 24 / 10) = 7 features; three maps; two maps and one to 2 numbers; one.
ROUTER_SIZES: dict[RouterKind, int] = {
    "linear": 6 * 4,
    "mlp": 6 * 7 + 7 * 4,
    "attention": 3 * 6 * 4,
    "mixture": 2 * 6 * 4 + 6 * 2,
    "uncertainty": 6 * 4,
}


@pytest.mark.parametrize("kind", ROUTERS)
def test_activated_parameters_of_every_router_by_hand(kind: RouterKind) -> None:
    # A feed-forward with H = 10 has 6 * 10 + 10 + 10 * 6 + 6 = 136. The router works whole, and 2 of 4 experts do.
    layer = MoE(ROUTERS[kind](6, 4, 2), FeedForwardExperts(6, 10, 4))
    assert parameters(layer) == ROUTER_SIZES[kind] + 4 * 136
    assert activated_parameters(layer) == ROUTER_SIZES[kind] + 2 * 136


@pytest.mark.parametrize(
    ("make", "always", "each"),
    [
        (lambda: FeedForwardExperts(6, 10, 4), 0, 136),
        # The network is shared, of 136 parameters; an expert is two vectors of 6.
        (lambda: FeatureModulatedExperts(6, 10, 4), 136, 12),
        # Every generator runs, two layers of 6 * 6 + 6 for each of 4 experts.
        (lambda: GeneratedModulationExperts(6, 10, 4), 136 + 4 * 84, 0),
        # Rank 2: 6 * 2 down and 2 * 5 up.
        (lambda: LowRankExperts(6, 5, 4, rank=2), 0, 22),
        (lambda: LinearExperts(6, 5, 4), 0, 30),
        # 3 neurons shared and 5 an expert, each of 3 * 6; what stands in for the experts, 4 * 6, is always there.
        (lambda: GatedFeedForwardExperts(6, 5, 4, shared=3), 3 * 18 + 24, 5 * 18),
    ],
)
@pytest.mark.parametrize("top_k", [1, 3, 4])
def test_activated_parameters_of_all_experts_by_hand(
    make: Callable[[], Experts], always: int, each: int, top_k: int
) -> None:
    layer = MoE(LinearRouter(6, 4, top_k), make())
    assert parameters(layer) == 24 + always + 4 * each
    assert activated_parameters(layer) == 24 + always + top_k * each


def test_activated_parameters_of_a_model_are_of_all_its_layers() -> None:
    # Two layers of 24 + 4 * 12 + 136 and a bias of 6. By default 2 of 4 experts of 12 are idle in each; then 1 and 2.5.
    layers = [MoE(LinearRouter(6, 4, top_k=2), FeatureModulatedExperts(6, 10, 4)) for _ in range(2)]
    model = nn.Sequential(*layers, layers[0])  # used again, it counts once
    model.register_parameter("bias", nn.Parameter(torch.zeros(6)))
    assert list(moe_layers(model)) == ["0", "1"]
    assert parameters(model) == 2 * 208 + 6
    assert activated_parameters(model) == 2 * 208 + 6 - 4 * 12
    assert activated_parameters(model, [3, 1.5]) == 2 * 208 + 6 - 12 - 30
    assert activated_parameters(nn.Linear(3, 2)) == 8
    with pytest.raises(ValueError, match="shorter"):
        activated_parameters(model, [3])


def test_observed_decisions_carry_gradients() -> None:
    router = LinearRouter(4, 3)
    layer = MoE(router, FeedForwardExperts(4, 4, 3))
    with observe_routing(layer) as observed:
        layer(torch.randn(5, 4))
    observed[0].decision.logits_TE.sum().backward()
    assert router.score.weight.grad is not None
