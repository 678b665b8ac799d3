"""The comparison of routers beside CARROT's claim: its figures, its tables, its words, and its curves as a picture."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from mofme.language.tables.table import FloatArray
from mofme.measure.result import Figure, Result, Row, this_machine
from mofme.measure.study import plot
from mofme.papers.carrot import DOLLARS, JUDGED, R2, judge
from mofme.papers.carrot.baselines import BestSingle, Hull, Oracle, TaskTable
from mofme.papers.carrot.comparison import (
    BETTER,
    DRAWS,
    GAIN,
    LOST,
    PROMPTS,
    RIGHT,
    Comparison,
    Reading,
    as_figure,
    draw_weights,
    read,
    within_tasks,
)
from mofme.papers.carrot.curve import Curve, Worth, cost_to_reach, hull_of, quality_at

CLAIM = (
    "Estimating each model's quality and cost and choosing by the plug-in rule beats other routers, and comes near the "
    "best single model at a fraction of its cost: RouterBench about .77 at $.001, GPT-4 .786 at $.0033."
)
TITLES = {
    "routerbench": "RouterBench, {tasks} tasks",
    "llmrouter": "LLMRouter",
    "mmlu_pro": "MMLU-Pro",
    "routellm": "RouteLLM",
}
CONTROLS = (Hull.name, BestSingle.name, TaskTable.name)  # what a router has to beat
UNTRAINED = (Hull.name, BestSingle.name, Oracle.name)
BUDGETS = (0.1, 0.25, 0.5, 1.0)  # of what the best single model costs
TARGETS = (0.95, 0.99, 1.0)  # of the quality that the best single model has


Figures = Mapping[str, Figure | None]


@dataclass(frozen=True)
class Measured:
    """All that was measured on one table; times are milliseconds of processor time, one for each prompt."""

    comparison: Comparison
    worth: Worth
    readings: Mapping[str, Reading]
    within: Mapping[str, Mapping[str, Figures]]
    embedding_ms: FloatArray
    choice_ms: Mapping[str, FloatArray]

    @property
    def title(self) -> str:
        """The table's name, as people write it."""
        table = self.comparison.table
        return TITLES.get(table.name, table.name).format(tasks=len(set(table.tasks)))

    def gain(self, router: str, control: str) -> Figure | None:
        """What a router has above a control: quality for as much money as the best single model costs, or else AIQ."""
        one, other = self.readings[router], self.readings[control]
        if control == BestSingle.name:
            return as_figure(one.quality_TB - other.quality_TB)
        return as_figure(one.aiq_TB - other.aiq_TB)

    def quality_for(self, router: str, share: float) -> Figure | None:
        """Quality for this share of what the best single model costs."""
        return self._over_trials(router, lambda curve, best: quality_at(curve, share * float(best.cost_S[0])))

    def cost_of(self, router: str, share: float) -> Figure | None:
        """Dollars per 1,000 prompts for this share of the best single model's quality; None if a split never has it."""
        cost = self._over_trials(router, lambda curve, best: cost_to_reach(curve, share * float(best.quality_S[0])))
        return cost and cost.map(lambda dollars: 1000 * dollars)

    def _over_trials(self, router: str, read_off: Callable[[Curve, Curve], float]) -> Figure | None:
        curves = zip(self.comparison.curves(router), self.comparison.curves(BestSingle.name), strict=True)
        return as_figure(np.array([read_off(curve, best) for curve, best in curves])[:, None])


def measure(
    comparison: Comparison,
    worth: Worth,
    embedding_ms: FloatArray,
    choice_ms: Mapping[str, FloatArray],
    judged: Sequence[str],
    seed: int = 0,
    draws: int = DRAWS,
) -> Measured:
    """Read all figures off a comparison; within tasks, those of the routers `judged`."""
    weight_BN = draw_weights(comparison, draws, seed)
    within = {name: within_tasks(comparison, name, weight_BN) for name in judged}
    return Measured(comparison, worth, read(comparison, weight_BN), within, embedding_ms, choice_ms)


def as_result(tables: Sequence[Measured], command: str, seed: int) -> Result:
    """One result over all tables."""
    result = Result(
        room="llm_routing",
        paper="CARROT, arXiv 2502.03261",
        claim=CLAIM,
        verdict="",
        command=command,
        rows=[row for measured in tables for row in _rows(measured)],
        seeds=[seed],
        interval="95 %, the wider of a paired basic bootstrap over the prompts and Student's over the splits, "
        "corrected for shared prompts",
        machine=this_machine(torch.get_num_threads()),
    )
    return judge(result)


