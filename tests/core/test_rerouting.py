import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from mofme.core.experts import FeatureModulatedExperts
from mofme.core.moe import MoE
from mofme.core.rerouting import Neighbours, descend, find_mode, frozen, nearest, regress, rerouted, routing_of, shifted
from mofme.core.routers import LinearRouter
from tests.core.toy_layers import Fixed, Multiples

# Twice as much is wanted of every input, and the router always takes the expert that changes nothing.
NEIGHBOURS_kD = torch.tensor([[1.0], [3.0]], dtype=torch.float64)
ALIKE = Neighbours(torch.tensor([0, 1]), torch.tensor([0.5, 0.5], dtype=torch.float64))


@pytest.fixture
def model() -> MoE:
    return MoE(Fixed(1, 0), Multiples(2)).double()


def loss_on_neighbours(model: MoE, routing_R: Tensor) -> Tensor:
    with rerouted(model, routing_R):
        losses = [(model(x_D[None]) - 2 * x_D).square().sum() for x_D in NEIGHBOURS_kD]
    return ALIKE.mean(torch.stack(losses))


def tensor(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def test_one_step_of_descent_by_hand(model: MoE) -> None:
    # L(r) = (1 + 9) / 2 * (r_1 + 2 r_2 - 2)^2; at (1, 0) its gradient is 10 * (-1) * (1, 2).
    start = routing_of(model, lambda: model(NEIGHBOURS_kD))
    assert start.tolist() == [1, 0]
    moved = descend(start, lambda r: loss_on_neighbours(model, r), steps=1, rates=(0.01, 0.01))
    torch.testing.assert_close(moved, tensor(1.1, 0.2))


def test_the_rate_falls_along_a_cosine() -> None:
    # The gradient of sum(r) is 1 everywhere. Rates at 0, a half and all of the way: 3, 2 and 1, together 6.
    assert descend(tensor(0.0), Tensor.sum, steps=3, rates=(3, 1)).item() == pytest.approx(-6)


def test_descent_works_where_gradients_are_off(model: MoE) -> None:
    start = tensor(1, 0)
    with torch.no_grad():
        moved = descend(start, lambda r: loss_on_neighbours(model, r), steps=1)
    assert not torch.equal(moved, start)
    assert not moved.requires_grad
    assert start.tolist() == [1, 0]


def test_regression_goes_as_far_as_is_good(model: MoE) -> None:
    # a (1, 0) + (1 - a) (0, 2) makes a + 4 (1 - a) = 2 for a = 2/3: of the tenths, 0.7 comes closest.
    references_NR = torch.stack([tensor(0, 2), tensor(0, 2)])
    found = regress(tensor(1, 0), ALIKE, references_NR, lambda r: loss_on_neighbours(model, r))
    torch.testing.assert_close(found, tensor(0.7, 0.6))

    # It stays where nothing is gained.
    own = tensor(1, 0)
    assert torch.equal(regress(own, ALIKE, torch.stack([tensor(0, 1)] * 2), lambda r: torch.zeros(())), own)


def test_one_step_of_mode_finding_by_hand() -> None:
    # Both references are 1 away, so they weigh alike: their mean is (0, 1), half of the way to it (0, 0.5).
    assert find_mode(tensor(0, 0), torch.stack([tensor(0, 1), tensor(0, 1)]), k=2, steps=1).tolist() == [0, 0.5]
    assert find_mode(tensor(0, 0), torch.stack([tensor(0, 1)] * 2), k=2, steps=1, own=0).tolist() == [0, 1]


@given(count=st.integers(1, 8), dim=st.integers(1, 4), seed=st.integers(0, 99), data=st.data())
def test_the_kernel_is_that_of_a_loop(count: int, dim: int, seed: int, data: st.DataObject) -> None:
    k = data.draw(st.integers(1, count))
    generator = torch.Generator().manual_seed(seed)
    x_D = torch.randn(dim, generator=generator, dtype=torch.float64)
    references_ND = torch.randn(count, dim, generator=generator, dtype=torch.float64)
    distances = [math.dist(x_D.tolist(), reference) for reference in references_ND.tolist()]
    index = sorted(range(count), key=distances.__getitem__)[:k]
    width = sum(distances[i] for i in index) / k
    kernel = [math.exp(-(distances[i] ** 2) / (2 * width**2)) for i in index]
    near = nearest(x_D, references_ND, k)
    assert near.index_k.tolist() == index
    assert near.kernel_k.tolist() == pytest.approx([one / sum(kernel) for one in kernel])


def test_neighbours_that_are_the_sample_itself_weigh_alike_and_no_more_are_had_than_references() -> None:
    assert nearest(torch.ones(3), torch.ones(4, 3), k=2).kernel_k.tolist() == [0.5, 0.5]
    for k in (0, 3):
        with pytest.raises(ValueError, match=f"not {k}"):
            nearest(torch.ones(3), torch.ones(2, 3), k)


@pytest.fixture
def deep() -> nn.Sequential:
    torch.manual_seed(0)
    layers = [MoE(LinearRouter(4, experts), FeatureModulatedExperts(4, 8, experts)) for experts in (3, 5)]
    return nn.Sequential(*layers, nn.Dropout(0.5)).double()


def test_own_routing_changes_nothing(deep: nn.Sequential) -> None:
    x = torch.randn(6, 4, dtype=torch.float64)
    with frozen(deep):
        before = deep(x)
        routing_R = routing_of(deep, lambda: deep(x))
        assert routing_R.shape == (8,)
        torch.testing.assert_close(routing_R[:3].sum(), tensor(1).squeeze())
        with rerouted(deep, routing_R):
            torch.testing.assert_close(deep(x), before)
            other = deep(x + 1)
        assert not torch.allclose(other, deep(x + 1))


def test_the_tokens_mean_is_what_was_asked_for_and_their_differences_stay(deep: nn.Sequential) -> None:
    x = torch.randn(6, 4, dtype=torch.float64)
    asked = torch.rand(8, dtype=torch.float64)
    first = deep[0]
    assert isinstance(first, MoE)
    before = first.router(x).weights_TE
    with rerouted(deep, asked):
        torch.testing.assert_close(routing_of(deep, lambda: deep(x)), asked)
        after = first.router(x).weights_TE
    torch.testing.assert_close(after - after.mean(0), before - before.mean(0))


def test_gradients_reach_the_routing_of_every_layer(deep: nn.Sequential) -> None:
    x = torch.randn(6, 4, dtype=torch.float64)

    def output(routing_R: Tensor) -> Tensor:
        with rerouted(deep, routing_R):
            total: Tensor = deep(x).square().sum()
        return total

    with frozen(deep):
        assert torch.autograd.gradcheck(output, torch.rand(8, dtype=torch.float64, requires_grad=True))


def test_nothing_is_left_changed(deep: nn.Sequential) -> None:
    x = torch.randn(6, 4, dtype=torch.float64)
    deep[1].eval()
    deep[0].router.requires_grad_(False)
    modes = [module.training for module in deep.modules()]
    learning = [parameter.requires_grad for parameter in deep.parameters()]
    before = {name: value.clone() for name, value in deep.state_dict().items()}

    def loss_of(routing_R: Tensor) -> Tensor:
        with rerouted(deep, routing_R):
            loss: Tensor = deep(x).square().mean()
        return loss

    with frozen(deep):
        assert not any(module.training for module in deep.modules())
        own = deep(x)
        start = routing_of(deep, lambda: deep(x))
        moved = descend(start, loss_of)
        regress(start, nearest(start, start[None], 1), moved[None], loss_of)
        torch.testing.assert_close(deep(x), own, rtol=0, atol=0)
    assert [module.training for module in deep.modules()] == modes
    assert [parameter.requires_grad for parameter in deep.parameters()] == learning
    assert all(parameter.grad is None for parameter in deep.parameters())
    assert all(torch.equal(value, before[name]) for name, value in deep.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in deep.modules())


def test_a_layer_that_was_not_run_is_named(deep: nn.Sequential) -> None:
    with pytest.raises(ValueError, match="'1' was not run"):
        routing_of(deep, lambda: deep[0](torch.randn(2, 4, dtype=torch.float64)))


def test_several_samples_each_get_the_mean_asked_for(deep: nn.Sequential) -> None:
    samples_STD = torch.randn(3, 6, 4, dtype=torch.float64)
    asked = torch.rand(8, dtype=torch.float64)
    with frozen(deep):
        with rerouted(deep, asked):
            alone = torch.stack([deep(x_TD) for x_TD in samples_STD])
        with rerouted(deep, asked, samples=3):
            torch.testing.assert_close(deep(samples_STD), alone)


def test_a_shift_moves_every_token_alike(deep: nn.Sequential) -> None:
    x = torch.randn(6, 4, dtype=torch.float64)
    shift_R = torch.rand(8, dtype=torch.float64)
    with frozen(deep):
        own = routing_of(deep, lambda: deep(x))
        first = deep[0]
        assert isinstance(first, MoE)
        before = first.router(x).weights_TE
        with shifted(deep, shift_R):
            torch.testing.assert_close(first.router(x).weights_TE, before + shift_R[:3])
            parts = torch.cat([deep(x[:2]), deep(x[2:])])
            torch.testing.assert_close(deep(x), parts)
        assert torch.equal(routing_of(deep, lambda: deep(x)), own)
    with pytest.raises(ValueError, match="8 routing weights"), shifted(deep, torch.rand(7)):
        pass


def test_a_failure_inside_leaves_nothing_behind(deep: nn.Sequential) -> None:
    with pytest.raises(RuntimeError, match="broke"), frozen(deep), rerouted(deep, torch.rand(8)):
        raise RuntimeError("broke")
    assert all(module.training for module in deep.modules())
    assert all(parameter.requires_grad for parameter in deep.parameters())
    assert not any(module._forward_hooks for module in deep.modules())
