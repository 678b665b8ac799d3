"""Cost against quality: the curve of a router's settings, what is read off it, and what routing could bring at most.

Routers may be mixed (some prompts by one setting, the others by another), so every figure is read off the
non-decreasing convex hull of the settings' mean cost and mean quality: RouterBench (arXiv 2403.12031), section 3.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mofme.language.tables.table import FloatArray, IntArray, RoutingTable
from mofme.measure.result import Figure
from mofme.measure.statistics import percentiles

LEAST_GAIN = 0.01  # of quality
LEAST_SAVING = 0.05  # of cost
_RESAMPLES = 1000


@dataclass(frozen=True)
class Curve:
    """Mean cost in dollars a query and mean quality in [0, 1] of S settings, in any order."""

    cost_S: FloatArray
    quality_S: FloatArray


def curve_of(choices_SN: IntArray | NDArray[np.int16], table: RoutingTable) -> Curve:
    """What the choices of S settings truly cost and bring on the table's N prompts."""
    row_N = np.arange(len(table))
    return Curve(table.cost_NM[row_N, choices_SN].mean(1), table.quality_NM[row_N, choices_SN].mean(1))


def hull_of(curve: Curve) -> Curve:
    """The curve's non-decreasing convex hull: its corners, cost and quality both rising, ever less steeply."""
    corners: list[tuple[float, float]] = []
    order = np.lexsort((-curve.quality_S, curve.cost_S))
    for cost, quality in zip(curve.cost_S[order].tolist(), curve.quality_S[order].tolist(), strict=True):
        if corners and quality <= corners[-1][1]:
            continue
        while len(corners) > 1 and _below(corners[-1], corners[-2], (cost, quality)):
            corners.pop()
        corners.append((cost, quality))
    cost_S, quality_S = np.array(corners).T
    return Curve(cost_S, quality_S)


def _below(middle: tuple[float, float], left: tuple[float, float], right: tuple[float, float]) -> bool:
    """Whether `middle` lies on or below the line from `left` to `right`."""
    rise, run = right[1] - left[1], right[0] - left[0]
    return (middle[1] - left[1]) * run <= rise * (middle[0] - left[0])


def aiq(curve: Curve, highest_cost: float) -> float:
    """Average Improvement in Quality, in [0, 1]: the area under the hull up to `highest_cost`, over `highest_cost`.

    As RouterBench's published code has it: the hull goes on level to the highest cost, and where a cost is below the
    router's cheapest setting nothing counts. (The paper's formula divides by the range of costs instead.) Here the
    highest cost is that of the dearest single model, so that a router's AIQ does not depend on its rivals.
    """
    hull = hull_of(curve)
    inside = hull.cost_S < highest_cost
    if not inside.any():
        return 0.0
    cost = np.append(hull.cost_S[inside], highest_cost)
    quality = np.append(hull.quality_S[inside], quality_at(hull, highest_cost))
    return float(np.trapezoid(quality, cost) / highest_cost)


def quality_at(curve: Curve, dollars: float) -> float:
    """The mean quality for a mean cost of at most `dollars` a query; NaN if no setting is that cheap."""
    hull = hull_of(curve)
    return float(np.interp(dollars, hull.cost_S, hull.quality_S, left=np.nan))


def cost_to_reach(curve: Curve, quality: float) -> float:
    """The least mean cost in dollars a query that brings a mean `quality`; NaN if no setting does."""
    hull = hull_of(curve)
    return float(np.interp(quality, hull.quality_S, hull.cost_S, right=np.nan))


def best_model(table: RoutingTable) -> int:
    """Index of the model of the highest mean quality, the cheaper one of two as good."""
    return int(np.lexsort((table.cost_NM.mean(0), -table.quality_NM.mean(0)))[0])


