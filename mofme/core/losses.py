"""Losses of routing and of distillation. They read decisions and logits, and live outside routers and models.

Of balance: Shazeer et al. 2017 (arXiv 1701.06538), Riquelme et al. 2021 (arXiv 2106.05974), Fedus et al. 2022 (arXiv
2101.03961). Of distillation: Hinton et al. 2015 (KD, arXiv 1503.02531), Agarwal et al. 2024 (GKD, arXiv 2306.13649),
Every Expert Matters (arXiv 2502.12947). Axis names beside those of `routing.py`: T tokens or positions, V choices.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
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
    """E * sum_e f_e P_e (Fedus et al. 2022, Eq. 4): share of choices times mean probability; 1 when uniform.

    0 where no expert is chosen.
    """
    share_E = decision.chosen_TE.to(decision.logits_TE.dtype).sum(dim=0)
    share_E = share_E / share_E.sum().clamp_min(1)
    return len(share_E) * (share_E * decision.probabilities_TE.mean(dim=0)).sum()


def kl_divergence(p_logits_TV: Tensor, q_logits_TV: Tensor) -> Tensor:
    """KL(p || q) in nats, averaged over the positions."""
    log_p_TV, log_q_TV = p_logits_TV.log_softmax(-1), q_logits_TV.log_softmax(-1)
    return (log_p_TV.exp() * (log_p_TV - log_q_TV)).sum(-1).mean()


def kd_loss(student_TV: Tensor, teacher_TV: Tensor, labels_T: Tensor) -> Tensor:
    """Half cross-entropy with the true choice, half KL(teacher || student): what GKD is compared with."""
    true_T = F.cross_entropy(student_TV.flatten(0, -2), labels_T.flatten(), reduction="none")
    return 0.5 * true_T.mean() + 0.5 * kl_divergence(teacher_TV, student_TV)


def gkd_loss(student_TV: Tensor, *teachers_TV: Tensor) -> Tensor:
    """KL(student || teacher), for positions that the student wrote itself (GKD on its own samples, reverse KL).

    Of several teachers, samplings of one's experts, the losses are averaged: knowledge augmentation (KA).
    """
    return torch.stack([kl_divergence(student_TV, teacher_TV) for teacher_TV in teachers_TV]).mean()


def router_feedback_loss(
    teacher_TV: Tensor, student_TV: Tensor, decisions: Sequence[RoutingDecision], balance: float = 0.01
) -> Tensor:
    """Student-aware router (SAR), the teacher's half: KL(teacher || student) + balance * sum over layers of
    CV^2(importance) + CV^2(load).

    Load is the number of tokens that choose an expert. It carries no gradient, and is equal where all are active.
    """
    loss = kl_divergence(teacher_TV, student_TV)
    for decision in decisions:
        load_E = decision.chosen_TE.to(decision.weights_TE.dtype).sum(0)
        loss = loss + balance * (importance_loss(decision) + squared_coefficient_of_variation(load_E))
    return loss
