"""Losses of balance and of distillation, against numbers worked out by hand."""

import math

import pytest
import torch

from mofme.core.losses import (
    gkd_loss,
    importance_loss,
    kd_loss,
    load_loss,
    router_feedback_loss,
    squared_coefficient_of_variation,
    switch_loss,
)
from mofme.core.routing import RoutingDecision


def test_squared_coefficient_of_variation_by_hand() -> None:
    # Mean 2, squared distances 1, 1, 0, 4, 4 over 5 = 2; 2 / 2^2 = .5.
    assert squared_coefficient_of_variation(torch.tensor([1.0, 3, 2, 0, 4])).item() == pytest.approx(0.5)


def test_importance_loss_by_hand() -> None:
    # Magnitudes sum to (1, 3): mean 2, variance 1, so 1 / 4. The sign does not matter.
    weights = torch.tensor([[0.5, -1.0], [-0.5, 2.0]])
    assert importance_loss(RoutingDecision(weights, weights)).item() == pytest.approx(0.25)


def test_switch_loss_by_hand() -> None:
    # 3 of 4 choices fall on the first of two experts: f = (3/4, 1/4). Probabilities (3/4, 1/4) for all four tokens.
    # E sum f P = 2 (9/16 + 1/16) = 1.25.
    weights = torch.tensor([[1.0, 0], [1, 0], [1, 0], [0, 1]])
    logits = torch.tensor([3.0, 1.0]).log().expand(4, 2)
    assert switch_loss(RoutingDecision(weights, logits)).item() == pytest.approx(1.25)


def test_load_loss_counts_the_chances_to_be_chosen_after_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    # Noise of (0, 1) on logits (0, 0), at standard deviation 1/2, sets the threshold at 1/2: both experts pass it with
    # chance Phi(-1), so the load is even. Logits (1, 0) set it at 1: chances Phi(0) = .5 and Phi(-2) = .02275.
    monkeypatch.setattr(torch, "randn_like", lambda _: torch.tensor([[0.0, 1.0]]))
    even, uneven = torch.zeros(1, 2), torch.tensor([[1.0, 0.0]])
    assert load_loss(RoutingDecision(even, even), k=1, noise=0.5).item() == pytest.approx(0, abs=1e-7)
    # Mean .26138, distance .23862: (.23862 / .26138)^2 = .83346.
    assert load_loss(RoutingDecision(uneven, uneven), k=1, noise=0.5).item() == pytest.approx(0.83346, abs=1e-4)


def test_the_switch_loss_is_zero_and_not_nan_where_no_expert_is_chosen() -> None:
    logits_TE = torch.zeros(3, 4, requires_grad=True)
    loss = switch_loss(RoutingDecision(weights_TE=torch.zeros(3, 4), logits_TE=logits_TE))
    loss.backward()
    assert loss.item() == 0.0
    assert logits_TE.grad is not None and torch.equal(logits_TE.grad, torch.zeros(3, 4))


# p = (1/2, 1/2), q = (1/4, 3/4):  KL(p || q) = ln 2 / 2 + ln(2/3) / 2 = ln(4/3) / 2
#                                  KL(q || p) = ln(1/2) / 4 + 3 ln(3/2) / 4
P, Q = torch.tensor([[0.0, 0.0]]), torch.tensor([[0.0, math.log(3)]])
P_FROM_Q = math.log(4 / 3) / 2
Q_FROM_P = -math.log(2) / 4 + 3 * math.log(1.5) / 4


def test_kd_is_half_cross_entropy_and_half_teacher_to_student() -> None:
    # the student says 1/4 to the true first choice: cross-entropy ln 4
    assert kd_loss(Q, P, torch.tensor([0])).item() == pytest.approx(0.5 * math.log(4) + 0.5 * P_FROM_Q)


def test_gkd_is_student_to_teacher_and_teaches_the_student_only_where_they_differ() -> None:
    student = Q.clone().requires_grad_()
    gkd_loss(student, P).backward()
    # d KL(q||p) / dz_i = q_i (ln(q_i / p_i) - KL): q_0 = 1/4, ln(q_0/p_0) = -ln 2
    assert student.grad is not None
    assert student.grad[0, 0].item() == pytest.approx(0.25 * (-math.log(2) - Q_FROM_P), abs=1e-6)
    assert gkd_loss(P, P).item() == 0


def test_augmentation_averages_losses_not_teachers() -> None:
    # the two teachers' mean distribution would be another: losses P->Q and P->P average to half
    assert gkd_loss(P, Q, P).item() == pytest.approx(P_FROM_Q / 2)


def test_router_feedback_adds_the_balance_of_every_layer() -> None:
    weights = torch.tensor([[0.75, 0.25, 0.0], [0.75, 0.25, 0.0]])
    decision = RoutingDecision(weights, weights)
    # importance (1.5, .5, 0): mean 2/3, variance (2.25 + .25) / 3 - 4/9 = 7/18, CV^2 = 7/8
    # load (2, 2, 0): mean 4/3, variance 8/3 - 16/9 = 8/9, CV^2 = 1/2
    expected = P_FROM_Q + 2 * 0.01 * (7 / 8 + 1 / 2)
    assert router_feedback_loss(P, Q, [decision, decision]).item() == pytest.approx(expected)
