import math
from pathlib import Path

import numpy as np
import pytest
import torch

from mofme.core.routing import RoutingDecision
from mofme.errors import ModelError
from mofme.papers.smose.policy import Sampled, SparseLinearPolicy
from mofme.papers.smose.sac import Critics, Learner, Replay, Standardisation, Transitions, balance_loss, critic_loss


def learner(experts: int = 4, balance: float = 0.0) -> Learner:
    torch.manual_seed(0)
    policy = SparseLinearPolicy(3, torch.tensor([-1.0]), torch.tensor([1.0]), experts)
    return Learner(policy, Critics(3, 1), Critics(3, 1), balance)


def batch(size: int = 64, ended: float = 0.0) -> Transitions:
    generator = torch.Generator().manual_seed(1)
    x_TD, next_TD = torch.randn(2, size, 3, generator=generator)
    action_TA = torch.rand(size, 1, generator=generator) * 2 - 1
    return Transitions(x_TD, action_TA, action_TA[:, 0], next_TD, torch.full((size,), ended))


def test_both_critics_are_the_networks_that_they_say() -> None:
    critics = Critics(3, 2)
    x_TD, action_TA = torch.randn(5, 3), torch.randn(5, 2)
    for one in range(2):
        y = torch.cat([x_TD, action_TA], dim=1)
        for layer in range(3):
            y = y @ critics.weights[layer][one] + critics.offsets[layer][one]
            y = y.relu() if layer < 2 else y
        torch.testing.assert_close(critics(x_TD, action_TA)[one], y[:, 0])


def test_the_critics_goal_is_the_lower_target_less_the_price_of_entropy(monkeypatch: pytest.MonkeyPatch) -> None:
    # r = 1, targets judge the next state 5 and 3, log pi = -2, alpha = e^0 = 1: the goal is 1 + .99 (3 + 2) = 5.95.
    # Critics that say 5.95 and 4.95 have squared errors 0 and 1, which sum to 1. Where the episode ended the goal is 1:
    # 4.95^2 + 3.95^2 = 40.105.
    taught = learner()
    monkeypatch.setattr(
        taught.policy, "sample", lambda x: Sampled(torch.zeros(1, 1), torch.tensor([-2.0]), RoutingDecision(x, x))
    )
    monkeypatch.setattr(taught.targets, "forward", lambda *_: torch.tensor([[5.0], [3.0]]))
    monkeypatch.setattr(taught.critics, "forward", lambda *_: torch.tensor([[5.95], [4.95]]))
    for ended, expected in [(0.0, 1.0), (1.0, 40.105)]:
        one = Transitions(torch.zeros(1, 3), torch.zeros(1, 1), torch.ones(1), torch.zeros(1, 3), torch.tensor([ended]))
        assert critic_loss(taught, one).item() == pytest.approx(expected, rel=1e-5)


def test_targets_follow_slowly_and_the_policy_learns_every_second_time() -> None:
    taught = learner()
    before = [parameter.clone() for parameter in taught.policy.parameters()]
    old = taught.targets.weights[0].clone()
    taught.learn(batch())
    assert all(torch.equal(a, b) for a, b in zip(before, taught.policy.parameters(), strict=True))
    torch.testing.assert_close(taught.targets.weights[0], old.lerp(taught.critics.weights[0], 0.005))
    taught.learn(batch())
    assert not any(torch.equal(a, b) for a, b in zip(before, taught.policy.parameters(), strict=True))
    assert all(parameter.requires_grad for parameter in taught.critics.parameters())


def test_it_learns_the_action_that_pays() -> None:
    # Every step ends an episode and pays its action a. At the first price of entropy, 1, the best density is as e^a,
    # whose mean is coth 1 - 1 = .31; as the price falls, the mean rises to the highest action.
    taught, data = learner(), batch(256, ended=1.0)
    before = taught.policy(data.x_TD).mean().item()
    taught.optimizers["policy"].param_groups[0]["lr"] = 1e-2  # a test has no time for the paper's rate
    for _ in range(150):
        taught.learn(data)
    assert before < 0.25 < taught.policy(data.x_TD).mean().item()
    assert taught.log_alpha.item() < 0 and math.isfinite(taught.log_alpha.item())


