"""The routers that CARROT is measured against: from knowing nothing, by task, or between two models, to everything.

Axis names: N prompts, M models, S settings, K prompts left out of a fit.
"""

import re
from abc import abstractmethod
from dataclasses import dataclass

import numpy as np
from sklearn.linear_model import LogisticRegression

from mofme.language.sentence_encoder import Queries, question_of
from mofme.language.tables.table import BoolArray, FloatArray, IntArray, RoutingTable
from mofme.papers.carrot.carrot import Estimate, EstimatingRouter, PromptRouter
from mofme.papers.carrot.curve import Curve, aiq
from mofme.papers.carrot.preference import PREFERENCES, Kind, Preference

# Shares of prompts for the strong model that the thresholds are calibrated to.
SHARES: FloatArray = np.linspace(0, 1, 41)
# Weak enough a penalty to name nearly every task that can be named from embeddings of length 1.
_INVERSE_PENALTY = 30.0

CODE = re.compile(r"```|\bdef \w+\(|\bclass \w+|\bimport \w+|#include|\bfunction\b|=>|[{};]$|\bassert\b", re.MULTILINE)
MATHS = re.compile(
    r"\\[a-z]+\{|\$[^$\n]{1,80}\$|\d\s*[-+*/^=<>]\s*\d|\b(?:equation|integral|probability|theorem|prove|solve)\b"
)
REASONS = re.compile(r"\b(?:why|how|explain|compare|derive|design|analy[sz]e|step by step)\b", re.IGNORECASE)


class BestSingle(PromptRouter):
    """The model of the highest mean quality in training, the cheaper one of two as good, for every prompt."""

    name = "best single"

    def fit(self, table: RoutingTable, queries: Queries) -> None:
        self.model = best_model(table)

    def sweep(self, queries: Queries) -> IntArray:
        return np.full((1, len(queries)), self.model)


class Hull(PromptRouter):
    """Every model by itself; what lies between two of them is their mixture at random (RouterBench's zero router).

    Nothing is learnt: which models to mix is read off the very prompts that the curve is drawn for, which favours it.
    """

    name = "hull"

    def fit(self, table: RoutingTable, queries: Queries) -> None:
        self.models = len(table.models)

    def sweep(self, queries: Queries) -> IntArray:
        return np.tile(np.arange(self.models)[:, None], (1, len(queries)))


class Oracle(EstimatingRouter):
    """Knows the quality and the cost of every model on every prompt of `truth`; no router can do better."""

    name = "oracle"

    def __init__(self, truth: RoutingTable) -> None:
        self.truth = truth
        self.row_of = {prompt: row for row, prompt in enumerate(truth.prompts)}

    def fit(self, table: RoutingTable, queries: Queries) -> None:
        """There is nothing to learn."""

    def estimate(self, queries: Queries) -> Estimate:
        rows = [self.row_of[prompt] for prompt in queries.prompts]
        return Estimate(self.truth.quality_NM[rows], self.truth.cost_NM[rows])


def best_model(table: RoutingTable) -> int:
    """Index of the model of the highest mean quality, the cheaper one of two as good."""
    return int(np.lexsort((table.cost_NM.mean(0), -table.quality_NM.mean(0)))[0])


class TaskTable(EstimatingRouter):
    """The control that matters most: it knows each model's mean quality and cost on each task, and nothing else.

    The task of a new prompt is predicted from its embedding. Whatever a router gains over this one, it knows about
    prompts and not about tasks. A table without tasks is one task, and leaves the models' means.
    """

    name = "task table"
    classifier: LogisticRegression | None

    def fit(self, table: RoutingTable, queries: Queries) -> None:
        tasks, task_N = np.unique(np.array(table.tasks), return_inverse=True)
        self.means = Estimate(
            np.stack([table.quality_NM[task_N == task].mean(0) for task in range(len(tasks))]),
            np.stack([table.cost_NM[task_N == task].mean(0) for task in range(len(tasks))]),
        )
        self.classifier = None
        if len(tasks) > 1:
            self.classifier = LogisticRegression(C=_INVERSE_PENALTY, max_iter=2000, tol=1e-3).fit(
                queries.embeddings_ND, task_N
            )

    def predict_task(self, queries: Queries) -> IntArray:
        """Row of the table (N,) that each prompt is held to belong to: its task's place in alphabetical order."""
        if self.classifier is None:
            return np.zeros(len(queries), dtype=np.int64)
        task_N: FloatArray | IntArray = self.classifier.predict(queries.embeddings_ND)
        return task_N.astype(np.int64)

    def estimate(self, queries: Queries) -> Estimate:
        task_N = self.predict_task(queries)
        return Estimate(self.means.quality_NM[task_N], self.means.cost_NM[task_N])


