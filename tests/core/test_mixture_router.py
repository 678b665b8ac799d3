import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from mofme.core.experts.feature_modulated import FeatureModulatedExperts
from mofme.core.losses.balance import importance_loss, switch_loss
from mofme.core.moe import MoE, observe_routing
from mofme.core.routers.linear import LinearRouter
from mofme.core.routers.mixture import MixtureOfRouters


def router_of(dim: int, experts: int, top_k: int, routers: int, seed: int = 0) -> MixtureOfRouters:
    torch.manual_seed(seed)
    router = MixtureOfRouters(dim, experts, top_k, routers).double()
    for parameter in router.parameters():
        torch.nn.init.normal_(parameter)  # probabilities far from uniform
    return router


def softmax_by_loops(weight: list[list[float]], x: list[float]) -> list[float]:
    odds = [math.exp(sum(w * value for w, value in zip(row, x, strict=True))) for row in weight]
    return [one / sum(odds) for one in odds]


def by_loops(router: MixtureOfRouters, x: list[float], top_k: int) -> tuple[list[float], list[float]]:
    """p and the weights of one token, number by number."""
    shares = softmax_by_loops(router.main.score.weight.tolist(), x)
    votes = [softmax_by_loops(weight.tolist(), x) for weight in router.members.parameters()]
    p = [sum(g * vote[i] for g, vote in zip(shares, votes, strict=True)) for i in range(router.num_experts)]
    chosen = sorted(range(len(p)), key=lambda i: -p[i])[:top_k]
    total = sum(p[i] for i in chosen) if top_k > 1 else 1.0
    return p, [p[i] / total if i in chosen else 0.0 for i in range(len(p))]


@pytest.mark.parametrize("routers", [1, 2, 4])
@pytest.mark.parametrize("top_k", [1, 2, 5])
def test_it_equals_a_loop_over_numbers(routers: int, top_k: int) -> None:
    router = router_of(4, 5, top_k, routers)
    x_TD = torch.randn(7, 4, dtype=torch.float64)
    decision = router(x_TD)
    expected = [by_loops(router, x, top_k) for x in x_TD.tolist()]
    probabilities = torch.tensor([p for p, _ in expected], dtype=torch.float64)
    torch.testing.assert_close(decision.weights_TE, torch.tensor([w for _, w in expected], dtype=torch.float64))
    torch.testing.assert_close(decision.logits_TE.softmax(dim=-1), probabilities)
    assert torch.equal(router.logits(x_TD), decision.logits_TE)
    assert decision.uncertainty_T is None


def test_two_routers_by_hand() -> None:
    # x = 1. Votes (1/2, 1/4, 1/4) and (1/6, 1/2, 1/3), the main router gives the first 1/4 and the second 3/4:
    # p = (1/4, 7/16, 5/16). The two largest, 7/16 and 5/16, over their sum 12/16.
    router = MixtureOfRouters(1, 3, top_k=2).double()
    for part, odds in [(router.members[0], (2, 1, 1)), (router.members[1], (1, 3, 2)), (router.main, (1, 3))]:
        part.score.weight.data = torch.tensor([odds], dtype=torch.float64).log().T  # type: ignore[union-attr]
    decision = router(torch.ones(1, 1, dtype=torch.float64))
    torch.testing.assert_close(decision.weights_TE, torch.tensor([[0, 7 / 12, 5 / 12]], dtype=torch.float64))
    torch.testing.assert_close(decision.logits_TE.exp(), torch.tensor([[4 / 16, 7 / 16, 5 / 16]], dtype=torch.float64))


@given(
    tokens=st.integers(0, 40),
    dim=st.integers(1, 9),
    experts=st.integers(1, 20),
    seed=st.integers(0, 99),
    data=st.data(),
)
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


def test_one_router_learns_as_its_only_member_to_the_last_bit() -> None:
    torch.manual_seed(0)
    mixture, member = MixtureOfRouters(6, 5, num_routers=1), LinearRouter(6, 5)
    member.load_state_dict(mixture.members[0].state_dict())
    x_TD = torch.randn(30, 6)
    for router in (mixture, member):
        decision = router(x_TD)
        (decision.weights_TE.square().sum() + switch_loss(decision) + importance_loss(decision)).backward()
    ours, theirs = mixture.members[0].score.weight.grad, member.score.weight.grad  # type: ignore[union-attr]
    assert isinstance(ours, Tensor)
    assert theirs is not None
    assert torch.equal(ours, theirs)


