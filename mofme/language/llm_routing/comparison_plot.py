"""The comparison as a picture and as numbers to plot again: cost against quality, a curve for each router."""

import csv
from pathlib import Path

import numpy as np

from mofme.files import atomic_file
from mofme.language.llm_routing.baselines import BestSingle, Hull, Oracle
from mofme.language.llm_routing.comparison import Comparison
from mofme.language.llm_routing.curve import Curve, curve_of, hull_of
from mofme.measure.plots import plot


def mean_curve(comparison: Comparison, router: str) -> Curve:
    """A router's curve, its settings averaged over the trials."""
    curves = [curve_of(trial.choices[router], comparison.table.rows(trial.test_n)) for trial in comparison.trials]
    return Curve(
        np.mean([curve.cost_S for curve in curves], axis=0), np.mean([curve.quality_S for curve in curves], axis=0)
    )


def plot_curves(comparison: Comparison, title: str, path: Path) -> None:
    """The hull of every router's mean curve, and every single model, as a PNG."""
    with plot(path, 9, 5.5) as (axes,):
        for router in comparison.routers:
            if router == BestSingle.name:
                continue
            hull = hull_of(mean_curve(comparison, router))
            bound = router in (Hull.name, Oracle.name)
            line = {Hull.name: "--", Oracle.name: ":"}.get(router, "-")
            axes.plot(1000 * hull.cost_S, hull.quality_S, line, label=router, color="0.5" if bound else None)
        single = mean_curve(comparison, Hull.name)
        axes.plot(1000 * single.cost_S, single.quality_S, "k.", markersize=5)
        for model, cost, quality in zip(comparison.table.models, single.cost_S, single.quality_S, strict=True):
            axes.annotate(
                model.split("/")[-1], (1000 * cost, quality), fontsize=6, xytext=(3, -7), textcoords="offset points"
            )
        axes.set(xlabel="mean cost, dollars per 1,000 prompts", ylabel="mean quality", title=title)
        axes.margins(x=0.12)  # for the names
        axes.figure.legend(fontsize="small", loc="outside right upper")


def write_curves(comparison: Comparison, path: Path) -> None:
    """One line for each setting of each router in each split: what it costs in dollars a prompt, and its quality."""
    with atomic_file(path, "w") as file:
        lines = csv.writer(file)
        lines.writerow(["router", "split", "setting", "cost", "quality"])
        for number, trial in enumerate(comparison.trials, start=1):
            truth = comparison.table.rows(trial.test_n)
            for router, choices in trial.choices.items():
                curve = curve_of(choices, truth)
                for setting, (cost, quality) in enumerate(zip(curve.cost_S, curve.quality_S, strict=True)):
                    lines.writerow([router, number, setting, f"{cost:.9g}", f"{quality:.6f}"])
