"""The ends of the scale: one model for all prompts, models mixed at random, and the best choice for every prompt."""

import numpy as np

from mofme.language.llm_routing.prompt_router import Estimate, EstimatingRouter, PromptRouter
from mofme.language.llm_routing.table import IntArray, RoutingTable
from mofme.language.sentence_encoder import Queries


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
