"""A table: what cannot be one; repair, whatever the faults; prices."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mofme.errors import TableError
from mofme.language.tables.published import Price, Prices
from mofme.language.tables.table import CHECKS, RawTable, RoutingTable, below_chance, options_in

TABLE = RoutingTable(
    "toy", ("p", "q", "r"), ("a", "b"), np.array([[1, 0], [0.5, 1], [0, 0]]), np.full((3, 2), 0.1), ("x", "x", "")
)


def test_rows_and_models_are_taken_in_the_order_given() -> None:
    part = TABLE.rows([2, 0]).keep_models(["b", "a"])
    assert part.prompts == ("r", "p") and part.tasks == ("", "x") and part.models == ("b", "a")
    assert part.quality_NM.tolist() == [[0, 0], [0, 1]]
    with pytest.raises(TableError, match="no model c: it has a, b"):
        TABLE.keep_models(["a", "c"])


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"prompts": ("p", " ", "r")}, r"blank prompts in 1 rows \(2\)"),
        ({"prompts": ("p", "q", "p")}, r"twice in 1 rows \(3\)"),
        ({"quality_NM": np.array([[1, 0], [0, np.nan], [0, 0]])}, r"blank or no numbers in 1 rows \(2\)"),
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


PROMPTS = st.sampled_from(["", "  ", "one", "two", "three", "four", "Which?\nA. x\nB. y"])
QUALITIES = st.one_of(st.floats(0, 1), st.just(float("nan")), st.sampled_from([-0.5, 2.0]))
COSTS = st.one_of(st.floats(0, 100), st.just(float("nan")), st.just(-1.0))


@st.composite
def raw_tables(draw: st.DrawFn) -> RawTable:
    count, models = draw(st.integers(0, 8)), draw(st.integers(0, 3))

    def numbers(cell: st.SearchStrategy[float]) -> np.ndarray:
        cells = draw(st.lists(cell, min_size=count * models, max_size=count * models))
        return np.array(cells, float).reshape(count, models)

    ids = draw(st.sampled_from([0, count]))
    return RawTable(
        Path("some.csv"),
        "some",
        draw(st.lists(PROMPTS, min_size=count, max_size=count)),
        draw(st.lists(st.sampled_from(["", "x"]), min_size=count, max_size=count)),
        [f"m{i}" for i in range(models)],
        numbers(QUALITIES),
        numbers(COSTS),
        draw(st.lists(st.sampled_from("abcdef"), min_size=ids, max_size=ids)),
    )


def test_lists_of_numbers_make_a_table() -> None:
    again = replace(TABLE, quality_NM=TABLE.quality_NM.tolist(), cost_NM=TABLE.cost_NM.tolist())
    np.testing.assert_array_equal(again.rows([1]).quality_NM, [[0.5, 1]])
    assert (again.cost_NM == TABLE.cost_NM).all()


def as_raw(table: RoutingTable) -> RawTable:
    return RawTable(Path("x"), table.name, table.prompts, table.tasks, table.models, table.quality_NM, table.cost_NM)


@given(raw=raw_tables())
def test_a_raw_table_is_taken_as_it_is_or_repaired_or_refused(raw: RawTable) -> None:
    faulty = any(check(raw) for check in CHECKS) or not raw.prompts or not raw.models
    try:
        table = raw.checked(repair=False)
        assert not faulty and table.repairs == ()
        assert table.prompts == tuple(raw.prompts) and table.models == tuple(raw.models)
    except TableError as error:
        assert faulty and "some.csv" in str(error)
    try:
        table = raw.checked(repair=True)
    except TableError as error:
        assert "no prompts or no models" in str(error)
        return
    assert set(table.prompts) <= set(raw.prompts) and set(table.models) <= set(raw.models)
    columns = (table.prompts, table.tasks, table.models, table.quality_NM, table.cost_NM)
    again = RawTable(Path("x"), table.name, *columns).checked(repair=False)  # nothing is left to mend
    np.testing.assert_array_equal(again.quality_NM, table.quality_NM)
    # Untouched rows keep their numbers.
    kept = [raw.models.index(model) for model in table.models]
    for row, prompt in enumerate(table.prompts):
        if raw.prompts.count(prompt) == 1:
            np.testing.assert_array_equal(table.cost_NM[row], raw.cost_NM[raw.prompts.index(prompt), kept])


@pytest.mark.parametrize(
    ("prompt", "options"),
    [
        ("What?\nA. 1\nB. 2\nC. 3\nD. 4\nAnswer:", 4),
        ("What?\nA) 1\nB) 2\nAnswer:", 2),
        ("What?\n(A) 1\n(B) 2\n(C) 3", 3),
        ("First?\nA. 1\nB. 2\nC. 3\nAnswer: A\n\nSecond?\nA. 1\nB. 2\nAnswer:", 2),
        ("Sort A, B and C.", 0),
        ("A. is a letter", 0),
        ("What?\nB. 2\nC. 3", 0),
    ],
)
def test_options_of_the_last_question(prompt: str, options: int) -> None:
    assert options_in(prompt) == options


def choices(right: int, count: int, options: int = 4, lettered: int | None = None) -> RawTable:
    """A task in which the first model has `right` of `count` right, the second all."""
    listed = "".join(f"\n{letter}. {letter}" for letter in "ABCDEFGHIJ"[:options])
    prompts = [f"Question {i}{listed if lettered is None or i < lettered else ''}" for i in range(count)]
    quality_NM = np.ones((count, 2))
    quality_NM[right:, 0] = 0
    return RawTable(Path("x"), "x", prompts, ["task"] * count, ["first", "second"], quality_NM, quality_NM)


@pytest.mark.parametrize(
    ("raw", "broken"),
    [
        (choices(8, 270), True),  # the column of RouteLLM: 8 of 270, where guessing gives 67
        (choices(60, 270), False),  # one standard deviation below
        (choices(0, 10), False),  # .75 ** 10 = .056: bad luck is possible
        (choices(0, 40), True),  # .75 ** 40 = .00001
        (choices(0, 40, options=10), False),  # .9 ** 40 = .015
        (choices(0, 40, lettered=5), False),  # not a task of multiple choice
    ],
)
def test_below_chance_means_significantly_so(raw: RawTable, broken: bool) -> None:
    assert bool(below_chance(raw)) == broken


def test_many_empty_lines_take_no_longer_than_their_number() -> None:
    # With time by the square of the number, this would take hours.
    assert options_in("\n" * 2_000_000 + "A) one\n\n \t\nB) two") == 2


def test_a_query_costs_its_tokens() -> None:
    prices = Prices({"m": Price(2, 8)})
    # 1,000 tokens at 2 and 500 at 8 dollars a million: .002 + .004.
    np.testing.assert_allclose(prices.cost("m", np.array([1000.0]), np.array([500.0])), [0.006], rtol=1e-12)
    with pytest.raises(TableError, match=r"no price for gpt-9.*--prices"):
        prices.cost("gpt-9", np.ones(1), 1.0)


def test_prices_are_the_list_prices_or_ones_own(tmp_path: Path) -> None:
    assert Prices.load().models["gpt-4-1106-preview"] == Price(10, 30)
    for encoding in ("utf-8", "utf-8-sig"):  # as Windows saves it
        (tmp_path / "p.json").write_text(json.dumps({"models": {"mine": [1, 2.5]}}), encoding)
        assert Prices.load(tmp_path / "p.json").models == {"mine": Price(1, 2.5)}


@pytest.mark.parametrize(
    "content",
    [
        "", "[]", "{}", '{"models": []}', '{"models": {"m": 1}}', '{"models": {"m": [1]}}',
        '{"models": {"m": [1, "x"]}}', '{"models": {"m": [-1, 1]}}', '{"models": {"m": [1, NaN]}}',
    ],
)  # fmt: skip
def test_a_file_that_holds_no_prices(tmp_path: Path, content: str) -> None:
    with pytest.raises(TableError, match=r"p\.json cannot be read"):
        Prices.load(tmp_path / "p.json")  # it is not there
    (tmp_path / "p.json").write_text(content)
    with pytest.raises(TableError, match=r"p\.json"):
        Prices.load(tmp_path / "p.json")
