import math
from collections.abc import Callable

import pytest
import torch

from mofme.core.losses import augmentation_loss, gkd_loss
from mofme.core.moe import MoE, observe_routing
from mofme.core.routing import RoutingDecision
from mofme.errors import ModelError
from mofme.language.causal_lm import SmallCausalLM
from mofme.language.moe_distillation.teaching import (
    mixtures,
    most_experts,
    non_activated_mass,
    router_parameters,
    sample_experts,
)

MakeLM = Callable[..., SmallCausalLM]
IDS = torch.arange(12).view(2, 6)


@pytest.mark.parametrize("unit_gates", [False, True])
@pytest.mark.parametrize(("spared", "count"), [(0, 4), (1, 3)])
def test_most_experts_take_part(tiny_lm: MakeLM, spared: int, count: int, unit_gates: bool) -> None:
    """Their weights sum to 1, or where each would weigh 1 to their number."""
    teacher = tiny_lm()
    teacher.unit_gates = unit_gates  # type: ignore[misc]
    with most_experts(teacher, spared), observe_routing(teacher.module) as observed:
        teacher.logits(IDS)
    assert len(observed) == 2
    for one in observed:
        chosen_TE, logits_TE = one.decision.chosen_TE, one.decision.logits_TE
        assert torch.equal(chosen_TE.sum(-1), torch.full((12,), count))
        total = float(count) if unit_gates else 1.0
        torch.testing.assert_close(one.decision.weights_TE.sum(-1), torch.full((12,), total))
        least_T = logits_TE.argmin(-1)
        assert bool(chosen_TE.gather(-1, least_T[:, None]).any()) == (spared == 0)


def test_idle_mass_by_hand(tiny_lm: MakeLM) -> None:
    teacher = tiny_lm()
    first, second = (module for module in teacher.module.modules() if isinstance(module, MoE))
    with torch.no_grad():
        first.router.score.weight.zero_()  # type: ignore[union-attr]
        second.router.score.weight.zero_()  # type: ignore[union-attr]
    # Four equal experts, two of them idle: half of the probability.
    assert non_activated_mass(teacher, IDS).tolist() == pytest.approx([0.5, 0.5])
    second.router.top_k = 4
    assert non_activated_mass(teacher, IDS).tolist() == pytest.approx([0.5, 0.0])


def test_idle_mass_against_a_loop(tiny_lm: MakeLM) -> None:
    teacher = tiny_lm(seed=3)
    with torch.no_grad(), observe_routing(teacher.module) as observed:
        teacher.logits(IDS)
    expected = [
        sum(1 - float(row.double().softmax(-1).topk(2).values.sum()) for row in one.decision.logits_TE) / 12
        for one in observed
    ]
    assert non_activated_mass(teacher, IDS).tolist() == pytest.approx(expected, rel=1e-5)


def test_only_routers_learn(tiny_lm: MakeLM) -> None:
    # two layers, four experts, eight features
    assert sum(parameter.numel() for parameter in router_parameters(tiny_lm())) == 2 * 4 * 8


def test_without_mixtures_there_is_nothing_to_choose(tiny_lm: MakeLM) -> None:
    for call in (mixtures, router_parameters, lambda model: non_activated_mass(model, IDS)):
        with pytest.raises(ModelError, match="no mixture"):
            call(tiny_lm("dense"))


def decision_of(logits: list[float], tokens: int = 1) -> RoutingDecision:
    logits_TE = torch.tensor(logits).expand(tokens, -1)
    return RoutingDecision(torch.zeros_like(logits_TE), logits_TE)


def test_without_chance_the_best_take_part_weighed_by_their_softmax() -> None:
    # e^0 : e^ln3 = 1 : 3
    weights = sample_experts(decision_of([0.0, -5.0, math.log(3)]), 2, chance=0).weights_TE
    torch.testing.assert_close(weights, torch.tensor([[0.25, 0.0, 0.75]]))


def test_one_teacher_and_no_chance_is_gkd_with_the_best_experts() -> None:
    """M = 1 and lambda = 0 must be the control, to the last bit."""
    torch.manual_seed(0)
    decision, experts_EV, student = decision_of([0.3, 0.1, 0.2]), torch.randn(3, 5), torch.randn(1, 5)
    drawn = sample_experts(decision, 2, chance=0).weights_TE
    best = decision.logits_TE.topk(2)
    control = torch.zeros(1, 3).scatter(1, best.indices, best.values.softmax(-1))
    assert torch.equal(augmentation_loss(student, [drawn @ experts_EV]), gkd_loss(student, control @ experts_EV))


def test_drawn_experts_follow_the_softmax_without_replacement() -> None:
    # probabilities 1/2, 1/4, 1/4; the pair (0, 1), in either order: 1/2 * 1/2 + 1/4 * 1/2 / (3/4) = 5/12
    decision = decision_of([math.log(2), 0.0, 0.0], tokens=20_000)
    chosen = sample_experts(decision, 2, chance=1, generator=torch.Generator().manual_seed(0)).chosen_TE
    assert torch.equal(chosen.sum(1), torch.full((20_000,), 2))
    share = (chosen[:, 0] & chosen[:, 1]).double().mean().item()
    assert share == pytest.approx(5 / 12, abs=4 * math.sqrt(5 / 12 * 7 / 12 / 20_000))


def test_chance_is_for_each_token_on_its_own() -> None:
    decision = decision_of([1.0, 0.0, 0.0, 0.0], tokens=20_000)
    chosen = sample_experts(decision, 1, chance=0.4, generator=torch.Generator().manual_seed(0)).chosen_TE
    best = math.e / (math.e + 3)
    expected = 0.6 + 0.4 * best
    assert chosen[:, 0].double().mean().item() == pytest.approx(expected, abs=4 * math.sqrt(0.25 / 20_000))


def test_all_experts_can_take_part_and_no_more() -> None:
    weights = sample_experts(decision_of([0.0, 0.0]), 2, chance=0.5).weights_TE
    assert weights.tolist() == [[0.5, 0.5]]
    with pytest.raises(ValueError, match="between 1 and 2"):
        sample_experts(decision_of([0.0, 0.0]), 3, chance=0)
