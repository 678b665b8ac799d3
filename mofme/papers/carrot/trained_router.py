"""A trained router: how it is made; as users meet it, a prompt goes in and out come a model and the reasons for it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mofme.core.weights import ModelCard, check_replaceable, load_card
from mofme.errors import ModelError, TableError
from mofme.files import CARD_FILE, WEIGHTS, check_can_hold, model_folder
from mofme.language.sentence_encoder import Queries, SentenceEncoder, groups_of
from mofme.language.tables.table import FloatArray, RoutingTable
from mofme.papers.carrot.baselines import Hull, TaskTable
from mofme.papers.carrot.carrot import NET, CarrotRouter, Estimate, at_least_quality, plug_in, within_budget
from mofme.papers.carrot.comparison import Comparison, compare
from mofme.papers.carrot.curve import aiq

_SOLVED = 0.5
_NEIGHBOURS = 5
_SPLITS = 5


@dataclass(frozen=True)
class Neighbour:
    """A known prompt near the one asked about: cosine similarity, task, and the models whose quality was at least .5.

    `prompt` is "" in a router that was loaded: no prompts are kept in files.
    """

    similarity: float
    task: str
    solved_by: tuple[str, ...]
    prompt: str = ""


@dataclass(frozen=True)
class Routed:
    """The choice for one prompt: expected quality in [0, 1] and cost in dollars of M models, and what is near it.

    `utility_M` is quality against cost at the given cost weight, or quality alone without one; the chosen model has the
    largest, unless it was chosen by a budget or a least quality.
    """

    model: str
    models: tuple[str, ...]
    quality_M: FloatArray
    cost_M: FloatArray
    neighbours: tuple[Neighbour, ...]
    utility_M: FloatArray
    budget: float | None = None
    quality: float | None = None

    @property
    def missed(self) -> str:
        """That no model is expected to keep to the budget or quality it was chosen by; "" where one is."""
        chosen = self.models.index(self.model)
        if self.budget is not None and self.cost_M[chosen] > self.budget:
            return "no model is expected to cost as little: the cheapest is chosen"
        if self.quality is not None and self.quality_M[chosen] < self.quality:
            return "no model is expected to be as good: the best is chosen"
        return ""

    def as_json(self) -> dict[str, Any]:
        """Plain values: `model`, `models` (quality and cost of each), `neighbours`."""
        return {
            "model": self.model,
            "models": {
                name: {"quality": round(float(quality), 4), "cost": float(f"{cost:.4g}")}
                for name, quality, cost in zip(self.models, self.quality_M, self.cost_M, strict=True)
            },
            "neighbours": [
                {"similarity": round(near.similarity, 4), "task": near.task, "solved_by": list(near.solved_by)}
                for near in self.neighbours
            ],
        }


class TrainedRouter:
    """Routes prompts by a trained CARROT. Prompts are not written anywhere, unless the encoder given does so."""

    def __init__(self, carrot: CarrotRouter, encoder: SentenceEncoder | None = None, name: str = "") -> None:
        self.carrot = carrot
        self.encoder = encoder or SentenceEncoder(remember=False)
        self.name = name

    @classmethod
    def from_pretrained(cls, name: str = "router") -> "TrainedRouter":
        """By the name of a shipped router or the folder of one. Raises ModelError if it is missing or damaged."""
        folder = model_folder(name)
        if not (folder / CARD_FILE).is_file():
            cards = {path.parent.name: load_card(path.parent) for path in sorted(WEIGHTS.glob(f"*/{CARD_FILE}"))}
            names = ", ".join(name for name, card in cards.items() if card.net == NET) or "none"
            raise ModelError(f"no router is called {name!r}: shipped are {names}; or give a folder of `route train`")
        return cls(CarrotRouter.load(folder), name=load_card(folder).name)

    @property
    def models(self) -> tuple[str, ...]:
        return self.carrot.models

    def queries(self, prompts: Sequence[str]) -> Queries:
        return self.encoder.queries(prompts)

    def estimate(self, queries: Queries) -> Estimate:
        return self.carrot.estimate(queries)

    def route(
        self, prompt: str, cost_weight: float | None = None, budget: float | None = None, quality: float | None = None
    ) -> Routed:
        """Choose by one of the three, or for the best quality by none.

        `cost_weight` is CARROT's lambda in [0, 1]; `budget` dollars for this prompt; `quality` the least in [0, 1] that
        is expected. Raises ValueError if more than one is given or one is out of range.
        """
        _check(cost_weight, budget, quality)
        queries = self.queries([prompt])
        estimate = self.estimate(queries)
        utility_NM = plug_in(estimate, cost_weight or 0.0, self.carrot.scale)
        if budget is not None:
            [chosen] = within_budget(estimate, budget)
        elif quality is not None:
            [chosen] = at_least_quality(estimate, quality)
        else:
            [chosen] = utility_NM.argmax(1)
        expected, near = (estimate.quality_NM[0], estimate.cost_NM[0]), self._neighbours(queries)
        return Routed(self.models[chosen], self.models, *expected, near, utility_NM[0], budget, quality)

    def _neighbours(self, queries: Queries) -> tuple[Neighbour, ...]:
        known = self.carrot.known
        if known is None:
            return ()
        near = []
        for row, similarity in zip(*known.nearest(queries.embeddings_ND, _NEIGHBOURS), strict=True):
            solved_by = tuple(name for name, q in zip(self.models, known.target_NM[row], strict=True) if q >= _SOLVED)
            prompt = self.carrot.prompts[row] if self.carrot.prompts else ""
            near.append(Neighbour(float(similarity), self.carrot.tasks[row], solved_by, prompt))
        return tuple(near)


def _check(cost_weight: float | None, budget: float | None, quality: float | None) -> None:
    dials = {"cost_weight": cost_weight, "budget": budget, "quality": quality}
    given = {name: value for name, value in dials.items() if value is not None}
    if len(given) > 1:
        raise ValueError("give one of cost_weight, budget and quality")
    for name, value in given.items():
        if not 0 <= value <= (np.inf if name == "budget" else 1):
            raise ValueError(f"{name} is {value}: it has to be {'0 or above' if name == 'budget' else 'from 0 to 1'}")


def train_router(
    table: RoutingTable,
    out: Path,
    estimator: str = "ensemble",
    seed: int = 0,
    licence: str = "unknown",
    report: Callable[[str], None] = lambda message: None,
    encoder: SentenceEncoder | None = None,
) -> ModelCard:
    """Write a router for the table's models to the folder `out`; its card says how it does on prompts held back.

    No prompt is written. Raises TableError if the table is too small, ModelError for an unknown estimator, or where
    `out` holds another model.
    """
    carrot = CarrotRouter(estimator, seed)
    if len(table.models) < 2:
        raise TableError("one model leaves nothing to choose")
    check_replaceable(out, NET)
    check_can_hold(out / CARD_FILE)
    report(f"{table.name}: {len(table)} prompts are embedded")
    queries = (encoder or SentenceEncoder()).queries(table.prompts)
    comparison = compare(table, queries, [carrot, Hull(), TaskTable()], _SPLITS, seed, groups_of(queries), report)
    report(f"{table.name}: all prompts, {carrot.name}")
    carrot.fit(table, queries)
    training = {
        "table": table.name,
        "prompts": len(table),
        "tasks": sorted(set(table.tasks)),
        "repairs": list(table.repairs),
        "seed": seed,
        "dollars a query, on average": dict(zip(table.models, table.cost_NM.mean(0).tolist(), strict=True)),
        "quality, on average": dict(zip(table.models, table.quality_NM.mean(0).round(4).tolist(), strict=True)),
    }
    card = ModelCard(out.resolve().name, NET, {}, licence, training, _metrics(comparison))
    return carrot.save(out, card)


def _metrics(comparison: Comparison) -> dict[str, float | str]:
    splits = f"mean of {len(comparison.trials)} splits, a fifth of the prompts, near-duplicates kept together"
    metrics: dict[str, float | str] = {"held back": splits}
    dearest_T = [float(comparison.table.cost_NM[trial.test_n].mean(0).max()) for trial in comparison.trials]
    for name in comparison.routers:
        curves = comparison.curves(name)
        areas = [aiq(curve, dearest) for curve, dearest in zip(curves, dearest_T, strict=True)]
        metrics[f"AIQ, {name}"] = round(float(np.mean(areas)), 4)
        metrics[f"highest quality, {name}"] = round(float(np.mean([curve.quality_S.max() for curve in curves])), 4)
    return metrics
