from dataclasses import replace

import numpy as np
import pytest

from mofme.errors import TableError
from mofme.language.llm_routing.table import RoutingTable

TABLE = RoutingTable(
    "toy", ("p", "q", "r"), ("a", "b"), np.array([[1, 0], [0.5, 1], [0, 0]]), np.full((3, 2), 0.1), ("x", "x", "")
)


def test_rows_and_models_are_taken_in_the_order_given() -> None:
    part = TABLE.rows([2, 0]).keep_models(["b", "a"])
    assert part.prompts == ("r", "p") and part.tasks == ("", "x") and part.models == ("b", "a")
    assert part.quality_NM.tolist() == [[0, 0], [0, 1]]


def test_a_model_that_is_not_there() -> None:
    with pytest.raises(TableError, match="no model c: it has a, b"):
        TABLE.keep_models(["a", "c"])


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"prompts": ("p", " ", "r")}, r"blank prompts in 1 rows \(2\)"),
        ({"prompts": ("p", "q", "p")}, r"twice in 1 rows \(3\)"),
        ({"quality_NM": np.array([[1, 0], [0, np.nan], [0, 0]])}, r"blank qualities or costs in 1 rows \(2\)"),
        ({"quality_NM": np.full((3, 2), 1.01)}, r"outside 0 to 1 in 3 rows \(1, 2, 3\)"),
        ({"cost_NM": np.array([[0, 0], [0, 0], [0, -1e-9]])}, r"below zero in 1 rows \(3\)"),
        ({"cost_NM": np.full((2, 2), 0.1)}, r"need \(3, 2\)"),
        ({"tasks": ("x",)}, "and 1$"),
        ({"models": ("a", "a")}, "same name"),
        ({"models": ()}, "no models"),
    ],
)
def test_what_cannot_be_a_table(change: dict[str, object], problem: str) -> None:
    with pytest.raises(TableError, match=problem):
        replace(TABLE, **change)  # type: ignore[arg-type]
