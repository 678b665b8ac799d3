"""Distillation losses against numbers worked out by hand, and the experts that knowledge augmentation draws."""

import math

import pytest
import torch

from mofme.core.losses.distillation import augmentation_loss, gkd_loss, kd_loss, kl_divergence, router_feedback_loss
from mofme.core.routing import RoutingDecision
from mofme.core.sampled_routing import sample_experts

# p = (1/2, 1/2), q = (1/4, 3/4):  KL(p || q) = ln 2 / 2 + ln(2/3) / 2 = ln(4/3) / 2
#                                  KL(q || p) = ln(1/2) / 4 + 3 ln(3/2) / 4
P, Q = torch.tensor([[0.0, 0.0]]), torch.tensor([[0.0, math.log(3)]])
P_FROM_Q = math.log(4 / 3) / 2
Q_FROM_P = -math.log(2) / 4 + 3 * math.log(1.5) / 4


def test_kl_divergence_is_directed() -> None:
    assert kl_divergence(P, Q).item() == pytest.approx(P_FROM_Q)
    assert kl_divergence(Q, P).item() == pytest.approx(Q_FROM_P)


def test_only_marked_positions_count() -> None:
    student, teacher = torch.cat([P, P]), torch.cat([Q, P])
    assert kl_divergence(student, teacher).item() == pytest.approx(P_FROM_Q / 2)
    assert kl_divergence(student, teacher, torch.tensor([True, False])).item() == pytest.approx(P_FROM_Q)
    assert kl_divergence(student, teacher, torch.tensor([False, False])).item() == 0


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
    assert augmentation_loss(P, [Q, P]).item() == pytest.approx(P_FROM_Q / 2)


def test_router_feedback_adds_the_balance_of_every_layer() -> None:
    weights = torch.tensor([[0.75, 0.25, 0.0], [0.75, 0.25, 0.0]])
    decision = RoutingDecision(weights, weights)
    # importance (1.5, .5, 0): mean 2/3, variance (2.25 + .25) / 3 - 4/9 = 7/18, CV^2 = 7/8
    # load (2, 2, 0): mean 4/3, variance 8/3 - 16/9 = 8/9, CV^2 = 1/2
    expected = P_FROM_Q + 2 * 0.01 * (7 / 8 + 1 / 2)
    assert router_feedback_loss(P, Q, [decision, decision]).item() == pytest.approx(expected)


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
