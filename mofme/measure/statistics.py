"""How far a figure could be off: other seeds, pictures or questions might have been measured. Intervals are of 95 %.

Axis names: N values, B draws, G groups.
"""

import math
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mofme.measure.result import Figure

FloatArray = NDArray[np.float64]
DRAWS = 2000
_FEW = 20
_AT_ONCE = 1 << 22  # values that are drawn together: more would only take memory


def students_mean(values_N: FloatArray) -> Figure:
    """Mean with Student's interval; without one for a single value. A few values, as one a seed, are told as well."""
    count = len(values_N)
    error = values_N.std(ddof=1) / math.sqrt(count) if count > 1 else 0.0
    figure = students_interval(float(values_N.mean()), float(error), count)
    return replace(figure, values=tuple(values_N.tolist())) if 1 < count <= _FEW else figure


def students_interval(value: float, error: float, count: int) -> Figure:
    """A figure of `count` values with its standard error; without an interval for a single value."""
    if count < 2:
        return Figure(value)
    from scipy import stats  # takes most of a second: not before it is needed

    half = float(stats.t.ppf(0.975, count - 1) * error)
    return Figure(value, value - half, value + half)


def difference_of_means(one: Figure, other: Figure, counts: tuple[int, int]) -> Figure:
    """Of two means with Student's intervals over `counts` values, measured apart (Welch, 1947).

    Without an interval where one has none, or is of a single value.
    """
    value = one.value - other.value
    if min(counts) < 2 or None in (one.low, other.low):
        return Figure(value)
    from scipy import stats

    # The longer half: the other may have been cut where the figure could not be.
    halves = [max(figure.value - (figure.low or 0.0), (figure.high or 0.0) - figure.value) for figure in (one, other)]
    squares = [(half / stats.t.ppf(0.975, count - 1)) ** 2 for half, count in zip(halves, counts, strict=True)]
    variance = sum(squares)
    uncertain = sum(square**2 / (count - 1) for square, count in zip(squares, counts, strict=True))
    half = float(stats.t.ppf(0.975, variance**2 / uncertain if variance else 1.0) * math.sqrt(variance))
    return Figure(value, value - half, value + half)


def paired_shares(right_N: FloatArray, others_N: FloatArray) -> Figure:
    """How many more of the same N questions, in points, are answered rightly (1, else 0) than by another.

    With the interval of Agresti and Min (2005), which has a width where no answer changed: half a question is added to
    each of the four ways in which two can be right or wrong. A single question has no interval.
    """
    gain_N = right_N - others_N
    value, count = 100 * float(gain_N.mean()), len(gain_N) + 2
    if len(gain_N) < 2:
        return Figure(value)
    from scipy import stats

    centre = float(gain_N.sum()) / count
    variance = (float(np.abs(gain_N).sum()) + 1) / count - centre**2
    half = float(stats.norm.ppf(0.975)) * math.sqrt(variance / count)
    return Figure(value, min(value, 100 * (centre - half)), max(value, 100 * (centre + half)))


def clipped(figure: Figure, low: float = -math.inf, high: float = math.inf) -> Figure:
    """With the interval ending where the figure could not be: a share is not above 100 %."""
    if figure.low is None or figure.high is None:
        return figure
    return replace(figure, low=max(figure.low, low), high=min(figure.high, high))


def bootstrap(values_N: FloatArray, statistic: Callable[..., Any] = np.mean, draws: int = DRAWS) -> Figure:
    """`statistic` of the values, which takes an `axis`, with its percentile interval over values drawn anew.

    A single value has no interval.
    """
    if len(values_N) < 2:
        return Figure(float(statistic(values_N)))
    drawn = [statistic(values_N[index], axis=1) for index in _drawn(len(values_N), draws, np.random.default_rng(0))]
    return Figure(float(statistic(values_N)), *percentiles(np.concatenate(drawn)))


def stratified_bootstrap(strata: Sequence[FloatArray], draws: int = 10_000) -> Figure:
    """The mean over strata of each one's mean (N,), with the interval of values drawn anew within each stratum."""
    generator = np.random.default_rng(0)
    drawn = [
        np.concatenate([values_N[index].mean(axis=1) for index in _drawn(len(values_N), draws, generator)])
        for values_N in strata
    ]
    return Figure(float(np.mean([values_N.mean() for values_N in strata])), *percentiles(np.mean(drawn, axis=0)))


def bootstrap_percent(
    parts: ArrayLike, wholes: ArrayLike | None = None, groups: Sequence[Hashable] | None = None
) -> Figure:
    """The sum of some parts over that of their wholes, by default 1 each, in percent; pairs are drawn anew together.

    With `groups` whole groups are drawn, as of a prompt's several runs. A single pair, or group, has no interval. Draws
    whose whole is not above zero are left out. Raises ValueError where there is nothing.
    """
    parts_N = 100 * np.asarray(parts, dtype=np.float64)
    wholes_N = np.ones_like(parts_N) if wholes is None else np.asarray(wholes, dtype=np.float64)
    if not len(parts_N):
        raise ValueError("a share needs values")
    value = float(parts_N.sum() / wholes_N.sum())
    if groups is not None:
        number: dict[Hashable, int] = {}
        group_N = np.array([number.setdefault(group, len(number)) for group in groups])
        parts_N, wholes_N = (np.bincount(group_N, of_N).astype(np.float64) for of_N in (parts_N, wholes_N))
    if len(parts_N) < 2:
        return Figure(value)
    drawn = []
    for index in _drawn(len(parts_N), DRAWS, np.random.default_rng(0)):
        parts_B, wholes_B = parts_N[index].sum(1), wholes_N[index].sum(1)
        drawn.append(np.divide(parts_B, wholes_B, out=np.full(len(index), np.nan), where=wholes_B > 0))
    return Figure(value, *percentiles(np.concatenate(drawn)))


def _drawn(count: int, draws: int, generator: np.random.Generator) -> Iterator[NDArray[np.int64]]:
    """Which of `count` values come into each draw, (B, N) at a time; the same draws however many come at a time."""
    some = max(1, _AT_ONCE // count)
    for start in range(0, draws, some):
        yield generator.integers(count, size=(min(some, draws - start), count))


def percentiles(drawn_B: FloatArray) -> tuple[float, float]:
    """The ends that 95 % of the draws lie between. Draws that are not finite (a share of nothing) are left out."""
    low, high = np.quantile(drawn_B[np.isfinite(drawn_B)], [0.025, 0.975])
    return float(low), float(high)


def wilson(right: float, count: int) -> Figure:
    """The share of `count` questions that were answered rightly, with Wilson's interval (1927).

    `right` may be a mean over seeds that answer the same questions: the interval is then that of one seed's number.
    """
    from scipy import stats

    interval = stats.binomtest(round(right), count).proportion_ci(method="wilson")
    return Figure(right / count, float(interval.low), float(interval.high))


def median_by_ranks(values_N: FloatArray) -> Figure:
    """Median with its interval by ranks, whatever the distribution; without one for fewer than six values."""
    from scipy import stats

    rank = int(stats.binom.ppf(0.025, len(values_N), 0.5))
    sorted_N, value = np.sort(values_N), float(np.median(values_N))
    return Figure(value, float(sorted_N[rank - 1]), float(sorted_N[-rank])) if rank else Figure(value)


def wider(*figures: Figure) -> Figure:
    """The first figure with the wider of all their intervals at either end."""
    ends = [end for figure in figures for end in (figure.low, figure.high) if end is not None]
    return Figure(figures[0].value, min(ends), max(ends)) if ends else figures[0]