def _rows(measured: Measured) -> list[Row]:
    """Of every table, rows by name, without the figures that could not be had."""
    routers, r2 = measured.comparison.routers, [trial.cost_r2 for trial in measured.comparison.trials]
    choice_ms = {name: float(np.median(measured.choice_ms[name])) for name in routers if name not in UNTRAINED}
    embedding_ms = float(np.median(measured.embedding_ms))
    tables: dict[str, Mapping[str, Figures]] = {
        "can routing pay?": {measured.worth.best_single: _worth(measured.worth)},
        "AIQ": {name: {"AIQ": as_figure(measured.readings[name].aiq_TB), **_gains(measured, name)} for name in routers},
        "quality for a share of what the best single model costs": {
            name: {f"for {share:.0%} of its cost": measured.quality_for(name, share) for share in BUDGETS}
            for name in routers
        },
        DOLLARS: {
            name: {f"for {share:.0%} of its quality": measured.cost_of(name, share) for share in TARGETS}
            for name in routers
        },
        R2: {name: {"R2": as_figure(np.array([[of[name]] for of in r2]))} for name in routers if name in r2[0]},
        "within tasks": _within(measured),
        "processor time of one prompt, ms, median": {
            name: {"without embedding": Figure(choice), "with embedding": Figure(choice + embedding_ms)}
            for name, choice in choice_ms.items()
        },
    }
    return [
        Row(f"{measured.title}: {what}", name, {key: figure for key, figure in row.items() if figure is not None})
        for what, rows in tables.items()
        for name, row in rows.items()
    ]


def _worth(worth: Worth) -> Figures:
    """Go or no-go: the best choice for every prompt beside the best single model."""
    return {
        "quality": Figure(worth.best_quality),
        "of the best choice for as much": Figure(worth.oracle_quality),
        "gain": worth.gain,
        "cost that could be saved, %": worth.saving.percent(),
        "prompts on which models disagree, %": Figure(100 * worth.disagreement),
    }


def _gains(measured: Measured, name: str) -> Figures:
    return {
        f"{'quality' if control == BestSingle.name else 'AIQ'}, gain over the {control}": measured.gain(name, control)
        for control in CONTROLS
        if name not in (*UNTRAINED, control)
    }


def _within(measured: Measured) -> Mapping[str, Figures]:
    """What the routers know beyond the task: .5 and a gain of 0 are nothing."""
    rows: dict[str, dict[str, Figure | None]] = {}
    for name, lines in measured.within.items():
        for task, figures in lines.items():
            row = rows.setdefault(task, {PROMPTS: figures[PROMPTS]})
            for column in (RIGHT, BETTER, *([GAIN] if name == JUDGED else []), LOST):
                row[column if column == GAIN else f"{name}: {column}"] = figures[column]
    return rows


def _mean_curve(comparison: Comparison, router: str) -> Curve:
    """A router's curve, its settings averaged over the trials."""
    return Curve(*np.mean([(curve.cost_S, curve.quality_S) for curve in comparison.curves(router)], axis=0))


def plot_curves(measured: Measured, path: Path) -> None:
    """The hull of every router's mean curve, and every single model, as a PNG."""
    comparison = measured.comparison
    with plot(path, 9, 5.5) as (axes,):
        for router in comparison.routers:
            if router == BestSingle.name:
                continue
            hull = hull_of(_mean_curve(comparison, router))
            line = {Hull.name: "--", Oracle.name: ":"}.get(router)  # bounds
            axes.plot(1000 * hull.cost_S, hull.quality_S, line or "-", label=router, color="0.5" if line else None)
        single = _mean_curve(comparison, Hull.name)
        axes.plot(1000 * single.cost_S, single.quality_S, "k.", markersize=5)
        for model, cost, quality in zip(comparison.table.models, single.cost_S, single.quality_S, strict=True):
            axes.annotate(
                model.split("/")[-1], (1000 * cost, quality), fontsize=6, xytext=(3, -7), textcoords="offset points"
            )
        axes.set(xlabel="mean cost, dollars per 1,000 prompts", ylabel="mean quality", title=measured.title)
        axes.margins(x=0.12)  # for the names
        axes.figure.legend(fontsize="small", loc="outside right upper")
