"""Cosine k nearest neighbours: the mean of what the models made of the most similar prompts (CARROT, section 3)."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mofme.language.llm_routing.estimators.estimator import FOLDS, Estimator, State, as_array, as_tensor, error, folds
from mofme.language.llm_routing.estimators.inputs import Inputs
from mofme.language.llm_routing.table import FloatArray, IntArray

GRID = (4, 8, 16, 32, 64, 96, 128, 192, 256)
_CHUNK = 512


class NearestNeighbours(Estimator):
    """k is the one of GRID with the least error in 5-fold cross-validation, if it is not given."""

    known_DN: NDArray[np.float32]  # this way round, so that one prompt is compared with all in half the time
    target_NM: FloatArray
    k: int

    def __init__(self, k: int | None = None, seed: int = 0) -> None:
        self._wanted = k
        self._seed = seed
        self._last: tuple[FloatArray, IntArray, NDArray[np.float32]] | None = None

    def fit(self, inputs: Inputs, target_NM: FloatArray) -> None:
        self.k = min(self._wanted or self._best_k(inputs.embeddings_ND, target_NM), len(inputs))
        self.known_DN = _columns(inputs.embeddings_ND)
        self.target_NM = target_NM

    def predict(self, inputs: Inputs) -> FloatArray:
        estimate_NM = np.zeros((len(inputs), self.target_NM.shape[1]))
        for start in range(0, len(inputs), _CHUNK):
            chunk_ND = inputs.embeddings_ND[start : start + _CHUNK]
            rows, similarity = _search(self.known_DN, chunk_ND, self.k)
            estimate_NM[start : start + _CHUNK] = self.target_NM[rows].mean(1)
            self._last = inputs.embeddings_ND, rows, similarity
        return estimate_NM

    def nearest(self, embedding_1D: FloatArray, count: int) -> tuple[IntArray, FloatArray]:
        """Rows and cosine similarities of the `count` nearest known prompts, nearest first.

        Of a prompt that was just estimated they are known already.
        """
        last = self._last
        if last is not None and last[0] is embedding_1D and count <= self.k:
            _, rows, similarity = last
        else:
            rows, similarity = _search(self.known_DN, embedding_1D, min(count, self.known_DN.shape[1]))
        order = np.argsort(-similarity[0], kind="stable")[:count]
        return rows[0][order], similarity[0][order].astype(np.float64)

    def untrained(self) -> "NearestNeighbours":
        return NearestNeighbours(self.k, self._seed)

    def state(self) -> dict[str, Tensor]:
        return {
            "known": torch.from_numpy(self.known_DN.T.copy()),
            "target": as_tensor(self.target_NM),
            "k": torch.tensor(self.k),
        }

    def load(self, state: State) -> None:
        self.known_DN = _columns(as_array(state["known"]))
        self.target_NM = as_array(state["target"])
        self.k = int(state["k"])

    def _best_k(self, embeddings_ND: FloatArray, target_NM: FloatArray) -> int:
        errors: dict[int, float] = {}
        for train, test in folds(len(embeddings_ND), self._seed):
            known_DN, known_NM = _columns(embeddings_ND[train]), target_NM[train]
            grid = [k for k in GRID if k <= len(train)] or [len(train)]
            for start in range(0, len(test), _CHUNK):
                chunk = test[start : start + _CHUNK]
                rows, similarity = _search(known_DN, embeddings_ND[chunk], grid[-1])
                nearest = np.take_along_axis(rows, np.argsort(-similarity, 1, kind="stable"), 1)
                total_NM, fewer = np.zeros((len(chunk), target_NM.shape[1])), 0
                for k in grid:
                    total_NM = total_NM + known_NM[nearest[:, fewer:k]].sum(1)
                    errors[k] = errors.get(k, 0.0) + len(chunk) * error(total_NM / k, target_NM[chunk])
                    fewer = k
        # A k that the smaller folds are too small for was judged on fewer prompts.
        return min((k for k in errors if k <= len(embeddings_ND) * (FOLDS - 1) // FOLDS), key=lambda k: errors[k])


def _columns(embeddings_ND: FloatArray) -> NDArray[np.float32]:
    return np.ascontiguousarray(embeddings_ND.T, dtype=np.float32)


def _search(known_DN: NDArray[np.float32], embeddings_nD: FloatArray, k: int) -> tuple[IntArray, NDArray[np.float32]]:
    """Rows (n, k) of the nearest, in any order, and their cosine similarities (n, k)."""
    similarity = embeddings_nD.astype(np.float32) @ known_DN
    rows = np.argpartition(similarity, similarity.shape[1] - k, axis=1)[:, -k:]
    return rows, np.take_along_axis(similarity, rows, 1)
