"""How far a mean could be off because other seeds, repeats or windows might have been measured."""

import math

import numpy as np
from numpy.typing import NDArray

from mofme.results import Figure


def students_mean(values_N: NDArray[np.float64]) -> Figure:
    """Mean with Student's 95 % interval; without one for a single value."""
    from scipy import stats  # takes most of a second: not before it is needed

    mean, count = float(values_N.mean()), len(values_N)
    if count < 2:
        return Figure(mean)
    half = float(stats.t.ppf(0.975, count - 1) * values_N.std(ddof=1) / math.sqrt(count))
    return Figure(mean, mean - half, mean + half)
