"""What a student learns from a teacher's distribution. Nothing here knows of text: the last axis is the choices.

Axis names: T positions, V choices. Sources: Hinton et al. 2015 (KD), Agarwal et al. 2024 (GKD), and Every Expert
Matters (arXiv 2502.12947), whose teacher is a mixture of experts.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from mofme.core.losses.balance import importance_loss, squared_coefficient_of_variation
from mofme.core.routing import RoutingDecision


def kl_divergence(p_logits_TV: Tensor, q_logits_TV: Tensor, counts_T: Tensor | None = None) -> Tensor:
    """KL(p || q) in nats, averaged over the positions that `counts_T` (boolean) marks; over all without it."""
    log_p_TV, log_q_TV = p_logits_TV.log_softmax(-1), q_logits_TV.log_softmax(-1)
    return _average((log_p_TV.exp() * (log_p_TV - log_q_TV)).sum(-1), counts_T)


def kd_loss(student_TV: Tensor, teacher_TV: Tensor, labels_T: Tensor, counts_T: Tensor | None = None) -> Tensor:
    """Half cross-entropy with the true choice, half KL(teacher || student): what GKD is compared with."""
    true_T = F.cross_entropy(student_TV.flatten(0, -2), labels_T.flatten(), reduction="none").view(labels_T.shape)
    return 0.5 * _average(true_T, counts_T) + 0.5 * kl_divergence(teacher_TV, student_TV, counts_T)


def gkd_loss(student_TV: Tensor, teacher_TV: Tensor, counts_T: Tensor | None = None) -> Tensor:
    """KL(student || teacher), for positions that the student wrote itself (GKD on its own samples, reverse KL)."""
    return kl_divergence(student_TV, teacher_TV, counts_T)


def augmentation_loss(student_TV: Tensor, teachers_TV: Sequence[Tensor], counts_T: Tensor | None = None) -> Tensor:
    """Knowledge augmentation (KA): the mean over M samplings of the teacher's experts of KL(student || teacher^m).

    The losses are averaged, not the teacher's outputs. With one teacher it is `gkd_loss`.
    """
    return torch.stack([gkd_loss(student_TV, teacher_TV, counts_T) for teacher_TV in teachers_TV]).mean()


def router_feedback_loss(
    teacher_TV: Tensor,
    student_TV: Tensor,
    decisions: Sequence[RoutingDecision],
    counts_T: Tensor | None = None,
    balance: float = 0.01,
) -> Tensor:
    """Student-aware router (SAR), the teacher's half: KL(teacher || student) + balance * sum over layers of
    CV^2(importance) + CV^2(load).

    Load is the number of tokens that choose an expert. It carries no gradient, and is equal where all are active.
    """
    loss = kl_divergence(teacher_TV, student_TV, counts_T)
    for decision in decisions:
        load_E = decision.chosen_TE.to(decision.weights_TE.dtype).sum(0)
        loss = loss + balance * (importance_loss(decision) + squared_coefficient_of_variation(load_E))
    return loss


def _average(values_T: Tensor, counts_T: Tensor | None) -> Tensor:
    if counts_T is None:
        return values_T.mean()
    weights_T = counts_T.to(values_T.dtype)
    return (values_T * weights_T).sum() / weights_T.sum().clamp_min(1)
