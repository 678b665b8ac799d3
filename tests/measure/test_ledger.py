"""A claim is worth what its figures say, and a gate that fails says that nothing can be seen."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from mofme.measure.pages import ledger
from mofme.measure.result import Check, Figure, Judgement, Result, Row, Verdict, load_result, save_result
from mofme.measure.statistics import clipped, difference_of_means, students_mean

ABOVE, BELOW, AROUND = Figure(2, 1, 3), Figure(-2, -3, -1), Figure(0.5, -1, 2)


def judgement(*parts: Figure, gates: tuple[Figure, ...] = ()) -> Judgement:
    checks = [Check("gain, dB", figure) for figure in parts]
    return Judgement("it helps", "exact", "small", checks, [Check("oracle", one) for one in gates], "more of it")


@pytest.mark.parametrize(
    ("parts", "gates", "verdict"),
    [
        ((ABOVE, ABOVE), (), Verdict.REPRODUCED),
        ((ABOVE, BELOW), (), Verdict.CONTRADICTED),  # a claim of two parts is as good as the worse
        ((ABOVE, AROUND), (), Verdict.UNSEEN),
        ((AROUND, BELOW), (), Verdict.CONTRADICTED),
        ((Figure(9),), (), Verdict.UNSEEN),  # nobody knows how sure it is
        ((ABOVE,), (ABOVE,), Verdict.REPRODUCED),
        ((ABOVE,), (AROUND,), Verdict.UNSEEN),
        ((BELOW,), (ABOVE, BELOW), Verdict.UNSEEN),
        ((), (), Verdict.UNSEEN),
    ],
)
def test_verdicts(parts: tuple[Figure, ...], gates: tuple[Figure, ...], verdict: Verdict) -> None:
    assert judgement(*parts, gates=gates).verdict == verdict


def test_a_level_and_a_side() -> None:
    assert Check("error, points", Figure(0.1, -0.1, 0.2), 0.3, below=True).side == 1
    assert Check("error, points", Figure(0.4, 0.35, 0.5), 0.3, below=True).side == -1
    assert Check("references", Figure.exact(106), 500).side == -1


def test_the_sentences_tell_what_the_verdict_hangs_on() -> None:
    assert judgement(ABOVE, gates=(AROUND,)).sentences() == (
        "Cannot be seen here: it helps. Oracle: 0.50 (-1.00 to 2.00), where it had to be above 0. "
        "It would take more of it."
    )
    assert judgement(BELOW).sentences() == (
        "Contradicted: it helps. Gain, dB: -2.00 (-3.00 to -1.00), where the claim wants it above 0."
    )
    assert judgement(AROUND).least() == "1.50 (gain, dB)"  # half of -1 to 2


def test_a_file_cannot_claim_what_its_figures_do_not(tmp_path: Path) -> None:
    saved = Result("room", "a paper", "a claim", "words", "x --steps 400", [], [], judgements=[judgement(AROUND)])
    path = save_result(saved, tmp_path)
    assert load_result("room", tmp_path) == saved and saved.option("--steps") == "400"
    plain = json.loads(path.read_text(encoding="utf-8"))
    assert plain["judgements"][0]["verdict"] == "cannot be seen here"
    plain["judgements"][0]["verdict"] = "reproduced"
    path.write_text(json.dumps(plain), encoding="utf-8")
    assert ledger(False, tmp_path)[1] == [["a paper", "it helps", "cannot be seen here"]]
    assert [len(ledger(whole, tmp_path)[1][0]) for whole in (True, False)] == [8, 3]


def test_the_seeds_are_told_and_old_files_are_read(tmp_path: Path) -> None:
    figure = students_mean(np.array([1.0, 2.0, 3.0]))
    path = save_result(Result("room", "p", "c", "v", "x", [Row("t", "n", {"a": figure, "b": Figure(1)})]), tmp_path)
    plain = json.loads(path.read_text(encoding="utf-8"))["rows"][0]["figures"]
    assert plain["a"]["values"] == [1, 2, 3] and "values" not in plain["b"]
    assert load_result("room", tmp_path).rows[0].figures["a"] == dataclasses.replace(figure, values=())


def test_two_means_apart_are_compared_as_scipy_does() -> None:
    one, other = np.array([1.26, 1.38, 1.24]), np.array([1.2, 1.4, 1.3])
    figure = difference_of_means(students_mean(one), students_mean(other), 3)
    low, high = stats.ttest_ind(one, other, equal_var=False).confidence_interval()
    assert (figure.low, figure.high) == pytest.approx((low, high))
    assert clipped(Figure(90, 70, 110), high=100) == Figure(90, 70, 100)
