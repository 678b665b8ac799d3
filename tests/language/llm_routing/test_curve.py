from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mofme.language.llm_routing.curve import Curve, aiq, cost_to_reach, curve_of, hull_of, quality_at
from mofme.language.llm_routing.table import RoutingTable

# (3, .5) is below the line from (2, .6) to (4, .7); (5, .65) costs more for less.
CURVE = Curve(np.array([4.0, 1.0, 5.0, 2.0, 3.0]), np.array([0.7, 0.2, 0.65, 0.6, 0.5]))
number = st.integers(1, 40).map(lambda n: n / 8)
points = st.lists(st.tuples(number, st.integers(0, 16).map(lambda n: n / 16)), min_size=1, max_size=8)


def curve(given_points: list[tuple[float, float]]) -> Curve:
    cost_S, quality_S = np.array(given_points, float).T
    return Curve(cost_S, quality_S)


def best_mixture(given_points: list[tuple[float, float]], dollars: float) -> float:
    """Every pair of settings mixed in every way that costs `dollars` at most."""
    found = [quality for cost, quality in given_points if cost <= dollars]
    for cost, quality in given_points:
        for other_cost, other in given_points:
            if cost <= dollars < other_cost:
                found.append(quality + (other - quality) * (dollars - cost) / (other_cost - cost))
    return max(found, default=0.0)


def test_a_curve_is_the_mean_of_what_was_chosen() -> None:
    table = RoutingTable(
        "t", ("p", "q"), ("a", "b"), np.array([[0, 1], [1, 0.5]]), np.array([[1, 3], [1, 5.0]]), ("", "")
    )
    found = curve_of(np.array([[0, 0], [1, 0], [1, 1]]), table)
    assert found.cost_S.tolist() == [1, 2, 4]
    assert found.quality_S.tolist() == [0.5, 1, 0.75]


def test_the_hull_keeps_its_corners_alone() -> None:
    hull = hull_of(CURVE)
    assert hull.cost_S.tolist() == [1, 2, 4]
    assert hull.quality_S.tolist() == [0.2, 0.6, 0.7]


def test_aiq_by_hand() -> None:
    # From 1 to 2: .4; from 2 to 4: 1.3; level from 4 to 5: .7; nothing from 0 to 1. In all 2.4 over 5.
    assert aiq(CURVE, 5) == pytest.approx(2.4 / 5)
    # Cut at 3, where the hull is at .65: .4 + .625.
    assert aiq(CURVE, 3) == pytest.approx(1.025 / 3)
    assert aiq(CURVE, 1) == 0


def test_figures_off_the_hull() -> None:
    assert quality_at(CURVE, 1.5) == pytest.approx(0.4)
    assert quality_at(CURVE, 100) == 0.7
    assert np.isnan(quality_at(CURVE, 0.5))
    assert cost_to_reach(CURVE, 0.4) == pytest.approx(1.5)
    assert cost_to_reach(CURVE, 0.1) == 1
    assert np.isnan(cost_to_reach(CURVE, 0.71))


@given(points, number)
def test_the_hull_is_the_best_of_all_mixtures(some: list[tuple[float, float]], dollars: float) -> None:
    assert np.nan_to_num(quality_at(curve(some), dollars)) == pytest.approx(best_mixture(some, dollars))


@given(points)
def test_the_hull_rises_ever_less_steeply(some: list[tuple[float, float]]) -> None:
    hull = hull_of(curve(some))
    slopes = np.diff(hull.quality_S) / np.diff(hull.cost_S)
    assert (slopes > 0).all()
    assert all(second < first for first, second in pairwise(slopes))


@given(points, number)
def test_aiq_is_the_area_under_the_best_mixtures(some: list[tuple[float, float]], highest: float) -> None:
    grid = (np.arange(300) + 0.5) * highest / 300
    area = np.mean([best_mixture(some, dollars) for dollars in grid])
    assert aiq(curve(some), highest) == pytest.approx(area, abs=1e-2)


@given(points, st.randoms(use_true_random=False), number)
def test_order_does_not_matter(some: list[tuple[float, float]], random: object, highest: float) -> None:
    shuffled = list(some)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert aiq(curve(shuffled), highest) == aiq(curve(some), highest)


@given(points, st.integers(0, 7), number, st.floats(0, 1), number)
def test_a_dominated_setting_changes_nothing(
    some: list[tuple[float, float]], which: int, dearer: float, share: float, highest: float
) -> None:
    cost, quality = some[which % len(some)]
    assert aiq(curve([*some, (cost + dearer, quality * share)]), highest) == pytest.approx(aiq(curve(some), highest))
