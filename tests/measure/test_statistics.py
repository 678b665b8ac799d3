"""Intervals, against what they are by hand, and against scipy's where it has one."""

import numpy as np
import pytest
from scipy import stats

from mofme.measure import statistics
from mofme.measure.result import Figure
from mofme.measure.statistics import (
    bootstrap,
    bootstrap_percent,
    median_by_ranks,
    percentiles,
    stratified_bootstrap,
    students_mean,
    wider,
    wilson,
)

VALUES_N = np.random.default_rng(3).normal(size=37)


def test_a_mean_over_seeds_has_students_interval() -> None:
    found = stats.ttest_1samp(VALUES_N, 0).confidence_interval(0.95)
    figure = students_mean(VALUES_N)
    assert (figure.low, figure.high) == (pytest.approx(found.low), pytest.approx(found.high))


@pytest.mark.parametrize("statistic", [np.mean, np.median])
def test_the_bootstrap_is_scipys(statistic: object) -> None:
    found = stats.bootstrap((VALUES_N,), statistic, n_resamples=2000, method="percentile", rng=0)
    figure = bootstrap(VALUES_N, statistic)  # type: ignore[arg-type]
    ends = found.confidence_interval
    assert (figure.low, figure.high) == (pytest.approx(ends.low), pytest.approx(ends.high))


def test_draws_are_the_same_however_many_are_made_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    figure, stratified = bootstrap(VALUES_N), stratified_bootstrap([VALUES_N, VALUES_N[:5]], draws=300)
    monkeypatch.setattr(statistics, "_AT_ONCE", 7 * 37)
    assert bootstrap(VALUES_N) == figure
    assert stratified_bootstrap([VALUES_N, VALUES_N[:5]], draws=300) == stratified


def test_one_value_has_no_interval() -> None:
    one_N = np.array([1.5])
    assert students_mean(one_N) == bootstrap(one_N) == Figure(1.5)
    assert bootstrap_percent([0.5]) == bootstrap_percent([0.5, 0.5], groups="aa") == Figure(50)


def test_a_mean_of_groups_draws_whole_groups() -> None:
    # All of one group are 1, all of the other 0: a draw of two groups has a mean of 0, 50 or 100 %.
    figure = bootstrap_percent([1.0] * 50 + [0.0] * 50, groups=["a"] * 50 + ["b"] * 50)
    assert (figure.value, figure.low, figure.high) == (50, 0, 100)
    alone = bootstrap_percent([1.0] * 50 + [0.0] * 50)
    assert alone.low is not None and 35 < alone.low < 45


def test_a_ratio_is_that_of_the_sums() -> None:
    figure = bootstrap_percent([1.0, 3.0], [2.0, 8.0])
    assert figure.value == 40  # 4 of 10, where the mean of the ratios is 43.75
    assert (figure.low, figure.high) == (37.5, 50)


def test_draws_without_a_whole_are_left_out() -> None:
    # A draw of the pair (0, 0) alone has no share; in all others it is 60 %.
    assert bootstrap_percent([3.0, 0.0], [5.0, 0.0]) == Figure(60, 60, 60)
    assert percentiles(np.array([np.nan, 1.0, 1.0])) == (1, 1)
    with pytest.raises(ValueError, match="needs values"):
        bootstrap_percent([])


def test_wilson_by_hand() -> None:
    # Nothing of n: from 0 to z^2 / (n + z^2).
    z = stats.norm.ppf(0.975)
    assert wilson(0, 20) == Figure(0, 0, pytest.approx(z**2 / (20 + z**2)))
    mean = wilson(9.6, 20)  # of seeds; the interval is that of 10 right answers
    assert (mean.value, mean.low) == (0.48, wilson(10, 20).low)


def test_the_stratified_bootstrap_draws_as_if_one_by_one() -> None:
    gain_N = np.array([100.0, 0.0, -20.0, 40.0, 0.0, 60.0, 7.0])
    generator = np.random.default_rng(0)
    drawn = [gain_N[generator.integers(7, size=7)].mean() for _ in range(10_000)]
    figure = stratified_bootstrap([gain_N])
    assert [figure.low, figure.high] == np.quantile(drawn, [0.025, 0.975]).tolist()


def test_a_median_and_its_ranks() -> None:
    # Of 6 values both ends: chance 2 / 2^6 = 3.1 % that the median lies outside. Of 5 it would be 6.25 %: none.
    assert median_by_ranks(np.array([5.0, 1.0, 4.0, 100.0, 2.0, 3.0])) == Figure(3.5, 1.0, 100.0)
    assert median_by_ranks(np.arange(5.0)) == Figure(2.0)
    # Of 11 the second at either end: 2 (1 + 11) / 2^11 = 1.2 %; the third: 2 (1 + 11 + 55) / 2^11 = 6.5 %.
    assert median_by_ranks(np.arange(11.0)) == Figure(5.0, 1.0, 9.0)


def test_the_wider_interval_counts() -> None:
    assert wider(Figure(1, 0, 2), Figure(1, 0.5, 3), Figure(1)) == Figure(1, 0, 3)
    assert wider(Figure(1), Figure(1)) == Figure(1)
