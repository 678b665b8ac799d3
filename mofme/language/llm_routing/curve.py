"""What a router's settings cost and what they are worth: its curve, the hull of it, and the figures read off it.

Routers may be mixed (some prompts by one setting, the others by another), so every figure is read off the
non-decreasing convex hull of the settings' mean cost and mean quality: RouterBench (arXiv 2403.12031), section 3.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mofme.language.llm_routing.table import FloatArray, IntArray, RoutingTable


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
