"""What a mixture teaches when other experts than those its routers chose take part, and how much of it they hold.

Axis names: B texts, T tokens, V vocabulary, E experts, L layers.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor, nn

from mofme.core.moe import MoE, observe_routing, replace_routing
from mofme.core.routing import RoutingDecision
from mofme.core.sampled_routing import sample_experts
from mofme.errors import ModelError
from mofme.language.moe_distillation.causal_lm import CausalLM


def mixtures(teacher: CausalLM) -> list[MoE]:
    """Its mixture layers. Raises ModelError if there are none: such a teacher has no experts to choose from."""
    found = [module for module in teacher.module.modules() if isinstance(module, MoE)]
    if not found:
        raise ModelError("the teacher has no mixture of experts: choose the method kd or gkd, or another teacher")
    return found


@contextmanager
def most_experts(
    teacher: CausalLM, spared: int, chance: float = 0.0, generator: torch.Generator | None = None
) -> Iterator[None]:
    """Inside the block every layer of the teacher uses all its experts but `spared`, the best for each token.

    With probability `chance`, for each layer and token on its own, they are drawn from the router's softmax instead.
    """

    def choose(_: str, decision: RoutingDecision) -> RoutingDecision:
        count = max(1, decision.logits_TE.shape[-1] - spared)
        drawn = sample_experts(decision, count, chance, generator)
        return replace(drawn, weights_TE=drawn.weights_TE * count) if teacher.unit_gates else drawn

    mixtures(teacher)
    with replace_routing(teacher.module, choose):
        yield


def router_parameters(teacher: CausalLM) -> list[nn.Parameter]:
    """What its routers can learn. Raises ModelError if that is nothing."""
    found = [parameter for moe in mixtures(teacher) for parameter in moe.router.parameters()]
    if not found:
        raise ModelError("the teacher's routers have nothing to learn: choose another method than sar")
    return found


@torch.no_grad()
def non_activated_mass(teacher: CausalLM, ids_BT: Tensor) -> Tensor:
    """For each mixture layer (L), the share of the router's softmax that falls on experts which take no part."""
    mixtures(teacher)
    with observe_routing(teacher.module) as observed:
        teacher.logits(ids_BT)
    decisions = [one.decision for one in observed]
    return torch.stack([(one.logits_TE.softmax(-1) * ~one.chosen_TE).sum(-1).mean() for one in decisions])
