"""Learners of P(the strong model wins) from embeddings: what routers between two models score prompts by.

Sources: RouteLLM (arXiv 2406.18665) for the similarity-weighted ranking; RoRF (Not Diamond) for the forest.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Literal

import numpy as np
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier

from mofme.language.tables.table import BoolArray, FloatArray

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
    """A random forest of 100 trees, as in RoRF; the training prompts are scored by the trees that did not see them."""

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


PREFERENCES: Mapping[Kind, Callable[[], Preference]] = {
    "logistic": Logistic,
    "neighbours": Neighbours,
    "network": Network,
    "forest": Forest,
}
