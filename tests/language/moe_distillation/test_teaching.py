from collections.abc import Callable

import pytest
import torch

from mofme.core.moe import MoE, observe_routing
from mofme.errors import ModelError
from mofme.language.moe_distillation.causal_lm import SmallCausalLM
from mofme.language.moe_distillation.teaching import mixtures, most_experts, non_activated_mass, router_parameters

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
