"""How far a figure could be off because other pictures might have been measured."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from mofme.results import Figure

_RESAMPLES = 2000


def bootstrap(values: NDArray[np.float64], statistic: Callable[[NDArray[np.float64]], float] = np.mean) -> Figure:
    """`statistic` of `values` (N, ...) with its 95 % percentile interval over N drawn with replacement.

    A single value has no interval. Draws for which the statistic is not finite (a share of nothing) are left out.
    """
    if len(values) < 2:
        return Figure(float(statistic(values)))
    random = np.random.default_rng(0)
    drawn = np.array([statistic(values[random.integers(len(values), size=len(values))]) for _ in range(_RESAMPLES)])
    low, high = np.quantile(drawn[np.isfinite(drawn)], [0.025, 0.975])
    return Figure(float(statistic(values)), float(low), float(high))
