"""Means with their intervals: bootstrap over prompts, or over groups of prompts that belong together."""

from collections.abc import Hashable, Sequence

import numpy as np
from numpy.typing import ArrayLike

from mofme.results import Figure

SAMPLES = 2000


def mean_of(values: ArrayLike, groups: Sequence[Hashable] | None = None, percent: bool = False) -> Figure:
    """The mean of some values with its 95 % interval; with groups, whole groups are drawn.

    Raises ValueError if there are no values.
    """
    values_N = np.asarray(values, dtype=np.float64) * (100 if percent else 1)
    if not len(values_N):
        raise ValueError("a mean needs values")
    group_of: dict[Hashable, int] = {}
    keys = range(len(values_N)) if groups is None else groups
    members_N = np.array([group_of.setdefault(key, len(group_of)) for key in keys])
    totals_G, counts_G = np.bincount(members_N, values_N), np.bincount(members_N)
    drawn_SG = np.random.default_rng(0).integers(len(totals_G), size=(SAMPLES, len(totals_G)))
    means_S = totals_G[drawn_SG].sum(1) / counts_G[drawn_SG].sum(1)
    low, high = np.quantile(means_S, [0.025, 0.975])
    return Figure(float(values_N.mean()), float(low), float(high))
