"""What is measured of routers' decisions and of their waste, against numbers worked out by hand."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from mofme.papers.router_robustness.assessment import Assessment, assess, auc_inside, waste, waste_by_group
from mofme.papers.router_robustness.probes import Probe
from mofme.papers.router_robustness.routers import Recorded, Split, TwoModelRouter, always, coin_flip, threshold_for
from tests.papers.router_robustness.worded_world import embed, if_word, recorded_of

# Of two coding prompts one goes to the strong model, of two general ones none.
PROBES = [
    Probe("strong one", "coding", "simple"),
    Probe("weak one", "coding", "hard"),
    Probe("any", "general knowledge", "simple"),
    Probe("thing", "general knowledge", "hard"),
]


@pytest.fixture(scope="module")
def assessed() -> Assessment:
    return assess({"word": [if_word("strong")], "all": [always(True)]}, PROBES, embed, rewordings=())


@pytest.mark.parametrize(
    ("router", "which", "expected"),
    [
        ("word", ["coding"], 50),
        ("word", ["coding", "simple"], 100),
        ("word", ["coding", "hard"], 0),
        ("word", [], 25),
        ("word", ["coding", None, "own"], 50),
        ("word", ["general knowledge"], 0),
        ("all", [None, "hard"], 100),
    ],
)
def test_shares_by_category_and_difficulty(
    assessed: Assessment, router: str, which: list[str | None], expected: float
) -> None:
    share = assessed.share(router, *which)
    assert share is not None and share.value == expected
    assert assessed.share(router, "translation") is None


def test_variance_is_split_between_category_and_difficulty(assessed: Assessment) -> None:
    # Decisions 1 0 0 0: mean 1/4, variance 3/16. Category means 1/2 1/2 0 0: variance 1/16, a third. The cells hold one
    # prompt each and explain all; the other two thirds are difficulty's.
    assert [figure.value for figure in assessed.explained["word"]] == pytest.approx([100 / 3, 200 / 3, -100 / 3])
    assert [figure.value for figure in assessed.explained["all"]] == [0, 0, 0]


def test_cost_goes_by_length(assessed: Assessment) -> None:
    # Lengths 10 and 8; the longer goes to the strong model, the other costs a quarter: (10 + 8/4) of 18.
    assert assessed.cost("word", "coding", 0.25).value == pytest.approx(100 * 12 / 18)


def test_flips_by_rewording() -> None:
    # "Strong" opens the only prompt that goes to the strong model, and turns only where capitals are lost.
    probes = [Probe("Strong case", "coding", "simple"), Probe("another", "coding", "simple")]
    assessed = assess({"word": [if_word("Strong")]}, probes, embed, ["lower case", "padding"])
    figures = [assessed.flips("word", rewording).value for rewording in ("lower case", "padding", None)]
    assert figures == [50, 0, 25]


def test_runs_are_averaged() -> None:
    assessed = assess({"both": [if_word("strong"), always(True)]}, PROBES, embed, rewordings=())
    np.testing.assert_array_equal(assessed.strong_RN, [[1, 0.5, 0.5, 0.5]])


@pytest.mark.parametrize(("share", "threshold"), [(0.3, 0.9), (0.6, 0.2), (1.0, 0.1)])
def test_thresholds_reach_the_nearest_share(share: float, threshold: float) -> None:
    # At .9 a fifth goes to the strong model, at .2 four fifths, at .1 all.
    assert threshold_for(np.array([0.1, 0.2, 0.2, 0.2, 0.9]), share) == threshold


def test_a_coin_is_fair_and_keeps_its_word() -> None:
    queries = embed([f"prompt {n}" for n in range(2000)])
    strong = coin_flip().to_strong(queries)
    assert abs(strong.mean() - 0.5) < 0.04
    np.testing.assert_array_equal(strong, coin_flip().to_strong(queries))
    assert 0.4 < (strong != coin_flip(1).to_strong(queries)).mean() < 0.6


def parts(test: Recorded) -> Split:
    return Split(test, test, test)


def test_waste_by_hand() -> None:
    # Prompts 0 1 2 go to the strong model; the weak one answers 0 and 1 too: 2/3 wasted. Of 3 and 4, which go to the
    # weak one, only the strong one answers 4: 1/2 missed. Quality: 1 1 0 1 0. Cost: 3 * 2 + 2 * .5 of 5 * 2.
    data = recorded_of([(1, 1), (1, 1), (0, 0), (1, 1), (1, 0)])
    score_N = np.array([5.0, 4, 3, 2, 1])
    figures = waste([TwoModelRouter(lambda _: score_N >= 3, lambda _: score_N)], [parts(data)])
    assert {name: figure.value for name, figure in figures.items()} == {
        "to the strong model, %": 60,
        "of these wasted, %": pytest.approx(200 / 3),
        "of the others missed, %": 50,
        "cost, % of always strong": 70,
        "quality, %": 60,
        "AUC": 0,  # the one prompt that needs the strong model scores least
        "AUC inside a task": 0,
    }


def test_waste_of_a_router_that_never_asks_the_strong_model() -> None:
    line = waste([always(False)], [parts(recorded_of([(1, 0), (1, 1)]))])
    assert not {"of these wasted, %", "AUC"} & line.keys() and line["of the others missed, %"].value == 50


def test_waste_of_tasks_by_name_of_which_some_splits_test_none() -> None:
    with_it = recorded_of([(1, 1), (1, 0), (1, 1)], ["college_mathematics", "college_mathematics", "virology"])
    without = recorded_of([(1, 1), (1, 0)], ["law", "law"])
    lines = waste_by_group([always(True)] * 2, [parts(with_it), parts(without)])
    assert list(lines) == ["all", "mathematics", "college and profession"]
    assert lines["mathematics"]["of these wasted, %"].value == 50


def test_auc_within_tasks_forgets_what_the_task_says() -> None:
    # Task a scores high and needs the strong model more often; within each task the order is wrong.
    score, ones = np.array([10.0, 9, 8, 2, 1, 0]), np.ones((1, 6))
    positive = np.array([False, True, True, False, False, True])
    assert auc_inside(score, positive, [""] * 6, ones)[0] == pytest.approx(roc_auc_score(positive, score))
    # In a: the negative above both positives, 0 of 2 pairs; in b: 0 of 2.
    assert auc_inside(score, positive, ["a", "a", "a", "b", "b", "b"], ones)[0] == 0
    assert np.isnan(auc_inside(score[:2], positive[1:3], ["a", "a"], np.ones((1, 2)))[0])
