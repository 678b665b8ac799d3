"""Estimators: what each model makes of a prompt, or what it costs, from the prompt's embedding and traits (CARROT, 3).

Axis names: N prompts, M models, D numbers of an embedding, F features of a prompt, T tasks. The multi-task network and
the ensemble of all stand in `ensemble`.
"""

import re
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from mofme.language.sentence_encoder import Queries, question_of
from mofme.language.tables.table import FloatArray, IntArray

FOLDS = 5
NEIGHBOURS = (4, 8, 16, 32, 64, 96, 128, 192, 256)
PENALTIES = (0.1, 1.0, 4.0, 16.0, 64.0)
TRAITS = 8
_SYMBOLS = re.compile(r"[\\$=^{}]")
# An embedding of length 1 has numbers of about this size; traits have as much weight as they.
_SIZE = 0.05
_LENGTH = 4  # characters, about a token; large beside the rest, so that a penalty leaves its weight alone
_CHUNK = 512
_FEWEST = 20  # prompts of a task; smaller ones are thrown together
_INVERSE_PENALTY = 30.0

State = Mapping[str, Tensor]


@dataclass(frozen=True)
class Inputs:
    """N prompts: embeddings (N, D) of length 1, traits (N, 8), characters, and while learning the task of each."""

    embeddings_ND: FloatArray
    traits_NF: FloatArray
    length_N: FloatArray
    tasks: tuple[str, ...] = ()

    @classmethod
    def of(cls, queries: Queries, tasks: tuple[str, ...] = ()) -> "Inputs":
        traits = np.array([_traits(prompt) for prompt in queries.prompts]).reshape(len(queries), TRAITS)
        length_N = np.array([len(prompt) for prompt in queries.prompts], np.float64)
        return cls(queries.embeddings_ND, traits, length_N, tasks)

    def __len__(self) -> int:
        return len(self.embeddings_ND)

    @cached_property
    def all_NF(self) -> FloatArray:
        """Embeddings and traits side by side."""
        return np.hstack([self.embeddings_ND, self.traits_NF])

    @cached_property
    def with_length_NF(self) -> FloatArray:
        """The same, and the length that a prompt is paid by: not bounded, so for costs only."""
        return np.hstack([self.all_NF, self.length_N[:, None] / _LENGTH])

    def rows(self, index: Sequence[int] | IntArray) -> "Inputs":
        tasks = tuple(self.tasks[i] for i in index) if self.tasks else ()
        return Inputs(self.embeddings_ND[index], self.traits_NF[index], self.length_N[index], tasks)


def _traits(prompt: str) -> list[float]:
    """What embeddings do not tell; about 0 for most prompts, of the size of an embedding's numbers."""
    question = question_of(prompt)
    length, words = len(question), question.split()
    traits = [
        np.log1p(length) - 5,
        np.log1p(len(words)) - 3.5,
        10 * sum(map(str.isdigit, question)) / max(length, 1) - 0.3,
        np.log1p(question.count("\n")) - 0.7,
        np.log1p(len(_SYMBOLS.findall(question))) - 0.4,
        10 * sum(map(str.isupper, question)) / max(length, 1) - 0.3,
        sum(map(len, words)) / max(len(words), 1) / 5 - 1,
        min(question.count("?"), 3) - 0.8,
    ]
    return [_SIZE * trait for trait in traits]


class Estimator(ABC):
    """Learns M numbers of each prompt. Its state is tensors only; loading it back gives the same predictions."""

    learnt: ClassVar[Mapping[str, str]] = {}  # the arrays that are its state: their names in files and here

    @abstractmethod
    def fit(self, inputs: Inputs, target_NM: FloatArray) -> None:
        """Choose the settings, if there are any, and learn."""

    def refit(self, inputs: Inputs, target_NM: FloatArray) -> None:
        """Learn anew, with the settings that were chosen."""
        self.fit(inputs, target_NM)

    @abstractmethod
    def predict(self, inputs: Inputs) -> FloatArray:
        """Estimates (N, M), not clipped to any range."""

    def state(self) -> dict[str, Tensor]:
        return {name: as_tensor(getattr(self, own)) for name, own in self.learnt.items()}

    def load(self, state: State) -> None:
        for name, own in self.learnt.items():
            setattr(self, own, as_array(state[name]))


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


