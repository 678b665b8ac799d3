"""CARROT: estimate each model's quality and cost for a prompt, and let the plug-in rule choose (arXiv 2502.03261).

A router of prompts learns from a table, and offers a choice of model for every setting of its dial: here, the weight
of cost. Axis names: N prompts, M models, S settings.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mofme.core.training import part_of
from mofme.core.weights import ModelCard, as_stored, read_as, save_model
from mofme.errors import ModelError, TableError
from mofme.language.sentence_encoder import Queries
from mofme.language.tables.table import FloatArray, IntArray, RoutingTable
from mofme.papers.carrot.ensemble import Ensemble, Network
from mofme.papers.carrot.estimators import Estimator, Inputs, Linear, Means, NearestNeighbours, TaskMeans

NET = "llm-router"
_FEWEST = 20
# The weight of cost in the plug-in rule, from "quality only" to "cost only", denser where choices change.
LAMBDAS: FloatArray = np.concatenate([[0.0], np.geomspace(1e-4, 1.0, 120), [1.0]])


@dataclass(frozen=True)
class Estimate:
    """What a router expects of M models on N prompts: quality in [0, 1], cost in dollars."""

    quality_NM: FloatArray
    cost_NM: FloatArray


class PromptRouter(ABC):
    """Learns from a table and its queries (same prompts, same order); then chooses models for others."""

    name: str

    @abstractmethod
    def fit(self, table: RoutingTable, queries: Queries) -> None: ...

    @abstractmethod
    def sweep(self, queries: Queries) -> IntArray:
        """The model chosen for each prompt at each of S settings of the router's dial: indices (S, N)."""


class EstimatingRouter(PromptRouter):
    """A router that estimates quality and cost, and leaves the choice to the plug-in rule."""

    @abstractmethod
    def estimate(self, queries: Queries) -> Estimate: ...

    def sweep(self, queries: Queries) -> IntArray:
        estimate = self.estimate(queries)
        scale = cost_scale(estimate)
        return np.stack([plug_in(estimate, weight, scale).argmax(1) for weight in LAMBDAS])


def cost_scale(estimate: Estimate) -> float:
    """What a cost of 1 stands for in the plug-in rule: the mean cost of the dearest model, in dollars."""
    return max(float(estimate.cost_NM.mean(0).max()), 1e-12)


def plug_in(estimate: Estimate, cost_weight: float, scale: float = 1.0) -> FloatArray:
    """Utility (N, M), the best model having the largest: `(1 - lambda) quality - lambda cost / scale` (CARROT)."""
    return (1 - cost_weight) * estimate.quality_NM - cost_weight * estimate.cost_NM / scale


def within_budget(estimate: Estimate, dollars: float) -> IntArray:
    """The best model (N,) of those expected to cost at most `dollars` a query; the cheapest where none does."""
    affordable = np.where(estimate.cost_NM <= dollars, estimate.quality_NM, -np.inf)
    return np.where(np.isfinite(affordable).any(1), affordable.argmax(1), estimate.cost_NM.argmin(1))


def at_least_quality(estimate: Estimate, quality: float) -> IntArray:
    """The cheapest model (N,) of those expected to reach `quality`; the best where none does."""
    able = np.where(estimate.quality_NM >= quality, estimate.cost_NM, np.inf)
    return np.where(np.isfinite(able).any(1), able.argmin(1), estimate.quality_NM.argmax(1))


def _ensemble(seed: int) -> Ensemble:
    parts = {"tasks": TaskMeans(), "knn": NearestNeighbours(seed), "linear": Linear(seed), "network": Network(seed)}
    return Ensemble(parts, seed)


QUALITY_ESTIMATORS: Mapping[str, Callable[[int], Estimator]] = {
    "ensemble": _ensemble,
    "knn": lambda seed: NearestNeighbours(seed, per_model=True),
    "linear": Linear,
    "network": Network,
}
COST_ESTIMATORS: Mapping[str, Callable[[int], Estimator]] = {
    "length": lambda seed: Linear(seed, by_length=True),
    "knn": lambda seed: NearestNeighbours(seed, per_model=True),
    "means": lambda seed: Means(),
}
# The paper's own estimators carry its name; the others are ours.
_NAMES = {"ensemble": "stacked ensemble", "knn": "carrot"}


