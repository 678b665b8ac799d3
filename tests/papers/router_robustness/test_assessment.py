"""What is measured of routers' decisions and of their waste, against numbers worked out by hand."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from mofme.papers.router_robustness.assessment import assess, auc_inside, waste, waste_by_group
from mofme.papers.router_robustness.probes import Probe
from mofme.papers.router_robustness.routers import Always, Calibrated, CoinFlip, Guarded, Recorded, Split, threshold_for
from tests.papers.router_robustness.worded_world import IfWord, embed, recorded_of

# Of two coding prompts one goes to the strong model, of two general ones none.
PROBES = [
    Probe("strong one", "coding", "simple"),
    Probe("weak one", "coding", "hard"),
    Probe("any", "general knowledge", "simple"),
    Probe("thing", "general knowledge", "hard"),
]


def test_shares_by_category_and_difficulty() -> None:
    assessed = assess([IfWord("strong"), Always("all", True)], PROBES, embed, rewordings=())
    assert assessed.share("if word", "coding").value == 50
    assert assessed.share("if word", "coding", "simple").value == 100
    assert assessed.share("if word").value == 25
    assert assessed.share("if word", "coding", source="own").value == 50
    assert (assessed.share("all", "coding").value, assessed.share("if word", "general knowledge").value) == (100, 0)
    assert (assessed.share("if word", "coding", "hard").value, assessed.share("all", None, "hard").value) == (0, 100)


def test_variance_is_split_between_category_and_difficulty() -> None:
    # Decisions 1 0 0 0: mean 1/4, variance 3/16. Category means 1/2 1/2 0 0: variance 1/16, a third. The cells hold one
    # prompt each and explain all; the other two thirds are difficulty's.
    assessed = assess([IfWord("strong"), Always("all", True)], PROBES, embed, rewordings=())
    assert [figure.value for figure in assessed.explained("if word")] == pytest.approx([100 / 3, 200 / 3, -100 / 3])
    assert [figure.value for figure in assessed.explained("all")] == [0, 0, 0]


def test_flips_by_rewording() -> None:
    # "Strong" opens the only prompt that goes to the strong model, and turns only where capitals are lost.
    probes = [Probe("Strong case", "coding", "simple"), Probe("another", "coding", "simple")]
    assessed = assess([IfWord("Strong")], probes, embed, ["lower case", "padding"])
    assert assessed.flips("if word", "lower case").value == 50
    assert assessed.flips("if word", "padding").value == 0
    assert assessed.flips("if word").value == 25


def test_runs_of_one_name_are_averaged() -> None:
    assessed = assess([IfWord("strong"), Always("if word", True)], PROBES, embed, rewordings=())
    np.testing.assert_array_equal(assessed.strong_RN, [[1, 0.5, 0.5, 0.5]])


def test_cost_goes_by_length() -> None:
    # Lengths 10 and 8; the longer goes to the strong model, the other costs a quarter: (10 + 8/4) of 18.
    assessed = assess([IfWord("strong")], PROBES, embed, rewordings=())
    assert assessed.cost("if word", "coding", 0.25).value == pytest.approx(100 * 12 / 18)


def test_thresholds_reach_the_nearest_share() -> None:
    scores = np.array([0.1, 0.2, 0.2, 0.2, 0.9])
    # At .9 a fifth goes to the strong model, at .2 four fifths, at .1 all.
    assert threshold_for(scores, 0.3) == 0.9
    assert threshold_for(scores, 0.6) == 0.2
    assert threshold_for(scores, 1.0) == 0.1


def test_a_coin_is_fair_and_keeps_its_word() -> None:
    queries = embed([f"prompt {n}" for n in range(2000)])
    strong = CoinFlip().to_strong(queries)
    assert abs(strong.mean() - 0.5) < 0.04
    np.testing.assert_array_equal(strong, CoinFlip().to_strong(queries))
    assert 0.4 < (strong != CoinFlip(1).to_strong(queries)).mean() < 0.6


def test_a_guard_goes_first() -> None:
    guarded = Guarded("both", IfWord("strong"), lambda queries: np.array(["weak" in p for p in queries.prompts]))
    np.testing.assert_array_equal(guarded.to_strong(embed([p.prompt for p in PROBES])), [True, True, False, False])


def parts(test: Recorded) -> Split:
    return Split(test, test, test)


def test_waste_by_hand() -> None:
    # Prompts 0 1 2 go to the strong model; the weak one answers 0 and 1 too: 2/3 wasted. Of 3 and 4, which go to the
    # weak one, only the strong one answers 4: 1/2 missed. Quality: 1 1 0 1 0. Cost: 3 * 2 + 2 * .5 of 5 * 2.
    data = recorded_of([(1, 1), (1, 1), (0, 0), (1, 1), (1, 0)])
    router = Calibrated("r", lambda queries: np.array([5.0, 4, 3, 2, 1]), 3)
    figures = waste([router], [parts(data)])
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
    line = waste([Always("weak", False)], [parts(recorded_of([(1, 0), (1, 1)]))])
    assert not {"of these wasted, %", "AUC"} & line.keys() and line["of the others missed, %"].value == 50


def test_waste_of_tasks_by_name() -> None:
    data = recorded_of([(1, 1), (1, 0), (1, 1)], ["college_mathematics", "college_mathematics", "virology"])
    lines = waste_by_group([Always("strong", True)], [parts(data)])
    assert list(lines) == ["all", "mathematics", "college and profession"]
    assert lines["mathematics"]["of these wasted, %"].value == 50


def test_auc_within_tasks_forgets_what_the_task_says() -> None:
    # Task a scores high and needs the strong model more often; within each task the order is wrong.
    score = np.array([10.0, 9, 8, 2, 1, 0])
    positive = np.array([False, True, True, False, False, True])
    tasks = ["a", "a", "a", "b", "b", "b"]
    ones = np.ones((1, 6))
    assert auc_inside(score, positive, [""] * 6, ones)[0] == pytest.approx(roc_auc_score(positive, score))
    # In a: the negative above both positives, 0 of 2 pairs; in b: 0 of 2.
    assert auc_inside(score, positive, tasks, ones)[0] == 0
    assert np.isnan(auc_inside(score[:2], positive[1:3], ["a", "a"], np.ones((1, 2)))[0])


def test_a_task_that_only_some_splits_test() -> None:
    with_it = recorded_of([(1, 1), (1, 0)], ["college_mathematics", "law"])
    without = recorded_of([(1, 1), (1, 0)], ["law", "law"])
    lines = waste_by_group([Always("strong", True)] * 2, [parts(with_it), parts(without)])
    assert lines["mathematics"]["of these wasted, %"].value == 100
