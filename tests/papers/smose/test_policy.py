import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from mofme.papers.smose.policy import SparseLinearPolicy, load_policy, save_policy

LOW, HIGH = torch.tensor([-1.0, -2.0]), torch.tensor([1.0, 4.0])


def toy(experts: int = 3) -> SparseLinearPolicy:
    torch.manual_seed(0)
    return SparseLinearPolicy(observations=4, low_A=LOW, high_A=HIGH, num_experts=experts)


def by_hand(policy: SparseLinearPolicy, x_D: Tensor) -> tuple[list[float], list[float], int]:
    """Mean and log standard deviation before squashing, and the expert, by loops in double precision."""
    offset_D = [*x_D.tolist(), 1.0]
    logits = [sum(w * x for w, x in zip(row, offset_D, strict=True)) for row in policy.router_ED.tolist()]
    odds = [math.exp(logit) for logit in logits]
    expert = max(range(len(odds)), key=lambda e: odds[e])
    gate = odds[expert] / sum(odds)
    said = [
        gate * sum(w * x for w, x in zip(row, offset_D, strict=True)) for row in policy.experts_EFD[expert].tolist()
    ]
    return said[:2], [-5 + 3.5 * (math.tanh(value) + 1) for value in said[2:]], expert


def test_the_most_probable_expert_acts_scaled_by_its_probability() -> None:
    policy, x_TD = toy(), torch.randn(20, 4)
    for x_D in x_TD:
        mean, _, expert = by_hand(policy, x_D)
        # The middle of the second range is 1, its half 3.
        expected = [math.tanh(mean[0]), 1 + 3 * math.tanh(mean[1])]
        assert policy(x_D[None])[0].tolist() == pytest.approx(expected, abs=1e-5)
        assert policy.route(x_D[None]).weights_TE[0].nonzero().item() == expert


def test_the_density_of_what_is_drawn_is_that_of_a_squashed_normal() -> None:
    policy, x_D = toy(), torch.randn(4)
    sampled = policy.sample(x_D.expand(50, 4))
    mean, log_std, _ = by_hand(policy, x_D)
    for action_A, found in zip(sampled.action_TA.double(), sampled.log_probability_T, strict=True):
        expected = 0.0
        for a, (middle, reach) in enumerate([(0.0, 1.0), (1.0, 3.0)]):
            squashed = (action_A[a].item() - middle) / reach
            deviation = (math.atanh(squashed) - mean[a]) / math.exp(log_std[a])
            expected += -(deviation**2) / 2 - log_std[a] - math.log(2 * math.pi) / 2
            expected -= math.log(reach * (1 - squashed**2))
        assert found.item() == pytest.approx(expected, abs=0.02)


def test_one_expert_is_a_plain_linear_policy() -> None:
    policy, x_TD = toy(experts=1), torch.randn(6, 4)
    mean_TA = torch.cat([x_TD, torch.ones(6, 1)], dim=1) @ policy.experts_EFD[0, :2].T
    torch.testing.assert_close(policy(x_TD), torch.tensor([0.0, 1.0]) + torch.tensor([1.0, 3.0]) * mean_TA.tanh())


def test_a_policy_comes_back_from_disk(tmp_path: Path) -> None:
    policy, x_TD = toy(), torch.randn(30, 4)
    card = save_policy(tmp_path, policy, "Hopper", {"steps": 7}, {})
    loaded, environment = load_policy(tmp_path)
    assert (environment, card.parameters) == ("Hopper", 3 * 5 + 3 * 4 * 5)
    torch.testing.assert_close(loaded(x_TD), policy(x_TD), atol=5e-3, rtol=0)
