import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mofme.language.llm_routing.table import RoutingTable
from mofme.language.llm_routing.worth_routing import best_within, worth_routing


def table(quality: list[list[float]], cost: list[list[float]] | list[float]) -> RoutingTable:
    quality_NM = np.array(quality, float)
    cost_NM = np.broadcast_to(np.array(cost, float), quality_NM.shape).copy()
    count, models = quality_NM.shape
    return RoutingTable(
        "toy",
        tuple(f"p{i}" for i in range(count)),
        tuple("abc"[:models]),
        quality_NM,
        cost_NM,
        ("",) * count,
    )


def test_by_hand() -> None:
    # Ten times over: b alone has 3 of 4 at 2 dollars; all 4 can be had, a doing three of them: (1 + 1 + 2 + 1) / 4.
    worth = worth_routing(table([[1, 1], [1, 1], [0, 1], [1, 0]] * 10, [1, 2]))
    assert worth.best_single == "a" and worth.best_quality == 0.75 and worth.best_cost == 1  # the cheaper of equals
    # At 1 dollar a query there is nothing left for b, and so nothing to gain.
    assert worth.oracle_quality == 0.75 and worth.gain == 0 and worth.saving == 0
    assert worth.disagreement == 0.5


def test_the_oracle_saves_and_gains() -> None:
    worth = worth_routing(table([[1, 1], [0, 1], [0, 1], [1, 0]] * 25, [1, 2]))
    assert worth.best_single == "b" and worth.best_quality == 0.75
    assert worth.oracle_quality == 1 and worth.oracle_cost == 1.5  # a answers two of four
    assert worth.gain == 0.25
    # Doing as well as b everywhere: a for the first and the last, so 6 dollars instead of 8.
    assert worth.saving == pytest.approx(0.25)
    # A share of 1/4 of 100 prompts has a standard deviation of .043.
    low, high = worth.gain_interval
    assert 0.25 - 3 * 0.043 < low < 0.25 - 1.5 * 0.043 and 0.25 + 1.5 * 0.043 < high < 0.25 + 3 * 0.043
    assert worth.can_pay and worth.verdict.startswith("routing can pay: ")
    assert "0.250" in worth.verdict and "b alone" in worth.verdict


def test_it_does_not_pay_where_one_model_is_best_and_cheapest() -> None:
    worth = worth_routing(table([[1, 1], [1, 0], [0, 0], [1, 0]] * 25, [1, 2]))
    assert (worth.gain, worth.saving) == (0, 0)
    assert not worth.can_pay and worth.verdict.startswith("routing cannot pay here: ")


def test_a_gain_on_a_handful_of_prompts_proves_nothing() -> None:
    worth = worth_routing(table([[1, 1]] * 9 + [[1, 0]] * 3 + [[0, 1]], [1, 1]))
    assert worth.gain > 0 and worth.gain_interval[0] <= 0
    assert not worth.can_pay


def test_models_that_cost_nothing() -> None:
    assert worth_routing(table([[1, 0], [0, 1]] * 50, [0, 0])).saving == 0


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
