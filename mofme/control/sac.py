"""Soft actor-critic (Haarnoja et al. 2018, arXiv 1812.05905) for a mixture of linear experts, in one file to read.

Two critics judge a state and an action; the lower judgement counts. The policy maximises it plus its own entropy,
whose price alpha is learnt so that the entropy stays near minus the number of actions. SMOSE adds a loss of balance
that keeps all experts in use. Learning rates and delay are the paper's; the batch is half
of the paper's 256, for twice as many steps in the same time, and observations are standardised.

Our reading: the noise of the balance loss (standard deviation 1/E) stays inside that loss, so the policy that learns is
the policy that acts. Hidden layers of the critics are bfloat16 where the processor does so faster.
"""

from dataclasses import dataclass, field, replace
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mofme.control.policy import SparseLinearPolicy
from mofme.control.replay import Transitions
from mofme.core.losses import importance_loss, load_loss
from mofme.core.routing import RoutingDecision

BATCH = 128
_HIDDEN = 256
_DISCOUNT = 0.99
_TARGET_RATE = 0.005
_POLICY_RATE, _CRITIC_RATE = 3e-4, 1e-3
_POLICY_DELAY = 2


class Critics(nn.Module):
    """Two networks of two hidden layers side by side: observation and action -> judgement, (2, T)."""

    def __init__(self, observations: int, actions: int, half: bool = False) -> None:
        super().__init__()
        sizes = [observations + actions, _HIDDEN, _HIDDEN, 1]
        pairs = list(pairwise(sizes))
        self.weights = nn.ParameterList(_uniform(2, fan_in, fan_out, fan_in=fan_in) for fan_in, fan_out in pairs)
        self.offsets = nn.ParameterList(_uniform(2, 1, fan_out, fan_in=fan_in) for fan_in, fan_out in pairs)
        self.half_precision = half

    def forward(self, x_TD: Tensor, action_TA: Tensor) -> Tensor:
        y = torch.cat([x_TD, action_TA], dim=-1).expand(2, -1, -1)
        hidden = torch.bfloat16 if self.half_precision else torch.float32
        y = torch.baddbmm(self.offsets[0], y, self.weights[0]).to(hidden).relu()
        y = torch.baddbmm(self.offsets[1].to(hidden), y, self.weights[1].to(hidden)).relu()
        # A product with one column is slower as a matrix product.
        return (y.float() * self.weights[2].mT).sum(dim=-1) + self.offsets[2].squeeze(-1)


def _uniform(*shape: int, fan_in: int) -> nn.Parameter:
    bound = fan_in**-0.5  # nn.Linear's own initialisation
    return nn.Parameter(torch.empty(shape).uniform_(-bound, bound))


@dataclass
class Learner:
    """Policy, critics and the price of entropy, and what optimises them."""

    policy: SparseLinearPolicy
    critics: Critics
    targets: Critics
    balance: float
    log_alpha: Tensor = field(default_factory=lambda: torch.zeros(1, requires_grad=True))

    def __post_init__(self) -> None:
        self.targets.load_state_dict(self.critics.state_dict())
        self.targets.requires_grad_(False)
        self.optimizers = {
            "policy": torch.optim.Adam(self.policy.parameters(), lr=_POLICY_RATE, fused=True),
            "critics": torch.optim.Adam(self.critics.parameters(), lr=_CRITIC_RATE, fused=True),
            "alpha": torch.optim.Adam([self.log_alpha], lr=_CRITIC_RATE),
        }
        self._updates = 0

    def learn(self, batch: Transitions) -> None:
        """One update of the critics; every second time as many of the policy as have been left out."""
        self._step("critics", critic_loss(self, batch))
        self._updates += 1
        if self._updates % _POLICY_DELAY == 0:
            for _ in range(_POLICY_DELAY):
                self._improve(batch)
        with torch.no_grad():
            for target, critic in zip(self.targets.parameters(), self.critics.parameters(), strict=True):
                target.lerp_(critic, _TARGET_RATE)

    def _improve(self, batch: Transitions) -> None:
        self.critics.requires_grad_(False)  # they only pass the gradient on to the action
        sampled = self.policy.sample(batch.x_TD)
        judgement_T = self.critics(batch.x_TD, sampled.action_TA).amin(dim=0)
        alpha = self.log_alpha.detach().exp()
        loss = (alpha * sampled.log_probability_T - judgement_T).mean()
        self._step("policy", loss + self.balance * balance_loss(sampled.decision))
        self.critics.requires_grad_(True)
        surplus = sampled.log_probability_T.detach().mean() - batch.action_TA.shape[-1]
        self._step("alpha", -(self.log_alpha.exp() * surplus).sum())

    def _step(self, name: str, loss: Tensor) -> None:
        optimizer = self.optimizers[name]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def critic_loss(learner: Learner, batch: Transitions) -> Tensor:
    """Squared errors of both critics, from r + 0.99 (min Q'(s', a') - alpha log pi(a' | s')) (Eq. 5 and 6)."""
    with torch.no_grad():
        ahead = learner.policy.sample(batch.next_TD)
        value_T = learner.targets(batch.next_TD, ahead.action_TA).amin(dim=0)
        value_T -= learner.log_alpha.exp() * ahead.log_probability_T
        goal_T = batch.reward_T + _DISCOUNT * (1 - batch.ended_T) * value_T
    judged_2T: Tensor = learner.critics(batch.x_TD, batch.action_TA)
    return F.mse_loss(judged_2T, goal_T.expand_as(judged_2T)) * 2


def balance_loss(decision: RoutingDecision) -> Tensor:
    """0.5 CV^2(importance) + 0.5 CV^2(load), with noise of standard deviation 1/E."""
    experts = decision.logits_TE.shape[-1]
    if experts == 1:
        return decision.logits_TE.new_zeros(())
    # The importance counts probabilities of all experts; the decision keeps the chosen one's only.
    soft = replace(decision, weights_TE=decision.probabilities_TE)
    return (importance_loss(soft) + load_loss(decision, k=1, noise=1 / experts)) / 2