def test_balance_loss_is_nothing_for_even_use_and_large_for_a_collapse() -> None:
    torch.manual_seed(0)
    even = torch.eye(4).repeat(100, 1) * 50
    collapsed = torch.eye(4)[:1].repeat(400, 1) * 50
    # The chances of 100 draws differ by chance: variance 1/12 over 100 draws, over the mean's square 1/4, halved: .002.
    assert balance_loss(RoutingDecision(even, even)).item() == pytest.approx(0, abs=0.01)
    # All importance and load on one of four: CV^2 = (4 - 1) = 3 for both.
    assert balance_loss(RoutingDecision(collapsed, collapsed)).item() == pytest.approx(3, abs=1e-3)
    alone = torch.zeros(5, 1)
    assert balance_loss(RoutingDecision(alone, alone)).item() == 0


def filled(steps: int, capacity: int = 5) -> Replay:
    memory = Replay(capacity, observations=2, actions=1)
    for step in range(steps):
        memory.add(np.full(2, step), np.array([step / 10]), -step, np.full(2, step + 1), step % 2 == 1)
    return memory


def test_what_belongs_together_stays_together() -> None:
    batch = filled(4).sample(50, np.random.default_rng(0))
    step_T = batch.x_TD[:, 0].numpy()
    np.testing.assert_allclose(batch.action_TA[:, 0], step_T / 10, rtol=1e-6)
    np.testing.assert_allclose(batch.reward_T, -step_T)
    np.testing.assert_allclose(batch.next_TD, np.repeat(step_T[:, None] + 1, 2, axis=1))
    np.testing.assert_allclose(batch.ended_T, step_T % 2)


def test_a_memory_goes_on_where_it_was_saved(tmp_path: Path) -> None:
    memory, other = filled(7), Replay(5, 2, 1)
    assert len(memory) == 5
    assert set(memory.sample(200, np.random.default_rng(0)).x_TD[:, 0].tolist()) == {2, 3, 4, 5, 6}  # the latest
    memory.save(tmp_path / "memory.safetensors")
    other.load(tmp_path / "memory.safetensors")
    for one in (memory, other):
        one.add(np.full(2, 7), np.zeros(1), 0, np.full(2, 8), False)
    a, b = (one.sample(100, np.random.default_rng(0)) for one in (memory, other))
    np.testing.assert_array_equal(a.x_TD, b.x_TD)
    with pytest.raises(ModelError, match="another environment"):
        Replay(5, 3, 1).load(tmp_path / "memory.safetensors")


def test_mean_zero_and_spread_one() -> None:
    x_TD = torch.tensor([[1.0, 5.0], [3.0, 5.0], [5.0, 5.0]])
    standard = Standardisation.of(x_TD)
    # Mean 3, deviations -2, 0, 2: variance (4 + 0 + 4) / 2 = 4. What never varies is only moved to zero.
    torch.testing.assert_close(standard(x_TD), torch.tensor([[-1.0, 0.0], [0.0, 0.0], [1.0, 0.0]]))


def test_the_policy_of_raw_observations_acts_like_that_of_standardised_ones() -> None:
    torch.manual_seed(0)
    policy = SparseLinearPolicy(5, -torch.ones(2), torch.ones(2), num_experts=4).double()
    x_TD = torch.randn(200, 5, dtype=torch.float64) * torch.logspace(-2, 2, 5, dtype=torch.float64) + 3
    standard = Standardisation.of(x_TD)
    raw = standard.raw_policy(policy)
    torch.testing.assert_close(raw(x_TD), policy(standard(x_TD)))
    torch.testing.assert_close(raw.route(x_TD).logits_TE, policy.route(standard(x_TD)).logits_TE)
    assert not torch.allclose(policy(x_TD), policy(standard(x_TD)))  # nor has `policy` itself been changed


def test_half_precision_hardly_changes_a_judgement() -> None:
    torch.manual_seed(0)
    exact, half = Critics(3, 2), Critics(3, 2, half=True)
    half.load_state_dict(exact.state_dict())
    x_TD, action_TA = torch.randn(50, 3), torch.randn(50, 2)
    torch.testing.assert_close(half(x_TD, action_TA), exact(x_TD, action_TA), atol=0.01, rtol=0)


def test_a_batch_keeps_all_but_its_observations() -> None:
    standard = Standardisation(torch.tensor([1.0]), torch.tensor([2.0]))
    raw = Transitions(*(torch.tensor([[5.0]]) for _ in range(5)))
    batch = standard.batch(raw)
    assert batch.x_TD.item() == batch.next_TD.item() == 2
    assert batch.action_TA.item() == batch.reward_T.item() == batch.ended_T.item() == 5
