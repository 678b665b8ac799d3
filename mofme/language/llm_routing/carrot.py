"""CARROT: estimate each model's quality and cost for a prompt, and let the plug-in rule choose (arXiv 2502.03261)."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mofme.core.weights import ModelCard, as_stored, read_as, save_model
from mofme.errors import ModelError, TableError
from mofme.language.llm_routing.estimators.ensemble import Ensemble, part_of
from mofme.language.llm_routing.estimators.estimator import Estimator
from mofme.language.llm_routing.estimators.inputs import Inputs
from mofme.language.llm_routing.estimators.knn import NearestNeighbours
from mofme.language.llm_routing.estimators.linear import Linear
from mofme.language.llm_routing.estimators.network import Network
from mofme.language.llm_routing.estimators.task_means import TaskMeans
from mofme.language.llm_routing.prompt_router import Estimate, EstimatingRouter, cost_scale
from mofme.language.llm_routing.table import FloatArray, RoutingTable
from mofme.language.sentence_encoder import Queries

NET = "llm-router"
_FEWEST = 20


def _ensemble(seed: int) -> Ensemble:
    parts = {
        "tasks": TaskMeans(),
        "knn": NearestNeighbours(seed=seed),
        "linear": Linear(seed),
        "network": Network(seed),
    }
    return Ensemble(parts, seed)


QUALITY_ESTIMATORS: Mapping[str, Callable[[int], Estimator]] = {
    "ensemble": _ensemble,
    "knn": lambda seed: NearestNeighbours(seed=seed),
    "linear": Linear,
    "network": Network,
}


class CarrotRouter(EstimatingRouter):
    """CARROT with one of QUALITY_ESTIMATORS; cost is linear in the prompt's length, traits and embedding.

    What it learned is rounded to half precision at once, so that a saved router is the one that was measured. Raises
    ModelError for an unknown estimator.
    """

    models: tuple[str, ...]
    tasks: tuple[str, ...]
    prompts: tuple[str, ...] = ()

    def __init__(self, quality_estimator: str = "ensemble", seed: int = 0) -> None:
        if quality_estimator not in QUALITY_ESTIMATORS:
            raise ModelError(f"no estimator is called {quality_estimator!r}: choose {', '.join(QUALITY_ESTIMATORS)}")
        self.quality_estimator = quality_estimator
        self.name = "carrot" if quality_estimator == "ensemble" else f"carrot-{quality_estimator}"
        self.quality = QUALITY_ESTIMATORS[quality_estimator](seed)
        self.cost = Linear(seed, by_length=True)

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
        arguments: dict[str, Any] = {
            "quality_estimator": self.quality_estimator,
            "models": list(self.models),
            "dollars_per_unit": self.unit_M.tolist(),
            "least_dollars": self.least_M.tolist(),
            "cost_scale": self.scale,
            "tasks": names,
        }
        state = self._state()
        if self.known:
            state["task_of_known"] = torch.tensor([names.index(task) for task in self.tasks])
        return save_model(
            folder, ModelCard(card.name, NET, arguments, card.licence, card.training, card.metrics), state
        )

    @classmethod
    def load(cls, folder: Path) -> "CarrotRouter":
        """The router that was saved to `folder`. Raises ModelError if there is none, or not a whole one."""

        def filled(card: ModelCard, state: dict[str, Tensor]) -> CarrotRouter:
            arguments = card.arguments
            router = cls(arguments["quality_estimator"])
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
        parts = {"quality": self.quality, "cost": self.cost}
        return {f"{name}.{key}": value for name, part in parts.items() for key, value in part.state().items()}

    def _load(self, state: Mapping[str, Tensor]) -> None:
        self.quality.load(part_of(state, "quality"))
        self.cost.load(part_of(state, "cost"))