class CarrotRouter(EstimatingRouter):
    """The plug-in rule with one of QUALITY_ESTIMATORS and one of COST_ESTIMATORS.

    Nearest neighbours with a k of each model's own, for quality and cost, are the paper's; by default cost is linear in
    the prompt's length, traits and embedding. What it learned is rounded to half precision at once, so that a saved
    router is the one that was measured. Raises ModelError for an unknown estimator.
    """

    models: tuple[str, ...]
    tasks: tuple[str, ...]
    prompts: tuple[str, ...] = ()

    def __init__(
        self, quality_estimator: str = "ensemble", seed: int = 0, cost_estimator: str = "length", name: str = ""
    ) -> None:
        for estimator, choices in ((quality_estimator, QUALITY_ESTIMATORS), (cost_estimator, COST_ESTIMATORS)):
            if estimator not in choices:
                raise ModelError(f"no estimator is called {estimator!r}: choose {', '.join(choices)}")
        self.quality_estimator, self.cost_estimator = quality_estimator, cost_estimator
        self.name = name or _NAMES.get(quality_estimator, f"plug-in, {quality_estimator}")
        self.quality = QUALITY_ESTIMATORS[quality_estimator](seed)
        self.cost = COST_ESTIMATORS[cost_estimator](seed)

    def fit(self, table: RoutingTable, queries: Queries) -> None:
        """Raises TableError for fewer than 20 prompts."""
        if len(table) < _FEWEST:
            raise TableError(f"{table.name} has {len(table)} prompts: a router needs {_FEWEST} at least to learn from")
        inputs = Inputs.of(queries, table.tasks)
        self.models, self.tasks, self.prompts = table.models, table.tasks, tuple(table.prompts)
        self.unit_M = table.cost_NM.mean(0).clip(1e-12)  # dollars that a cost of 1 stands for
        self.least_M = table.cost_NM.min(0)
        self.scale = cost_scale(Estimate(table.quality_NM, table.cost_NM))
        self.quality.fit(inputs, table.quality_NM)
        self.cost.fit(inputs, table.cost_NM / self.unit_M)
        stored = as_stored(self._state())
        self._load({name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in stored.items()})

    def estimate(self, queries: Queries) -> Estimate:
        """Expected quality and cost (N, M); no cost is below the least that was recorded of its model."""
        inputs = Inputs.of(queries)
        cost_NM: FloatArray = np.maximum(self.cost.predict(inputs) * self.unit_M, self.least_M)
        return Estimate(self.quality.predict(inputs).clip(0, 1), cost_NM)

    @property
    def known(self) -> NearestNeighbours | None:
        """The known prompts' embeddings and each model's quality on them; None if the estimator keeps none."""
        quality = self.quality.parts["knn"] if isinstance(self.quality, Ensemble) else self.quality
        return quality if isinstance(quality, NearestNeighbours) else None

    def save(self, folder: Path, card: ModelCard) -> ModelCard:
        """Write the router to `folder`, without any prompt; `card` tells about data and figures."""
        names = sorted(set(self.tasks)) if self.known else []
        arguments = {
            "quality_estimator": self.quality_estimator,
            "cost_estimator": self.cost_estimator,
            "models": list(self.models),
            "dollars_per_unit": self.unit_M.tolist(),
            "least_dollars": self.least_M.tolist(),
            "cost_scale": self.scale,
            "tasks": names,
        }
        state = self._state()
        if self.known:
            state["task_of_known"] = torch.tensor([names.index(task) for task in self.tasks])
        return save_model(folder, replace(card, net=NET, arguments=arguments), state)

    @classmethod
    def load(cls, folder: Path) -> "CarrotRouter":
        """The router that was saved to `folder`. Raises ModelError if there is none, or not a whole one."""

        def filled(card: ModelCard, state: dict[str, Tensor]) -> CarrotRouter:
            arguments = card.arguments
            router = cls(arguments["quality_estimator"], cost_estimator=arguments.get("cost_estimator", "length"))
            router.models = tuple(arguments["models"])
            router.unit_M = np.array(arguments["dollars_per_unit"])
            router.least_M = np.array(arguments["least_dollars"])
            router.scale = float(arguments["cost_scale"])
            numbers = state["task_of_known"].tolist() if router.known else []
            router.tasks = tuple(arguments["tasks"][number] for number in numbers)
            router._load(state)
            return router

        return read_as(folder, NET, filled)

    def _state(self) -> dict[str, Tensor]:
        parts = (("quality", self.quality), ("cost", self.cost))
        return {f"{name}.{key}": value for name, part in parts for key, value in part.state().items()}

    def _load(self, state: Mapping[str, Tensor]) -> None:
        self.quality.load(part_of(state, "quality"))
        self.cost.load(part_of(state, "cost"))
