import torch

from mofme.control.policy import SparseLinearPolicy
from mofme.control.replay import Transitions
from mofme.control.standardisation import Standardisation


def test_mean_zero_and_spread_one() -> None:
    x_TD = torch.tensor([[1.0, 5.0], [3.0, 5.0], [5.0, 5.0]])
    standard = Standardisation.of(x_TD)
    # Mean 3, deviations -2, 0, 2: variance (4 + 0 + 4) / 2 = 4. What never varies is only moved to zero.
    torch.testing.assert_close(standard(x_TD), torch.tensor([[-1.0, 0.0], [0.0, 0.0], [1.0, 0.0]]))


def test_a_batch_keeps_all_but_its_observations() -> None:
    standard = Standardisation(torch.tensor([1.0]), torch.tensor([2.0]))
    raw = Transitions(*(torch.tensor([[5.0]]) for _ in range(5)))
    batch = standard.batch(raw)
    assert batch.x_TD.item() == batch.next_TD.item() == 2
    assert batch.action_TA.item() == batch.reward_T.item() == batch.ended_T.item() == 5


def test_the_policy_of_raw_observations_acts_like_that_of_standardised_ones() -> None:
    torch.manual_seed(0)
    policy = SparseLinearPolicy(5, -torch.ones(2), torch.ones(2), num_experts=4).double()
    x_TD = torch.randn(200, 5, dtype=torch.float64) * torch.logspace(-2, 2, 5, dtype=torch.float64) + 3
    standard = Standardisation.of(x_TD)
    raw = standard.raw_policy(policy)
    torch.testing.assert_close(raw(x_TD), policy(standard(x_TD)))
    torch.testing.assert_close(raw.route(x_TD).logits_TE, policy.route(standard(x_TD)).logits_TE)
    assert not torch.allclose(policy(x_TD), policy(standard(x_TD)))  # nor has `policy` itself been changed