@dataclass(frozen=True)
class Worth:
    """Go or no-go, before any router is trained: what a perfect choice would bring over the best single model.

    The oracle knows every outcome, luck included: its gain is the most that a router could bring, not what to expect.
    Qualities are means in [0, 1]. `gain` is of the best choices whose mean cost is at most that of the best single
    model; `saving` the share of its cost that is saved by asking the cheapest that does as well, prompt by prompt.
    Models disagree on a prompt where some do well and others fail (qualities .5 or more apart).
    """

    best_single: str
    best_quality: float
    oracle_quality: float
    gain: Figure
    saving: Figure
    disagreement: float

    @property
    def can_pay(self) -> bool:
        """Whether the gain or the saving is, with 95 % confidence, worth the trouble."""
        return self.gain.side(LEAST_GAIN) > 0 or self.saving.side(LEAST_SAVING) > 0

    @property
    def verdict(self) -> str:
        gain, saving = self.gain, self.saving
        return (
            f"routing {'can pay' if self.can_pay else 'cannot pay here'}: a perfect choice would raise the mean "
            f"quality by {gain.value:.3f} ({gain.low:.3f} to {gain.high:.3f}) over {self.best_single} alone "
            f"({self.best_quality:.3f}) at no higher cost, or save {saving.value:.0%} ({saving.low:.0%} to "
            f"{saving.high:.0%}) of its cost; the models disagree on {self.disagreement:.0%} of the prompts"
        )


def worth_routing(table: RoutingTable, seed: int = 0) -> Worth:
    """Intervals from 1,000 bootstrap samples of the prompts; the best single model is chosen anew in each."""
    best = best_model(table)
    quality, cost = float(table.quality_NM.mean(0)[best]), float(table.cost_NM.mean(0)[best])
    oracle_N = table.quality_NM[np.arange(len(table)), best_within(table, cost)]
    able_NM = table.quality_NM >= table.quality_NM[:, [best]]
    cheapest_N = np.where(able_NM, table.cost_NM, np.inf).min(1)

    generator = np.random.default_rng(seed)
    count = len(table)
    gains, savings = [], []
    for _ in range(_RESAMPLES):
        weight_N = np.bincount(generator.integers(count, size=count), minlength=count)
        gains.append((weight_N @ oracle_N - (weight_N @ table.quality_NM).max()) / count)
        savings.append(_saving(float(weight_N @ cheapest_N), float(weight_N @ table.cost_NM[:, best])))
    oracle = float(oracle_N.mean())
    gain = Figure(oracle - quality, *percentiles(np.array(gains)))
    saving = Figure(_saving(float(cheapest_N.mean()), cost), *percentiles(np.array(savings)))
    disagreement = float((np.ptp(table.quality_NM, axis=1) >= 0.5).mean())
    return Worth(table.models[best], quality, oracle, gain, saving, disagreement)


def best_within(table: RoutingTable, dollars: float) -> IntArray:
    """The models (N,) of the highest mean quality whose mean cost is `dollars` at most, all outcomes being known.

    The cheapest of equally good models first; where that is still too dear, cost is given the least weight that
    fits the budget (to within one prompt of the best). Where nothing fits, the cheapest model for each prompt.
    """

    def choice(weight: float) -> IntArray:
        utility_NM = table.quality_NM - weight * table.cost_NM
        best_NM = utility_NM >= utility_NM.max(1, keepdims=True)
        return np.where(best_NM, table.cost_NM, np.inf).argmin(1)

    def cost(choice_N: IntArray) -> float:
        return float(np.take_along_axis(table.cost_NM, choice_N[:, None], 1).mean())

    found = choice(0.0)
    if cost(found) <= dollars:
        return found
    found = table.cost_NM.argmin(1)
    low, high = 1e-6, 1e12  # quality for a dollar
    for _ in range(100):
        middle = (low * high) ** 0.5
        tried = choice(middle)
        if cost(tried) <= dollars:
            found, high = tried, middle
        else:
            low = middle
    return found


def _saving(cost: float, of: float) -> float:
    return 1 - cost / of if of > 0 else 0.0
