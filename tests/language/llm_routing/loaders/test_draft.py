"""Repair, whatever the faults: what comes out is a table, nothing is invented, and mending twice changes nothing."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mofme.errors import TableError
from mofme.language.llm_routing.loaders.draft import CHECKS, Draft, below_chance, options_in
from mofme.language.llm_routing.table import RoutingTable, find_problems

PROMPTS = st.sampled_from(["", "  ", "one", "two", "three", "four", "Which?\nA. x\nB. y"])
QUALITIES = st.one_of(st.floats(0, 1), st.just(float("nan")), st.sampled_from([-0.5, 2.0]))
COSTS = st.one_of(st.floats(0, 100), st.just(float("nan")), st.just(-1.0))


@st.composite
def drafts(draw: st.DrawFn) -> Draft:
    count, models = draw(st.integers(0, 8)), draw(st.integers(0, 3))

    def numbers(cell: st.SearchStrategy[float]) -> np.ndarray:
        cells = draw(st.lists(cell, min_size=count * models, max_size=count * models))
        return np.array(cells, float).reshape(count, models)

    ids = draw(st.sampled_from([0, count]))
    return Draft.of(
        Path("some.csv"),
        "some",
        draw(st.lists(PROMPTS, min_size=count, max_size=count)),
        draw(st.lists(st.sampled_from(["", "x"]), min_size=count, max_size=count)),
        [f"m{i}" for i in range(models)],
        numbers(QUALITIES),
        numbers(COSTS),
        draw(st.lists(st.sampled_from("abcdef"), min_size=ids, max_size=ids)),
    )


def as_draft(table: RoutingTable) -> Draft:
    return Draft.of(Path("x"), table.name, table.prompts, table.tasks, table.models, table.quality_NM, table.cost_NM)


@given(draft=drafts())
def test_repair_gives_a_table_or_says_that_nothing_is_left(draft: Draft) -> None:
    try:
        table = draft.checked(repair=True)
    except TableError as error:
        assert "no prompts or no models" in str(error)
        return
    assert find_problems(table) == []
    assert set(table.prompts) <= set(draft.prompts) and set(table.models) <= set(draft.models)
    again = as_draft(table).checked(repair=False)  # nothing is left to mend
    np.testing.assert_array_equal(again.quality_NM, table.quality_NM)
    # Untouched rows keep their numbers.
    for row, prompt in enumerate(table.prompts):
        if draft.prompts.count(prompt) == 1:
            columns = [draft.models.index(model) for model in table.models]
            np.testing.assert_array_equal(table.cost_NM[row], draft.cost_NM[draft.prompts.index(prompt), columns])


@given(draft=drafts())
def test_without_repair_a_draft_is_taken_as_it_is_or_refused(draft: Draft) -> None:
    faulty = any(check(draft) for check in CHECKS) or not draft.prompts or not draft.models
    try:
        table = draft.checked(repair=False)
    except TableError as error:
        assert faulty and "some.csv" in str(error)
        return
    assert not faulty and table.repairs == ()
    assert table.prompts == tuple(draft.prompts) and table.models == tuple(draft.models)


@given(draft=drafts())
def test_every_repair_is_told(draft: Draft) -> None:
    try:
        table = draft.checked(repair=True)
    except TableError:
        return
    changed = len(table) < len(draft.prompts) or len(table.models) < len(draft.models)
    assert bool(table.repairs) == changed


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


def choices(right: int, count: int, options: int = 4, lettered: int | None = None) -> Draft:
    """A task in which the first model has `right` of `count` right, the second all."""
    listed = "".join(f"\n{letter}. {letter}" for letter in "ABCDEFGHIJ"[:options])
    prompts = [f"Question {i}{listed if lettered is None or i < lettered else ''}" for i in range(count)]
    quality_NM = np.ones((count, 2))
    quality_NM[right:, 0] = 0
    return Draft.of(Path("x"), "x", prompts, ["task"] * count, ["first", "second"], quality_NM, quality_NM)


@pytest.mark.parametrize(
    ("draft", "broken"),
    [
        (choices(8, 270), True),  # the column of RouteLLM: 8 of 270, where guessing gives 67
        (choices(60, 270), False),  # one standard deviation below
        (choices(0, 10), False),  # .75 ** 10 = .056: bad luck is possible
        (choices(0, 40), True),  # .75 ** 40 = .00001
        (choices(0, 40, options=10), False),  # .9 ** 40 = .015
        (choices(0, 40, lettered=5), False),  # not a task of multiple choice
    ],
)
def test_below_chance_means_significantly_so(draft: Draft, broken: bool) -> None:
    assert bool(below_chance(draft)) == broken


def test_many_empty_lines_take_no_longer_than_their_number() -> None:
    # With time by the square of the number, this would take hours.
    assert options_in("\n" * 2_000_000 + "A) one\n\n \t\nB) two") == 2