@dataclass(frozen=True)
class Pair:
    """Indices of two models."""

    strong: int
    weak: int


def choose_pair(table: RoutingTable) -> Pair:
    """The best single model and, of the cheaper ones, that which makes the best mixture at random with it.

    Where none is cheaper, the weak one is the second best.
    """
    strong = best_model(table)
    cost_M, quality_M = table.cost_NM.mean(0), table.quality_NM.mean(0)
    cheaper = np.flatnonzero(cost_M < cost_M[strong])
    if not len(cheaper):
        others = [model for model in range(len(table.models)) if model != strong] or [strong]
        return Pair(strong, max(others, key=lambda model: quality_M[model]))

    def mixture(weak: int) -> float:
        both = [weak, strong]
        return aiq(Curve(cost_M[both], quality_M[both]), cost_M[strong])

    return Pair(strong, max(cheaper.tolist(), key=mixture))


class StrongOrWeak(PromptRouter):
    """Sends the prompts of the highest scores to the strong model.

    Each setting is a share of strong calls; its threshold is the quantile of the training prompts' scores
    (RouteLLM, arXiv 2406.18665, calibrates its thresholds so).
    """

    pair: Pair
    thresholds_S: FloatArray

    def fit(self, table: RoutingTable, queries: Queries) -> None:
        self.pair = choose_pair(table)
        # A tie is a win of the weak model: the dearer answer would not have been worth it.
        strong_wins_N = table.quality_NM[:, self.pair.strong] > table.quality_NM[:, self.pair.weak]
        unseen_K = self.learn(queries, strong_wins_N)
        self.thresholds_S = np.quantile(unseen_K, 1 - SHARES)
        self.thresholds_S[0], self.thresholds_S[-1] = np.inf, -np.inf

    @abstractmethod
    def learn(self, queries: Queries, strong_wins_N: BoolArray) -> FloatArray:
        """Learn what scores need; returns scores (K,) such as unseen prompts would have."""

    @abstractmethod
    def score(self, queries: Queries) -> FloatArray:
        """How much each prompt (N,) needs the strong model."""

    def sweep(self, queries: Queries) -> IntArray:
        chosen_SN = self.score(queries) >= self.thresholds_S[:, None]
        return np.where(chosen_SN, self.pair.strong, self.pair.weak)


class PairRouter(StrongOrWeak):
    """Scores prompts by P(strong wins), learnt from embeddings: RouteLLM-like, or by a forest RoRF-like.

    Where one of the two models always wins there is nothing to learn, and every prompt scores alike.
    """

    preference: Preference | None

    def __init__(self, kind: Kind = "logistic") -> None:
        self.kind = kind
        self.name = f"pair, {kind}"

    def learn(self, queries: Queries, strong_wins_N: BoolArray) -> FloatArray:
        if len(np.unique(strong_wins_N)) < 2:
            self.preference = None
            return np.zeros(len(queries))
        self.preference = PREFERENCES[self.kind]()
        return self.preference.learn(queries.embeddings_ND, strong_wins_N)

    def score(self, queries: Queries) -> FloatArray:
        return np.zeros(len(queries)) if self.preference is None else self.preference.score(queries.embeddings_ND)


def complexity(question: str) -> float:
    """`log2(1 + words) + 2 if code + 2 if mathematics + 1 if it asks for reasons`: doubling the length counts one."""
    signs = 2 * bool(CODE.search(question)) + 2 * bool(MATHS.search(question)) + bool(REASONS.search(question))
    return float(np.log2(1 + len(question.split())) + signs)


class ComplexityRule(StrongOrWeak):
    """Scores the question in each prompt by `complexity`; the two models and the thresholds come from training."""

    name = "complexity rule"

    def learn(self, queries: Queries, strong_wins_N: BoolArray) -> FloatArray:
        return self.score(queries)

    def score(self, queries: Queries) -> FloatArray:
        return np.array([complexity(question_of(prompt)) for prompt in queries.prompts])
