"""Knowledge augmentation: another choice of a trained mixture's experts, drawn from what its router scored.

Source: Every Expert Matters (arXiv 2502.12947), section 3. Use it with `replace_routing`.
"""

import torch
from torch import Tensor

from mofme.core.routing import RoutingDecision


def sample_experts(
    decision: RoutingDecision, count: int, chance: float, generator: torch.Generator | None = None
) -> RoutingDecision:
    """`count` experts for every token, weighed by a softmax over their logits.

    With probability `chance`, for each token on its own, they are drawn without replacement from softmax(logits);
    else they are the `count` best. With chance 0 this is top-n routing, and with `count` = E all experts take part.
    """
    logits_TE = decision.logits_TE
    num_experts = logits_TE.shape[-1]
    if not 1 <= count <= num_experts:
        raise ValueError(f"between 1 and {num_experts} experts can be drawn, not {count}")
    # The largest of logits + Gumbel noise are a draw without replacement from their softmax (Kool et al. 2019).
    drawn_T1 = torch.rand(len(logits_TE), 1, device=logits_TE.device, generator=generator) < chance
    noise_TE = torch.empty_like(logits_TE).exponential_(generator=generator).log().neg()
    chosen_Tn = torch.where(drawn_T1, logits_TE + noise_TE, logits_TE).topk(count, dim=-1).indices
    return RoutingDecision(_softmax_over(logits_TE, chosen_Tn), logits_TE, decision.uncertainty_T)


def _softmax_over(logits_TE: Tensor, chosen_Tn: Tensor) -> Tensor:
    weights_Tn = logits_TE.gather(-1, chosen_Tn).softmax(-1)
    return torch.zeros_like(logits_TE).scatter(-1, chosen_Tn, weights_Tn)
