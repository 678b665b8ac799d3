"""Losses that keep a router from giving all its work to a few experts. They read decisions and live outside routers."""

import torch
from torch import Tensor

from mofme.core.routing import RoutingDecision


def squared_coefficient_of_variation(x_E: Tensor) -> Tensor:
    """Variance over squared mean (Shazeer et al. 2017, Eq. 6 and 8): 0 when all are equal."""
    return x_E.var(correction=0) / x_E.mean().square().clamp_min(torch.finfo(x_E.dtype).tiny)


def importance_loss(decision: RoutingDecision) -> Tensor:
    """CV^2 of the total weight that each expert receives over the tokens (Shazeer et al. 2017, Eq. 7).

    Weights may be signed (uncertainty-aware router): an expert's importance is the sum of their magnitudes.
    """
    return squared_coefficient_of_variation(decision.weights_TE.abs().sum(dim=0))


def load_loss(decision: RoutingDecision, k: int, noise: float) -> Tensor:
    """CV^2 of the expected number of tokens of each expert (Riquelme et al. 2021, Appendix A, Eq. 7 to 10).

    Counts have no gradient; the chance to be among the top k after normal noise of standard deviation `noise` on the
    logits has. The noise that sets the threshold is drawn from torch's global generator.
    """
    noisy_TE = decision.logits_TE + noise * torch.randn_like(decision.logits_TE)
    threshold_T1 = noisy_TE.detach().topk(k, dim=-1).values[:, -1:]
    chance_TE = torch.special.ndtr((decision.logits_TE - threshold_T1) / noise)
    return squared_coefficient_of_variation(chance_TE.sum(dim=0))


def switch_loss(decision: RoutingDecision) -> Tensor:
    """E * sum_i f_i P_i (Fedus et al. 2022, Eq. 4): share of choices times mean probability; 1 when uniform.

    0 where no expert is chosen.
    """
    share_E = decision.chosen_TE.to(decision.logits_TE.dtype).sum(dim=0)
    share_E = share_E / share_E.sum().clamp_min(1)
    probability_E = decision.logits_TE.softmax(dim=-1).mean(dim=0)
    return len(share_E) * (share_E * probability_E).sum()
