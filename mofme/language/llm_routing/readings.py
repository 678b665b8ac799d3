"""What is read off the routers' curves, from all test prompts and from draws of them, and how far it could be off."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mofme.language.llm_routing.baselines import BestSingle
from mofme.language.llm_routing.comparison import TEST_SHARE, Comparison, Trial
from mofme.language.llm_routing.curve import Curve, aiq, hull_of, quality_at
from mofme.language.llm_routing.table import FloatArray
from mofme.measure.result import Figure
from mofme.measure.statistics import percentiles, students_interval, wider

DRAWS = 1000


@dataclass(frozen=True)
class Reading:
    """Figures of one router in T trials, first from all test prompts, then from B draws of them: (T, 1 + B) each.

    `quality_TB` is what the router brings for the money that the best single model costs; NaN if it is never as cheap.
    """

    aiq_TB: FloatArray
    quality_TB: FloatArray


def draw_weights(comparison: Comparison, draws: int = DRAWS, seed: int = 0) -> FloatArray:
    """How often each prompt counts, (1 + B, N): once, then B draws of whole groups of prompts with replacement.

    The same draw is for every trial and router: differences between routers are paired, and a prompt that several
    trials test counts as one prompt.
    """
    group_N = np.unique(comparison.group_N, return_inverse=True)[1]
    groups = int(group_N.max()) + 1
    random = np.random.default_rng(seed)
    drawn_BG = random.multinomial(groups, np.full(groups, 1 / groups), size=draws)
    return np.concatenate([np.ones((1, len(group_N))), drawn_BG[:, group_N]])


def read(comparison: Comparison, weight_BN: FloatArray, routers: Sequence[str] | None = None) -> dict[str, Reading]:
    """AIQ, and quality for the best single model's money, of all or these routers in every trial and draw.

    NaN where a draw holds no test prompt of a trial.
    """
    names = comparison.routers if routers is None else routers
    figures: dict[str, list[FloatArray]] = {name: [] for name in names}
    for trial in comparison.trials:
        weight_Bn = weight_BN[:, trial.test_n]
        total_B = weight_Bn.sum(1)
        weight_Bn = weight_Bn[total_B > 0] / total_B[total_B > 0, None]
        highest_B = (weight_Bn @ comparison.table.cost_NM[trial.test_n]).max(1)
        budget_B = _curves(comparison, trial, BestSingle.name, weight_Bn)[0][:, 0]
        for name in names:
            both_2B = np.full((2, len(total_B)), np.nan)
            curves = zip(*_curves(comparison, trial, name, weight_Bn), highest_B, budget_B, strict=True)
            both_2B[:, total_B > 0] = np.array([_figures(*curve) for curve in curves]).T
            figures[name].append(both_2B)
    return {name: Reading(*np.stack(both, axis=1)) for name, both in figures.items()}


def _curves(comparison: Comparison, trial: Trial, name: str, weight_Bn: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Mean cost and mean quality (B, S) of a router's settings in every draw."""
    row_n, choice_Sn = trial.test_n, trial.choices[name]
    table = comparison.table
    return weight_Bn @ table.cost_NM[row_n, choice_Sn].T, weight_Bn @ table.quality_NM[row_n, choice_Sn].T


def _figures(cost_S: FloatArray, quality_S: FloatArray, highest: float, budget: float) -> tuple[float, float]:
    hull = hull_of(Curve(cost_S, quality_S))
    return aiq(hull, highest), quality_at(hull, budget)


def as_figure(figure_TB: FloatArray) -> Figure | None:
    """Mean over the trials with the wider of two 95 % intervals at either end; None where a trial has no value.

    One is over the prompts: the draws' percentiles, reflected about the value (basic bootstrap), for the best of many
    settings looks better in a draw than it is, by as much as the value itself may flatter. The other is over the
    splits: Student's, its variance corrected for the prompts that splits share (Nadeau and Bengio, 2003); with one
    trial there is none.
    """
    value_T = figure_TB[:, 0]
    if not np.isfinite(value_T).all():
        return None
    mean_B, trials = figure_TB.mean(0), len(value_T)
    value = float(mean_B[0])
    low, high = percentiles(mean_B)
    error = value_T.std(ddof=1) * np.sqrt(1 / trials + TEST_SHARE / (1 - TEST_SHARE)) if trials > 1 else 0.0
    return wider(Figure(value, 2 * value - high, 2 * value - low), students_interval(value, float(error), trials))
