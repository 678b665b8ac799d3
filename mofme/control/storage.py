"""Policies on disk: a few kilobytes of weights and a card."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from mofme.control.policy import SparseLinearPolicy
from mofme.core.model_card import ModelCard, load_card, load_state, save_model
from mofme.errors import ModelError
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
    card = load_card(folder)
    if card.net != NET:
        raise ModelError(f"{folder} holds a model of another kind: {card.net}")
    state = load_state(folder, card)
    try:
        low_A, high_A = (torch.tensor(card.arguments[name]) for name in _RANGE)
        observations = state["moe.router.score.weight"].shape[1] - 1
        policy = SparseLinearPolicy(observations, low_A, high_A, card.arguments["experts"])
        policy.load_state_dict(state | {"low_A": low_A, "high_A": high_A})
        return policy, str(card.arguments["environment"])
    except (KeyError, TypeError, RuntimeError) as error:
        raise ModelError(f"{folder} does not hold what its card says: {error}") from error


def shipped_policies(folder: Path = SHIPPED) -> dict[str, Path]:
    """The policies that ship with the project: environment -> folder."""
    return {path.parent.name: path.parent for path in sorted(folder.glob(f"*/{CARD_FILE}"))}
