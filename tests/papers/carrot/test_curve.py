import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mofme.language.tables.table import RoutingTable
from mofme.papers.carrot.curve import (
    Curve,
    aiq,
    best_within,
    cost_to_reach,
    curve_of,
    hull_of,
    quality_at,
    worth_routing,
)

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
    found = curve_of(np.array([[0, 0], [1, 0], [1, 1]]), table([[0, 1], [1, 0.5]], [[1, 3], [1, 5]]))
    assert found.cost_S.tolist() == [1, 2, 4]
    assert found.quality_S.tolist() == [0.5, 1, 0.75]


def test_aiq_by_hand() -> None:
    # From 1 to 2: .4; from 2 to 4: 1.3; level from 4 to 5: .7; nothing from 0 to 1. In all 2.4 over 5.
    assert aiq(CURVE, 5) == pytest.approx(2.4 / 5)
    # Cut at 3, where the hull is at .65: .4 + .625.
    assert aiq(CURVE, 3) == pytest.approx(1.025 / 3)
    assert aiq(CURVE, 1) == 0


def test_figures_off_the_hull() -> None:
    hull = hull_of(CURVE)
    assert (hull.cost_S.tolist(), hull.quality_S.tolist()) == ([1, 2, 4], [0.2, 0.6, 0.7])  # its corners alone
    assert quality_at(CURVE, 1.5) == pytest.approx(0.4)
    assert quality_at(CURVE, 100) == 0.7
    assert np.isnan(quality_at(CURVE, 0.5))
    assert cost_to_reach(CURVE, 0.4) == pytest.approx(1.5)
    assert cost_to_reach(CURVE, 0.1) == 1
    assert np.isnan(cost_to_reach(CURVE, 0.71))


@given(points, number)
def test_the_hull_is_the_best_of_all_mixtures_and_aiq_the_area_below(
    some: list[tuple[float, float]], dollars: float
) -> None:
    assert np.nan_to_num(quality_at(curve(some), dollars)) == pytest.approx(best_mixture(some, dollars))
    hull = hull_of(curve(some))
    slopes = np.diff(hull.quality_S) / np.diff(hull.cost_S)
    assert (slopes > 0).all() and (np.diff(slopes) < 0).all()
    area = np.mean([best_mixture(some, cost) for cost in (np.arange(300) + 0.5) * dollars / 300])
    assert aiq(curve(some), dollars) == pytest.approx(area, abs=1e-2)


def table(quality: list[list[float]], cost: list[list[float]] | list[float]) -> RoutingTable:
    quality_NM = np.array(quality, float)
    cost_NM = np.broadcast_to(np.array(cost, float), quality_NM.shape).copy()
    count, models = quality_NM.shape
    prompts = tuple(f"p{i}" for i in range(count))
    return RoutingTable("toy", prompts, tuple("abc"[:models]), quality_NM, cost_NM, ("",) * count)


def test_by_hand() -> None:
    # Ten times over: b alone has 3 of 4 at 2 dollars; all 4 can be had, a doing three of them: (1 + 1 + 2 + 1) / 4.
    worth = worth_routing(table([[1, 1], [1, 1], [0, 1], [1, 0]] * 10, [1, 2]))
    assert worth.best_single == "a" and worth.best_quality == 0.75  # the cheaper of equals
    # At 1 dollar a query there is nothing left for b, and so nothing to gain.
    assert worth.oracle_quality == 0.75 and worth.gain.value == 0 and worth.saving.value == 0
    assert worth.disagreement == 0.5
    assert worth_routing(table([[1, 0], [0, 1]] * 50, [0, 0])).saving.value == 0  # models that cost nothing


def test_the_oracle_saves_and_gains() -> None:
    worth = worth_routing(table([[1, 1], [0, 1], [0, 1], [1, 0]] * 25, [1, 2]))
    assert worth.best_single == "b" and worth.best_quality == 0.75
    assert worth.oracle_quality == 1
    assert worth.gain.value == 0.25
    # Doing as well as b everywhere: a for the first and the last, so 6 dollars instead of 8.
    assert worth.saving.value == pytest.approx(0.25)
    # A share of 1/4 of 100 prompts has a standard deviation of .043.
    low, high = worth.gain.low, worth.gain.high
    assert 0.25 - 3 * 0.043 < low < 0.25 - 1.5 * 0.043 and 0.25 + 1.5 * 0.043 < high < 0.25 + 3 * 0.043
    assert worth.can_pay and worth.verdict.startswith("routing can pay: ")
    assert "0.250" in worth.verdict and "b alone" in worth.verdict


def test_it_does_not_pay_where_one_model_is_best_and_cheapest_nor_on_a_handful_of_prompts() -> None:
    worth = worth_routing(table([[1, 1], [1, 0], [0, 0], [1, 0]] * 25, [1, 2]))
    assert (worth.gain.value, worth.saving.value) == (0, 0)
    assert not worth.can_pay and worth.verdict.startswith("routing cannot pay here: ")
    worth = worth_routing(table([[1, 1]] * 9 + [[1, 0]] * 3 + [[0, 1]], [1, 1]))
    assert worth.gain.value > 0 and worth.gain.low <= 0 and not worth.can_pay


def test_the_seed_decides() -> None:
    toy = table([[1, 0], [0, 1], [1, 1]] * 10, [1, 1])
    assert worth_routing(toy, seed=1) == worth_routing(toy, seed=1) != worth_routing(toy, seed=2)


CELLS = st.lists(
    st.lists(st.tuples(st.sampled_from([0, 0.5, 1]), st.sampled_from([0.0, 1, 2, 5])), min_size=2, max_size=2),
    min_size=1,
    max_size=5,
)


@given(cells=CELLS, dollars=st.floats(0, 5))
def test_the_best_within_a_budget(cells: list[list[tuple[float, float]]], dollars: float) -> None:
    toy = table([[q for q, _ in row] for row in cells], [[c for _, c in row] for row in cells])
    rows = np.arange(len(toy))
    chosen = best_within(toy, dollars)
    quality, cost = toy.quality_NM[rows, chosen].mean(), toy.cost_NM[rows, chosen].mean()
    every = [np.array(choice) for choice in itertools.product(range(2), repeat=len(toy))]
    affordable = [toy.quality_NM[rows, c].mean() for c in every if toy.cost_NM[rows, c].mean() <= dollars + 1e-12]
    if not affordable:
        assert cost == toy.cost_NM.min(1).mean()
        return
    assert cost <= dollars + 1e-12
    # One weight for all prompts leaves at most the gain of those that change sides at that weight.
    unconstrained = toy.quality_NM.max(1).mean()
    assert quality <= max(affordable) + 1e-12
    if unconstrained == max(affordable) and cost <= dollars and toy.cost_NM.max(1).mean() <= dollars:
        assert quality == unconstrained
