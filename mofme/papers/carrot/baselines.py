"""The routers that CARROT is measured against: from knowing nothing, by task, or between two models, to everything.

Between two models, prompts are scored by P(the strong one wins), learnt from embeddings: RouteLLM (arXiv 2406.18665)
for the similarity-weighted ranking, RoRF (Not Diamond) for the forest.

Axis names: N prompts, M models, T tasks, D numbers of an embedding, S settings, K prompts left out of a fit.
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Literal, NamedTuple

import numpy as np
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier

from mofme.language.sentence_encoder import Queries, question_of
from mofme.language.tables.table import BoolArray, FloatArray, IntArray, RoutingTable
from mofme.papers.carrot.carrot import Estimate, EstimatingRouter, PromptRouter
from mofme.papers.carrot.curve import Curve, aiq, best_model

Kind = Literal["logistic", "neighbours", "network", "forest"]


class Preference(ABC):
    """Learns from embeddings (N, D), rows of length 1, and whether the strong model won (N,), both kinds present."""

    @abstractmethod
    def fit(self, embeddings_ND: FloatArray, wins_N: BoolArray) -> None: ...

    @abstractmethod
    def score(self, embeddings_ND: FloatArray) -> FloatArray:
        """P(the strong model wins), (N,)."""

    def learn(self, embeddings_ND: FloatArray, wins_N: BoolArray) -> FloatArray:
        """Fit; returns scores (K,) of prompts that had been left out: here a fifth, by a fit on the others."""
        out_N = np.random.default_rng(0).permutation(len(wins_N)) % 5 == 0
        scores_K = np.zeros(1)
        if len(np.unique(wins_N[~out_N])) == 2:
            self.fit(embeddings_ND[~out_N], wins_N[~out_N])
            scores_K = self.score(embeddings_ND[out_N])
        self.fit(embeddings_ND, wins_N)
        return scores_K


class Classifier(Preference):
    """By one of scikit-learn's classifiers."""

    model: LogisticRegression | MLPClassifier | RandomForestClassifier

    def score(self, embeddings_ND: FloatArray) -> FloatArray:
        return np.asarray(self.model.predict_proba(embeddings_ND)[:, 1], dtype=np.float64)


class Logistic(Classifier):
    """Logistic regression."""

    def fit(self, embeddings_ND: FloatArray, wins_N: BoolArray) -> None:
        self.model = LogisticRegression(C=3.0, max_iter=2000).fit(embeddings_ND, wins_N)


class Network(Classifier):
    """A hidden layer of 64 units, 20 epochs of Adam."""

    def fit(self, embeddings_ND: FloatArray, wins_N: BoolArray) -> None:
        batch = min(128, len(wins_N))
        self.model = MLPClassifier((64,), alpha=1e-2, batch_size=batch, learning_rate_init=3e-3, random_state=0)
        for _ in range(20):
            self.model.partial_fit(embeddings_ND, wins_N, classes=[False, True])


class Forest(Classifier):
    """A random forest, as in RoRF; the training prompts are scored by the trees that did not see them."""

    def fit(self, embeddings_ND: FloatArray, wins_N: BoolArray) -> None:
        self.model = RandomForestClassifier(
            100, max_depth=20, min_samples_leaf=4, max_samples=0.3, oob_score=True, random_state=0
        ).fit(embeddings_ND, wins_N)

    def learn(self, embeddings_ND: FloatArray, wins_N: BoolArray) -> FloatArray:
        self.fit(embeddings_ND, wins_N)
        return np.asarray(self.model.oob_decision_function_[:, 1], dtype=np.float64)


class Neighbours(Preference):
    """Similarity-weighted ranking: a Bradley-Terry model fitted for each prompt to its neighbours' outcomes.

    A neighbour weighs 10 ** (similarity over the greatest one), as in RouteLLM; of two models alone, the fit is the
    weighted share of wins. Our reading: the nearest 64 instead of all, which is sharper.
    """

    def fit(self, embeddings_ND: FloatArray, wins_N: BoolArray) -> None:
        self.embeddings_ND, self.wins_N = embeddings_ND, wins_N.astype(np.float64)

    def score(self, embeddings_ND: FloatArray) -> FloatArray:
        return self._share_of_wins(embeddings_ND @ self.embeddings_ND.T)

    def learn(self, embeddings_ND: FloatArray, wins_N: BoolArray) -> FloatArray:
        self.fit(embeddings_ND, wins_N)
        similarity_NN = embeddings_ND @ embeddings_ND.T
        np.fill_diagonal(similarity_NN, -1)
        return self._share_of_wins(similarity_NN)

    def _share_of_wins(self, similarity_NK: FloatArray) -> FloatArray:
        count = min(64, similarity_NK.shape[1])
        nearest_NK = np.argpartition(-similarity_NK, count - 1, axis=1)[:, :count]
        similarity_NK = np.take_along_axis(similarity_NK, nearest_NK, axis=1)
        weight_NK = 10 ** (similarity_NK / np.maximum(similarity_NK.max(1, keepdims=True), 1e-6)).clip(-1, 1)
        return np.asarray((weight_NK * self.wins_N[nearest_NK]).sum(1) / weight_NK.sum(1))


PREFERENCES: Mapping[Kind, type[Preference]] = {
    "logistic": Logistic,
    "neighbours": Neighbours,
    "network": Network,
    "forest": Forest,
}
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
        """Nothing is learnt."""

    def estimate(self, queries: Queries) -> Estimate:
        rows = [self.row_of[prompt] for prompt in queries.prompts]
        return Estimate(self.truth.quality_NM[rows], self.truth.cost_NM[rows])


class TaskTable(EstimatingRouter):
    """The control that matters most: it knows each model's mean quality and cost on each task, and nothing else.

    The task of a new prompt is predicted from its embedding. Whatever a router gains over this one, it knows about
    prompts and not about tasks. A table without tasks is one task, and leaves the models' means.
    """

    name = "task table"
    classifier: LogisticRegression | None

    def fit(self, table: RoutingTable, queries: Queries) -> None:
        tasks, task_N = np.unique(np.array(table.tasks), return_inverse=True)
        of_task = [task_N == task for task in range(len(tasks))]
        self.quality_TM, self.cost_TM = (
            np.stack([values_NM[rows].mean(0) for rows in of_task]) for values_NM in (table.quality_NM, table.cost_NM)
        )
        self.classifier = None
        if len(tasks) > 1:
            classifier = LogisticRegression(C=_INVERSE_PENALTY, max_iter=2000, tol=1e-3)
            self.classifier = classifier.fit(queries.embeddings_ND, task_N)

    def estimate(self, queries: Queries) -> Estimate:
        known = self.classifier
        task_N = np.zeros(len(queries), int) if known is None else known.predict(queries.embeddings_ND).astype(int)
        return Estimate(self.quality_TM[task_N], self.cost_TM[task_N])


class Pair(NamedTuple):
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
