"""Cosine k nearest neighbours: the mean of what the models made of the most similar prompts (CARROT, section 3)."""

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mofme.language.llm_routing.estimators.estimator import Estimator, State, as_array, as_tensor, error, folds
from mofme.language.llm_routing.estimators.inputs import Inputs
from mofme.language.llm_routing.table import FloatArray, IntArray

GRID = (4, 8, 16, 32, 64, 96, 128, 192, 256)
_CHUNK = 512


class NearestNeighbours(Estimator):
    """k is the one of GRID with the least error in 5-fold cross-validation, if it is not given."""

    known_ND: NDArray[np.float32]
    target_NM: FloatArray
    k: int

    def __init__(self, k: int | None = None, seed: int = 0) -> None:
        self._wanted = k
        self._seed = seed

    def fit(self, inputs: Inputs, target_NM: FloatArray) -> None:
        self.k = min(self._wanted or self._best_k(inputs.embeddings_ND, target_NM), len(inputs))
        self.known_ND = inputs.embeddings_ND.astype(np.float32)
        self.target_NM = target_NM

    def predict(self, inputs: Inputs) -> FloatArray:
        means = [self.target_NM[rows].mean(1) for rows, _ in self._searched(inputs.embeddings_ND, self.k)]
        return np.concatenate(means) if means else np.zeros((0, self.target_NM.shape[1]))

    def nearest(self, embedding_D: FloatArray, count: int) -> tuple[IntArray, FloatArray]:
        """Rows and cosine similarities of the `count` nearest known prompts, nearest first."""
        rows, similarity = next(self._searched(embedding_D[None], min(count, len(self.known_ND))))
        order = np.argsort(-similarity[0], kind="stable")
        return rows[0][order], similarity[0][order].astype(np.float64)

    def untrained(self) -> "NearestNeighbours":
        return NearestNeighbours(self.k, self._seed)

    def state(self) -> dict[str, Tensor]:
        return {
            "known": torch.from_numpy(self.known_ND),
            "target": as_tensor(self.target_NM),
            "k": torch.tensor(self.k),
        }

    def load(self, state: State) -> None:
        self.known_ND = state["known"].float().numpy()
        self.target_NM = as_array(state["target"])
        self.k = int(state["k"])

    def _searched(self, embeddings_ND: FloatArray, k: int) -> Iterator[tuple[IntArray, NDArray[np.float32]]]:
        """By chunks: the rows (n, k) of the nearest, in any order, and their similarities."""
        for start in range(0, len(embeddings_ND), _CHUNK):
            similarity = embeddings_ND[start : start + _CHUNK].astype(np.float32) @ self.known_ND.T
            rows = np.argpartition(similarity, similarity.shape[1] - k, axis=1)[:, -k:]
            yield rows, np.take_along_axis(similarity, rows, 1)

    def _best_k(self, embeddings_ND: FloatArray, target_NM: FloatArray) -> int:
        errors: dict[int, list[float]] = {}
        for train, test in folds(len(embeddings_ND), self._seed):
            known_ND, known_NM = embeddings_ND[train].astype(np.float32), target_NM[train]
            grid = [k for k in GRID if k <= len(train)] or [len(train)]
            self.known_ND = known_ND
            ordered = []
            for rows, similarity in self._searched(embeddings_ND[test], grid[-1]):
                ordered.append(np.take_along_axis(rows, np.argsort(-similarity, 1, kind="stable"), 1))
            nearest = np.concatenate(ordered)
            total_NM, start = np.zeros((len(test), target_NM.shape[1])), 0
            for k in grid:
                total_NM = total_NM + known_NM[nearest[:, start:k]].sum(1)
                errors.setdefault(k, []).append(error(total_NM / k, target_NM[test]))
                start = k
        return min(errors, key=lambda k: float(np.mean(errors[k])))
