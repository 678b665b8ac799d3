"""Trains the router that is kept: measured on prompts held back, then fitted to all of them."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from mofme.core.weights import ModelCard
from mofme.language.llm_routing.baselines import Hull, TaskTable
from mofme.language.llm_routing.carrot import NET, CarrotRouter
from mofme.language.llm_routing.comparison import Comparison, compare
from mofme.language.llm_routing.curve import aiq, curve_of
from mofme.language.llm_routing.prompt_router import PromptRouter
from mofme.language.llm_routing.table import RoutingTable
from mofme.language.near_duplicates import groups_of
from mofme.language.sentence_encoder import SentenceEncoder

SPLITS = 5


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

    No prompt is written. Raises TableError if the table is too small, ModelError for an unknown estimator.
    """
    carrot = CarrotRouter(estimator, seed)
    report(f"{table.name}: {len(table)} prompts are embedded")
    queries = (encoder or SentenceEncoder()).queries(table.prompts)
    routers: list[PromptRouter] = [carrot, Hull(), TaskTable()]
    comparison = compare(table, queries, routers, SPLITS, seed, groups_of(queries), report)
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


def _metrics(comparison: Comparison) -> dict[str, float | int | str]:
    table = comparison.table
    figures: dict[str, list[float]] = {}
    for trial in comparison.trials:
        test = table.rows(trial.test_n)
        highest = float(test.cost_NM.mean(0).max())
        for name, choice_Sn in trial.choices.items():
            curve = curve_of(choice_Sn.astype(np.int64), test)
            figures.setdefault(f"AIQ, {name}", []).append(aiq(curve, highest))
            figures.setdefault(f"highest quality, {name}", []).append(float(curve.quality_S.max()))
    means: dict[str, float | int | str] = {name: round(float(np.mean(values)), 4) for name, values in figures.items()}
    return {
        "held back": f"mean of {len(comparison.trials)} splits, a fifth of the prompts, near-duplicates kept together"
    } | means
