"""What the robot has lived through, to learn from again and again."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import load_file, save
from torch import Tensor

from mofme.errors import ModelError
from mofme.files import atomic_file


@dataclass(frozen=True)
class Transitions:
    """T steps: observation (T, D), action (T, A), reward (T,), next observation (T, D), 1 where an episode ended."""

    x_TD: Tensor
    action_TA: Tensor
    reward_T: Tensor
    next_TD: Tensor
    ended_T: Tensor


class Replay:
    """The last `capacity` steps, in one array of float32 rows."""

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
