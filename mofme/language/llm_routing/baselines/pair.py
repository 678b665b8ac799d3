"""Routers between a strong and a weak model that learn from preferences when the strong one is needed."""

import numpy as np

from mofme.language.llm_routing.baselines.preference import PREFERENCES, BoolArray, Kind, Preference
from mofme.language.llm_routing.baselines.strong_or_weak import StrongOrWeak
from mofme.language.llm_routing.table import FloatArray
from mofme.language.sentence_encoder import Queries


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
