"""What the comparison of routers says beside CARROT's claim."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from mofme.language.llm_routing.baselines import BestSingle
from mofme.language.llm_routing.comparison_figures import BUDGETS, CONTROLS, TARGETS, UNTRAINED, Measured
from mofme.language.llm_routing.comparison_verdict import JUDGED, title, verdict
from mofme.measure.result import Figure, Result, Row, this_machine

ROOM = "llm_routing"
CLAIM = (
    "Estimating each model's quality and cost and choosing by the plug-in rule beats other routers, and comes near the "
    "best single model at a fraction of its cost: RouterBench about .77 at $.001, GPT-4 .786 at $.0033."
)


def as_result(tables: Sequence[Measured], command: str, seed: int) -> Result:
    """One result over all tables."""
    makers = (worth_rows, aiq_rows, budget_rows, cost_rows, within_rows, time_rows)
    return Result(
        room=ROOM,
        paper="CARROT, arXiv 2502.03261",
        claim=CLAIM,
        verdict=verdict(tables),
        command=command,
        rows=[row for measured in tables for make in makers for row in make(measured)],
        seeds=[seed],
        interval="95 %, the wider of a paired basic bootstrap over the prompts and Student's over the splits, "
        "corrected for shared prompts",
        machine=this_machine(torch.get_num_threads()),
    )


def worth_rows(measured: Measured) -> list[Row]:
    """Go or no-go: the best choice for every prompt beside the best single model."""
    worth = measured.worth
    figures = {
        "quality": Figure(worth.best_quality),
        "of the best choice for as much": Figure(worth.oracle_quality),
        "gain": Figure(worth.gain, *worth.gain_interval),
        "cost that could be saved, %": Figure(worth.saving, *worth.saving_interval).percent(),
        "prompts on which models disagree, %": Figure(100 * worth.disagreement),
    }
    return _rows(measured, "can routing pay?", {worth.best_single: figures})


def aiq_rows(measured: Measured) -> list[Row]:
    """AIQ and the gains over the three controls."""

    def figures(name: str) -> dict[str, Figure | None]:
        gains = {
            f"{'quality' if control == BestSingle.name else 'AIQ'}, gain over the {control}": measured.gain(
                name, control
            )
            for control in CONTROLS
            if name not in (*UNTRAINED, control)
        }
        return {"AIQ": measured.aiq(name), **gains}

    return _rows(measured, "AIQ", {name: figures(name) for name in measured.comparison.routers})


def budget_rows(measured: Measured) -> list[Row]:
    def figures(name: str) -> dict[str, Figure | None]:
        return {f"for {share:.0%} of its cost": measured.quality_for(name, share) for share in BUDGETS}

    rows = {name: figures(name) for name in measured.comparison.routers}
    return _rows(measured, "quality for a share of what the best single model costs", rows)


def cost_rows(measured: Measured) -> list[Row]:
    def figures(name: str) -> dict[str, Figure | None]:
        costs = {f"for {share:.0%} of its quality": measured.cost_of(name, share) for share in TARGETS}
        return {key: cost and cost.map(lambda dollars: 1000 * dollars) for key, cost in costs.items()}

    rows = {name: figures(name) for name in measured.comparison.routers}
    return _rows(measured, "dollars per 1,000 prompts to do as well as the best single model", rows)


def within_rows(measured: Measured) -> list[Row]:
    """What the routers know beyond the task: .5 and a gain of 0 are nothing."""
    rows: dict[str, dict[str, Figure | None]] = {}
    for name, lines in measured.within.items():
        for line in lines:
            row = rows.setdefault(line.task, {"test prompts": Figure(round(line.prompts))})
            row[f"{name}: AUC, is it right"] = line.correct
            row[f"{name}: AUC, which is better"] = line.better
            if name == JUDGED:
                row["AIQ, gain over the task table"] = line.gain
                row["AIQ, gain over its choices dealt out at random"] = line.lost
    return _rows(measured, "within tasks", rows)


def time_rows(measured: Measured) -> list[Row]:
    embedding = float(np.median(measured.embedding_ms))

    def figures(name: str) -> dict[str, Figure | None]:
        choice = float(np.median(measured.choice_ms[name]))
        return {"without embedding": Figure(choice), "with embedding": Figure(choice + embedding)}

    rows = {name: figures(name) for name in measured.comparison.routers if name not in UNTRAINED}
    return _rows(measured, "processor time of one prompt, ms, median", rows)


def _rows(measured: Measured, what: str, rows: Mapping[str, Mapping[str, Figure | None]]) -> list[Row]:
    """Rows of one table by name, without the figures that could not be had."""
    return [
        Row(f"{title(measured)}: {what}", name, {key: figure for key, figure in row.items() if figure is not None})
        for name, row in rows.items()
    ]
