"""What every estimator does, and how its settings are chosen."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping

import numpy as np
import torch
from torch import Tensor

from mofme.language.llm_routing.estimators.inputs import Inputs
from mofme.language.llm_routing.table import FloatArray, IntArray

FOLDS = 5
State = Mapping[str, Tensor]


class Estimator(ABC):
    """Learns M numbers of each prompt. Its state is tensors only; loading it back gives the same predictions."""

    @abstractmethod
    def fit(self, inputs: Inputs, target_NM: FloatArray) -> None: ...

    @abstractmethod
    def predict(self, inputs: Inputs) -> FloatArray:
        """Estimates (N, M), not clipped to any range."""

    @abstractmethod
    def untrained(self) -> "Estimator":
        """Another one with the settings that `fit` chose for this one."""

    @abstractmethod
    def state(self) -> dict[str, Tensor]: ...

    @abstractmethod
    def load(self, state: State) -> None: ...


def folds(count: int, seed: int) -> Iterator[tuple[IntArray, IntArray]]:
    """Rows to learn from and rows to judge by, five times; every row is judged once."""
    fold_N = np.random.default_rng(seed).permutation(count) % FOLDS
    for fold in range(FOLDS):
        yield np.flatnonzero(fold_N != fold), np.flatnonzero(fold_N == fold)


def contrasts(values_NM: FloatArray) -> FloatArray:
    """Each model against the mean of all models on the prompt: the part of an estimate that decides the choice."""
    return values_NM - values_NM.mean(1, keepdims=True) if values_NM.shape[1] > 1 else values_NM


def error(estimate_NM: FloatArray, target_NM: FloatArray) -> float:
    """Mean squared error of the contrasts; it is what settings are chosen by."""
    return float(((contrasts(estimate_NM) - contrasts(target_NM)) ** 2).mean())


def as_tensor(values: FloatArray) -> Tensor:
    return torch.from_numpy(np.array(values))


def as_array(tensor: Tensor) -> FloatArray:
    return tensor.double().numpy()