class NearestNeighbours(Estimator):
    """Cosine k nearest neighbours: the mean of what the models made of the most similar prompts.

    k is the one of NEIGHBOURS with the least error in 5-fold cross-validation: one for all models, by the error of
    contrasts, or `per_model` each its own, by its squared error (CARROT).
    """

    known_DN: NDArray[np.float32]  # this way round, so that one prompt is compared with all in half the time
    target_NM: FloatArray
    k_M: IntArray

    def __init__(self, seed: int = 0, per_model: bool = False) -> None:
        self._seed, self._per_model = seed, per_model

    @property
    def k(self) -> int:
        """Of the models' own k the largest."""
        return int(self.k_M.max())

    def fit(self, inputs: Inputs, target_NM: FloatArray) -> None:
        self.k_M = self._best_k(inputs.embeddings_ND, target_NM)
        self.refit(inputs, target_NM)

    def refit(self, inputs: Inputs, target_NM: FloatArray) -> None:
        self.k_M = np.minimum(self.k_M, len(inputs))
        self.known_DN = _columns(inputs.embeddings_ND)
        self.target_NM = target_NM

    def predict(self, inputs: Inputs) -> FloatArray:
        estimate_NM = np.zeros((len(inputs), self.target_NM.shape[1]))
        for start in range(0, len(inputs), _CHUNK):
            rows, similarity = _search(self.known_DN, inputs.embeddings_ND[start : start + _CHUNK], self.k)
            nearest = rows if (self.k_M == self.k).all() else _in_order(rows, similarity)
            for k in np.unique(self.k_M):
                of_k_M = self.k_M == k
                estimate_NM[start : start + _CHUNK, of_k_M] = self.target_NM[:, of_k_M][nearest[:, :k]].mean(1)
        return estimate_NM

    def nearest(self, embedding_1D: FloatArray, count: int) -> tuple[IntArray, FloatArray]:
        """Rows and cosine similarities of the `count` nearest known prompts, nearest first."""
        rows, similarity = _search(self.known_DN, embedding_1D, min(count, self.known_DN.shape[1]))
        order = np.argsort(-similarity[0], kind="stable")
        return rows[0][order], similarity[0][order].astype(np.float64)

    def state(self) -> dict[str, Tensor]:
        known = torch.from_numpy(self.known_DN.T.copy())
        k = torch.tensor(self.k_M if self._per_model else self.k)
        return {"known": known, "target": as_tensor(self.target_NM), "k": k}

    def load(self, state: State) -> None:
        self.known_DN = _columns(as_array(state["known"]))
        self.target_NM = as_array(state["target"])
        self.k_M = np.broadcast_to(state["k"].long().numpy(), self.target_NM.shape[1])

    def _best_k(self, embeddings_ND: FloatArray, target_NM: FloatArray) -> IntArray:
        """Of each model (M,)."""
        errors: dict[int, FloatArray] = {}
        for train, test in folds(len(embeddings_ND), self._seed):
            known_DN, known_NM = _columns(embeddings_ND[train]), target_NM[train]
            grid = [k for k in NEIGHBOURS if k <= len(train)] or [len(train)]
            for start in range(0, len(test), _CHUNK):
                chunk = test[start : start + _CHUNK]
                nearest = _in_order(*_search(known_DN, embeddings_ND[chunk], grid[-1]))
                total_NM, fewer = np.zeros((len(chunk), target_NM.shape[1])), 0
                for k in grid:
                    total_NM = total_NM + known_NM[nearest[:, fewer:k]].sum(1)
                    errors[k] = errors.get(k, 0.0) + len(chunk) * self._error_M(total_NM / k, target_NM[chunk])
                    fewer = k
        # A k that the smaller folds are too small for was judged on fewer prompts.
        grid = [k for k in errors if k <= len(embeddings_ND) * (FOLDS - 1) // FOLDS]
        return np.array(grid)[np.argmin([errors[k] for k in grid], axis=0)]

    def _error_M(self, estimate_NM: FloatArray, target_NM: FloatArray) -> FloatArray:
        if self._per_model:
            return ((estimate_NM - target_NM) ** 2).mean(0)
        return np.full(target_NM.shape[1], error(estimate_NM, target_NM))


def _columns(embeddings_ND: FloatArray) -> NDArray[np.float32]:
    return np.ascontiguousarray(embeddings_ND.T, dtype=np.float32)


def _search(known_DN: NDArray[np.float32], embeddings_nD: FloatArray, k: int) -> tuple[IntArray, NDArray[np.float32]]:
    """Rows (n, k) of the nearest, in any order, and their cosine similarities (n, k)."""
    similarity = embeddings_nD.astype(np.float32) @ known_DN
    rows = np.argpartition(similarity, similarity.shape[1] - k, axis=1)[:, -k:]
    return rows, np.take_along_axis(similarity, rows, 1)


def _in_order(rows: IntArray, similarity: NDArray[np.float32]) -> IntArray:
    """The same rows, nearest first."""
    return np.take_along_axis(rows, np.argsort(-similarity, 1, kind="stable"), 1)


class Linear(Estimator):
    """Ridge regression, one head a model, in embedding and traits; in the prompt's length too if `by_length`.

    The penalty is the one of PENALTIES with the least error in 5-fold cross-validation: of contrasts for qualities, of
    the values themselves for costs (`by_length`), which budgets are held against.
    """

    learnt: ClassVar[Mapping[str, str]] = {"weights": "weights_FM", "bias": "bias_M"}
    weights_FM: FloatArray
    bias_M: FloatArray
    penalty: float

    def __init__(self, seed: int = 0, by_length: bool = False) -> None:
        self._seed, self._by_length = seed, by_length

    def fit(self, inputs: Inputs, target_NM: FloatArray) -> None:
        x_NF = self._features(inputs)
        errors = np.zeros(len(PENALTIES))
        for train, test in folds(len(inputs), self._seed):
            solutions = _solve(x_NF[train], target_NM[train], PENALTIES)
            errors += [self._error(x_NF[test] @ weights + bias, target_NM[test]) for weights, bias in solutions]
        self.penalty = PENALTIES[int(errors.argmin())]
        self.refit(inputs, target_NM)

    def refit(self, inputs: Inputs, target_NM: FloatArray) -> None:
        [(self.weights_FM, self.bias_M)] = _solve(self._features(inputs), target_NM, (self.penalty,))

    def predict(self, inputs: Inputs) -> FloatArray:
        return self._features(inputs) @ self.weights_FM + self.bias_M

    def _error(self, estimate_NM: FloatArray, target_NM: FloatArray) -> float:
        return float(((estimate_NM - target_NM) ** 2).mean()) if self._by_length else error(estimate_NM, target_NM)

    def _features(self, inputs: Inputs) -> FloatArray:
        return inputs.with_length_NF if self._by_length else inputs.all_NF


def _solve(x_NF: FloatArray, target_NM: FloatArray, penalties: Sequence[float]) -> list[tuple[FloatArray, FloatArray]]:
    """Weights and bias of least squares with each penalty on the weights: one decomposition does for all."""
    mean_F, mean_M = x_NF.mean(0), target_NM.mean(0)
    centred_NF = x_NF - mean_F
    values_F, vectors_FF = np.linalg.eigh(centred_NF.T @ centred_NF)
    moment_FM = vectors_FF.T @ (centred_NF.T @ (target_NM - mean_M))
    solutions = []
    for penalty in penalties:
        weights_FM = vectors_FF @ (moment_FM / (values_F.clip(0) + penalty)[:, None])
        solutions.append((weights_FM, mean_M - mean_F @ weights_FM))
    return solutions


class TaskMeans(Estimator):
    """Means of each task, weighted by how probable the prompt's embedding makes the task.

    Most of what embeddings tell of a prompt is its task. Without tasks, these are the means over all prompts.
    """

    learnt: ClassVar[Mapping[str, str]] = {"weights": "weights_FT", "bias": "bias_T", "means": "means_TM"}
    weights_FT: FloatArray
    bias_T: FloatArray
    means_TM: FloatArray

    def fit(self, inputs: Inputs, target_NM: FloatArray) -> None:
        counts = Counter(inputs.tasks)
        names = [task if counts[task] >= _FEWEST else "" for task in inputs.tasks] or [""] * len(inputs)
        tasks, task_N = np.unique(np.array(names), return_inverse=True)
        self.means_TM = np.stack([target_NM[task_N == task].mean(0) for task in range(len(tasks))])
        self.weights_FT = np.zeros((inputs.all_NF.shape[1], len(tasks)))
        self.bias_T = np.zeros(len(tasks))
        if len(tasks) > 1:
            classifier = LogisticRegression(C=_INVERSE_PENALTY, max_iter=1000, tol=1e-3).fit(inputs.all_NF, task_N)
            # Of two classes scikit-learn keeps the second one's weights only.
            self.weights_FT[:, -len(classifier.coef_) :] = classifier.coef_.T
            self.bias_T[-len(classifier.coef_) :] = classifier.intercept_

    def predict(self, inputs: Inputs) -> FloatArray:
        logits_NT = inputs.all_NF @ self.weights_FT + self.bias_T
        odds_NT = np.exp(logits_NT - logits_NT.max(1, keepdims=True))
        return odds_NT / odds_NT.sum(1, keepdims=True) @ self.means_TM


class Means(Estimator):
    """Each model's mean, whatever the prompt: what an estimator has to do better than."""

    learnt: ClassVar[Mapping[str, str]] = {"mean": "mean_M"}
    mean_M: FloatArray

    def fit(self, inputs: Inputs, target_NM: FloatArray) -> None:
        self.mean_M = target_NM.mean(0)

    def predict(self, inputs: Inputs) -> FloatArray:
        return np.tile(self.mean_M, (len(inputs), 1))