def test_routers_that_agree_decide_as_each_of_them() -> None:
    router = router_of(4, 5, 2, routers=3)
    for member in router.members[1:]:
        member.load_state_dict(router.members[0].state_dict())
    x_TD = torch.randn(6, 4, dtype=torch.float64)
    torch.testing.assert_close(router(x_TD).weights_TE, router.members[0](x_TD).weights_TE)


def test_it_is_no_linear_router_in_disguise() -> None:
    # Logits of a linear router are linear in x, up to a number for each token: halfway between two tokens they lie
    # halfway. Here they do not.
    router = router_of(4, 5, 5, routers=2)
    x_TD = torch.randn(2, 4, dtype=torch.float64)
    centred = [logits - logits.mean() for logits in router(torch.stack([*x_TD, x_TD.mean(0)])).logits_TE]
    assert not torch.allclose((centred[0] + centred[1]) / 2, centred[2], atol=1e-2)


@given(
    tokens=st.integers(0, 6),
    experts=st.integers(1, 6),
    routers=st.integers(1, 4),
    seed=st.integers(0, 99),
    data=st.data(),
)
def test_weights_are_a_distribution_over_k_experts(
    tokens: int, experts: int, routers: int, seed: int, data: st.DataObject
) -> None:
    top_k = data.draw(st.integers(1, experts))
    torch.manual_seed(seed)
    decision = MixtureOfRouters(3, experts, top_k, routers)(torch.randn(tokens, 3))
    assert decision.weights_TE.shape == decision.logits_TE.shape == (tokens, experts)
    assert decision.chosen_TE.sum(dim=-1).tolist() == [top_k] * tokens
    assert (decision.weights_TE >= 0).all()
    if top_k > 1:
        torch.testing.assert_close(decision.weights_TE.sum(dim=-1), torch.ones(tokens))


@given(experts=st.permutations(range(5)), routers=st.permutations(range(3)), top_k=st.integers(1, 5))
def test_renamed_experts_and_routers_change_nothing_else(experts: list[int], routers: list[int], top_k: int) -> None:
    router = router_of(4, 5, top_k, routers=3)
    x_TD = torch.randn(3, 4, dtype=torch.float64)
    before = router(x_TD)
    weights = [member.score.weight.data[experts] for member in router.members]  # type: ignore[union-attr, index]
    for member, source in zip(router.members, routers, strict=True):
        member.score.weight.data = weights[source]  # type: ignore[union-attr]
    router.main.score.weight.data = router.main.score.weight.data[routers]
    after = router(x_TD)
    torch.testing.assert_close(after.weights_TE, before.weights_TE[:, experts])
    torch.testing.assert_close(after.logits_TE, before.logits_TE[:, experts])


@pytest.mark.parametrize("top_k", [1, 2, 4])
def test_gradients_are_those_of_finite_differences(top_k: int) -> None:
    router = router_of(3, 4, top_k, routers=2)
    names = [name for name, _ in router.named_parameters()]
    weights = [parameter.detach().clone().requires_grad_() for parameter in router.parameters()]
    x_TD = torch.randn(2, 3, dtype=torch.float64, requires_grad=True)

    def decide(x: Tensor, *weights: Tensor) -> tuple[Tensor, Tensor]:
        decision = torch.func.functional_call(router, dict(zip(names, weights, strict=True)), x)
        return decision.weights_TE, decision.logits_TE

    assert torch.autograd.gradcheck(decide, (x_TD, *weights))


def test_votes_far_apart_stay_finite() -> None:
    router = router_of(3, 4, 2, routers=2).float()
    x_TD = torch.tensor([[0.0, 0, 0], [1e3, -1e3, 1e3]], requires_grad=True)
    decision = router(x_TD)
    (decision.weights_TE.square().sum() + switch_loss(decision)).backward()
    assert decision.logits_TE.isfinite().all()
    assert x_TD.grad is not None and x_TD.grad.isfinite().all()


def test_every_part_learns_and_only_the_whole_is_observed() -> None:
    torch.manual_seed(0)
    layer = MoE(MixtureOfRouters(4, 6), FeatureModulatedExperts(4, 8, 6))
    with observe_routing(layer) as observed:
        layer(torch.randn(2, 3, 4)).square().sum().backward()
    assert len(observed) == 1
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in layer.router.parameters())


def test_a_mixture_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1 router"):
        MixtureOfRouters(4, 5, num_routers=0)
