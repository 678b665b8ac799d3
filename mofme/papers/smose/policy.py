"""The policy: a linear router picks one linear expert for each observation (SMOSE, arXiv 2412.13053, section 4).

Axis names: T observations in a batch, D numbers in one, A actions, E experts.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from mofme.core.experts import LinearExperts
from mofme.core.moe import MoE
from mofme.core.routers import LinearRouter
from mofme.core.routing import RoutingDecision
from mofme.core.weights import ModelCard, read_as, save_model
from mofme.files import CARD_FILE, WEIGHTS
from mofme.papers.smose.environments import Act, Evaluation, drive

NET = "sparse-linear-policy"
SHIPPED = WEIGHTS / "control"
_LICENCE = "Apache-2.0"
_RANGE = ("low_A", "high_A")
_LOWEST_LOG_STD, _HIGHEST_LOG_STD = -5.0, 2.0


@dataclass(frozen=True)
class Sampled:
    """An action for each observation (T, A) in the robot's range, its log-probability (T,), and who chose it."""

    action_TA: Tensor
    log_probability_T: Tensor
    decision: RoutingDecision


class SparseLinearPolicy(nn.Module):
    """Top-1 mixture of E linear experts; each gives the mean and the log standard deviation of every action.

    Both are scaled by the chosen expert's probability, and log_std = -5 + 3.5 (tanh(.) + 1). A constant 1 is put after
    the observation, so that linear maps have an offset. With one expert it is a plain linear policy, the control.
    """

    low_A: Tensor
    high_A: Tensor

    def __init__(self, observations: int, low_A: Tensor, high_A: Tensor, num_experts: int = 8) -> None:
        super().__init__()
        router = LinearRouter(observations + 1, num_experts, top_k=1)
        self.moe = MoE(router, LinearExperts(observations + 1, 2 * len(low_A), num_experts))
        self.register_buffer("low_A", low_A)
        self.register_buffer("high_A", high_A)

    @property
    def num_experts(self) -> int:
        return self.moe.experts.num_experts

    @property
    def experts_EFD(self) -> Tensor:
        """Weights of the experts, (E, 2 A, D + 1): means first, then log standard deviations; the offset comes last."""
        return cast(LinearExperts, self.moe.experts).weight_EFD

    @property
    def router_ED(self) -> Tensor:
        """Weights of the router, (E, D + 1); the offset comes last."""
        return cast(LinearRouter, self.moe.router).score.weight

    def forward(self, x_TD: Tensor) -> Tensor:
        """The mean action (T, A), in the robot's range: what a trained policy does."""
        mean_TA, _ = self.moe(_with_offset(x_TD)).chunk(2, dim=-1)
        return self._in_range(mean_TA.tanh())

    def route(self, x_TD: Tensor) -> RoutingDecision:
        """Who would act, for each observation (T, D)."""
        decision: RoutingDecision = self.moe.router(_with_offset(x_TD))
        return decision

    def sample(self, x_TD: Tensor) -> Sampled:
        """Draw actions from the normal distribution, squashed by tanh (Haarnoja et al. 2018, Appendix C)."""
        offset_TD = _with_offset(x_TD)
        decision: RoutingDecision = self.moe.router(offset_TD)
        mean_TA, spread_TA = self.moe.experts(offset_TD, decision.weights_TE).chunk(2, dim=-1)
        half = (_HIGHEST_LOG_STD - _LOWEST_LOG_STD) / 2
        log_std_TA = _LOWEST_LOG_STD + half * (spread_TA.tanh() + 1)
        normal = torch.distributions.Normal(mean_TA, log_std_TA.exp(), validate_args=False)
        drawn_TA = normal.rsample()
        squashed_TA = drawn_TA.tanh()
        reach_A = (self.high_A - self.low_A) / 2
        density_TA = normal.log_prob(drawn_TA) - (reach_A * (1 - squashed_TA.square()) + 1e-6).log()
        return Sampled(self._in_range(squashed_TA), density_TA.sum(dim=-1), decision)

    def _in_range(self, squashed_TA: Tensor) -> Tensor:
        return (self.high_A + self.low_A) / 2 + (self.high_A - self.low_A) / 2 * squashed_TA


def _with_offset(x_TD: Tensor) -> Tensor:
    return torch.cat([x_TD, torch.ones_like(x_TD[:, :1])], dim=-1)


def evaluate(policy: SparseLinearPolicy, environment: str, episodes: int = 20, seed: int = 0) -> Evaluation:
    """Let the policy's mean action act; episodes begin where `seed`, `seed` + 1, ... say."""
    return drive(acting(policy), environment, policy.num_experts, episodes, seed)


def acting(policy: SparseLinearPolicy) -> Act:
    """The policy as a plain function of one observation."""

    def act(x_D: np.ndarray) -> tuple[np.ndarray, int]:
        with torch.no_grad():
            x_1D = torch.from_numpy(x_D.astype(np.float32)).unsqueeze(0)
            return policy(x_1D)[0].numpy(), int(policy.route(x_1D).logits_TE.argmax())

    return act


def save_policy(
    folder: Path, policy: SparseLinearPolicy, environment: str, training: Mapping[str, Any], metrics: Mapping[str, Any]
) -> ModelCard:
    """Write a policy in half precision; what it does changes less by that than by one step of learning."""
    arguments = {
        "environment": environment,
        "experts": policy.num_experts,
        **{name: getattr(policy, name).tolist() for name in _RANGE},
    }
    state = {name: value for name, value in policy.state_dict().items() if name not in _RANGE}
    return save_model(folder, ModelCard(folder.name, NET, arguments, _LICENCE, training, metrics), state)


def load_policy(folder: Path) -> tuple[SparseLinearPolicy, str]:
    """A policy and the environment it was trained in. Raises ModelError naming the file that is not what it should."""

    def filled(card: ModelCard, state: dict[str, Tensor]) -> tuple[SparseLinearPolicy, str]:
        ranges = {name: torch.tensor(card.arguments[name]) for name in _RANGE}
        observations = state["moe.router.score.weight"].shape[1] - 1
        policy = SparseLinearPolicy(observations, **ranges, num_experts=card.arguments["experts"])
        policy.load_state_dict(state | ranges)
        return policy, str(card.arguments["environment"])

    return read_as(folder, NET, filled)


def shipped_policies(folder: Path = SHIPPED) -> dict[str, Path]:
    """The policies that ship with the project: environment -> folder."""
    return {path.parent.name: path.parent for path in sorted(folder.glob(f"*/{CARD_FILE}"))}
