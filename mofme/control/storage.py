"""Policies on disk: a few kilobytes of weights and a card."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mofme.control.policy import SparseLinearPolicy
from mofme.core.weights import ModelCard, read_as, save_model
from mofme.files import CARD_FILE, WEIGHTS

NET = "sparse-linear-policy"
SHIPPED = WEIGHTS / "control"
_LICENCE = "Apache-2.0"
_RANGE = ("low_A", "high_A")


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
