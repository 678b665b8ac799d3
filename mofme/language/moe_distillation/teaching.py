"""What a mixture teaches when other experts than those its routers chose take part, and how much of it they hold.

Knowledge augmentation is of Every Expert Matters (arXiv 2502.12947), section 3. Axis names: B texts, T tokens,
V vocabulary, E experts, n of them that are drawn, L layers.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor, nn

from mofme.core.moe import MoE, moe_layers, observe_routing, replace_routing
from mofme.core.routing import RoutingDecision
from mofme.errors import ModelError
from mofme.language.causal_lm import CausalLM


def mixtures(teacher: CausalLM) -> list[MoE]:
    """Its mixture layers. Raises ModelError if there are none: such a teacher has no experts to choose from."""
    found = list(moe_layers(teacher.module).values())
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


def sample_experts(
    decision: RoutingDecision, count: int, chance: float, generator: torch.Generator | None = None
) -> RoutingDecision:
    """`count` experts for every token, weighed by a softmax over their logits: knowledge augmentation.

    With probability `chance`, for each token on its own, they are drawn without replacement from softmax(logits);
    else they are the `count` best. With chance 0 this is top-n routing, and with `count` = E all experts take part.
    Raises ValueError for a count outside 1 to E.
    """
    logits_TE = decision.logits_TE
    num_experts = logits_TE.shape[-1]
    if not 1 <= count <= num_experts:
        raise ValueError(f"between 1 and {num_experts} experts can be drawn, not {count}")
    # The largest of logits + Gumbel noise are a draw without replacement from their softmax (Kool et al. 2019).
    drawn_T1 = torch.rand(len(logits_TE), 1, device=logits_TE.device, generator=generator) < chance
    noise_TE = torch.empty_like(logits_TE).exponential_(generator=generator).log().neg()
    chosen_Tn = torch.where(drawn_T1, logits_TE + noise_TE, logits_TE).topk(count, dim=-1).indices
    weights_Tn = logits_TE.gather(-1, chosen_Tn).softmax(-1)
    return replace(decision, weights_TE=torch.zeros_like(logits_TE).scatter(-1, chosen_Tn, weights_Tn))


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
    return torch.stack([(one.probabilities_TE * ~one.chosen_TE).sum(-1).mean() for one in decisions])
