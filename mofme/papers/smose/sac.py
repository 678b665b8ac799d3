"""Soft actor-critic (Haarnoja et al. 2018, arXiv 1812.05905) for a mixture of linear experts, in one file to read.

Two critics judge a state and an action; the lower judgement counts. The policy maximises it plus alpha times its own
entropy; the temperature alpha is learnt, so that the entropy stays near minus the number of actions. Learning rates and
delay are the paper's, the batch is half of its 256. Observations are standardised, so that positions of hundredths
teach as fast as speeds of many units; what is kept is a policy of raw observations that acts alike. Our reading: the
noise of the balance loss stays inside that loss, so the policy that learns is the policy that acts.
"""

import copy
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import load_file, save
from torch import Tensor, nn
from torch.nn import functional as F

from mofme.core.losses import importance_loss, load_loss
from mofme.core.routing import RoutingDecision
from mofme.errors import ModelError
from mofme.files import atomic_file
from mofme.papers.smose.policy import SparseLinearPolicy

BATCH = 128
_HIDDEN = 256
_DISCOUNT = 0.99
_TARGET_RATE = 0.005
_POLICY_RATE, _CRITIC_RATE = 3e-4, 1e-3
_POLICY_DELAY = 2
_CONSTANT = 1e-6  # an observation that varies less stays as it is


@dataclass(frozen=True)
class Transitions:
    """T steps: observation (T, D), action (T, A), reward (T,), next observation (T, D), 1 where an episode ended."""

    x_TD: Tensor
    action_TA: Tensor
    reward_T: Tensor
    next_TD: Tensor
    ended_T: Tensor


class Replay:
    """The replay memory: the last `capacity` steps of the robot, in float32 rows."""

    def __init__(self, capacity: int, observations: int, actions: int) -> None:
        self._widths = [observations, actions, 1, observations, 1]
        self._rows = np.zeros((capacity, sum(self._widths)), np.float32)
        self.steps = 0

    def __len__(self) -> int:
        return min(self.steps, len(self._rows))

    def add(self, x_D: np.ndarray, action_A: np.ndarray, reward: float, next_D: np.ndarray, ended: bool) -> None:
        """Remember one step; of a full memory the oldest is forgotten. An episode cut off by time has not ended."""
        self._rows[self.steps % len(self._rows)] = np.concatenate([x_D, action_A, [reward], next_D, [ended]])
        self.steps += 1

    def sample(self, batch: int, generator: np.random.Generator) -> Transitions:
        """`batch` steps drawn with replacement."""
        rows = torch.from_numpy(self._rows[generator.integers(len(self), size=batch)])
        x_TD, action_TA, reward_T1, next_TD, ended_T1 = rows.split(self._widths, dim=-1)
        return Transitions(x_TD, action_TA, reward_T1[:, 0], next_TD, ended_T1[:, 0])

    def observations(self, steps: int) -> Tensor:
        """The observations (steps, D) of the oldest steps remembered."""
        return torch.from_numpy(self._rows[:steps, : self._widths[0]])

    def save(self, path: Path) -> None:
        """Write what is remembered as safetensors; the file appears whole or not at all."""
        with atomic_file(path) as file:
            file.write(save({"rows": self._rows[: len(self)], "steps": np.array([self.steps])}))

    def load(self, path: Path) -> None:
        """Go on from a saved memory of the same capacity. Raises ModelError if it does not fit."""
        saved = load_file(path)
        rows = saved["rows"]
        if rows.shape[1] != self._rows.shape[1] or len(rows) > len(self._rows):
            raise ModelError(
                f"{path} was written for another environment or memory: delete it or choose another folder"
            )
        self._rows[: len(rows)] = rows
        self.steps = int(saved["steps"][0])


@dataclass(frozen=True)
class Standardisation:
    """Mean and standard deviation (D,) of observations."""

    mean_D: Tensor
    std_D: Tensor

    @classmethod
    def of(cls, x_TD: Tensor) -> "Standardisation":
        """Of T observations (T, D)."""
        std_D = x_TD.std(dim=0)
        return cls(x_TD.mean(dim=0), torch.where(std_D > _CONSTANT, std_D, 1.0))

    def __call__(self, x_TD: Tensor) -> Tensor:
        """Raw observations (T, D) -> standardised ones."""
        return (x_TD - self.mean_D) / self.std_D

    def batch(self, raw: Transitions) -> Transitions:
        """The same steps with standardised observations."""
        return replace(raw, x_TD=self(raw.x_TD), next_TD=self(raw.next_TD))

    def raw_policy(self, policy: SparseLinearPolicy) -> SparseLinearPolicy:
        """A policy of raw observations that acts like `policy` on standardised ones."""
        raw = copy.deepcopy(policy)
        with torch.no_grad():
            for weight in (raw.experts_EFD, raw.router_ED):
                weight[..., :-1] /= self.std_D
                weight[..., -1] -= weight[..., :-1] @ self.mean_D
        return raw


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
    """Policy, critics and the temperature of the entropy (its logarithm), and what optimises them."""

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
        """One update of the critics; every second time two of the policy, for the one that was left out as well."""
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
