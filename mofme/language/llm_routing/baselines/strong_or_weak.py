"""Routers between two models, a strong and a weak one: a score for each prompt, and a threshold on it."""

from abc import abstractmethod
from dataclasses import dataclass

import numpy as np

from mofme.language.llm_routing.baselines.preference import BoolArray
from mofme.language.llm_routing.baselines.single import best_model
from mofme.language.llm_routing.curve import Curve, aiq
from mofme.language.llm_routing.prompt_router import PromptRouter
from mofme.language.llm_routing.table import FloatArray, IntArray, RoutingTable
from mofme.language.sentence_encoder import Queries

# Shares of prompts for the strong model that the thresholds are calibrated to.
SHARES: FloatArray = np.linspace(0, 1, 41)


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
