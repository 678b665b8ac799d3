"""Means with their intervals: bootstrap over prompts, or over groups of prompts that belong together."""

from collections.abc import Hashable, Sequence

import numpy as np
from numpy.typing import ArrayLike

from mofme.language.llm_routing.table import FloatArray
from mofme.results import Figure

SAMPLES = 2000


def ratio_of(parts: ArrayLike, wholes: ArrayLike, groups: Sequence[Hashable] | None = None) -> Figure:
    """The sum of some parts over that of their wholes, in percent, with its 95 % interval; groups as in `mean_of`."""
    parts_N, wholes_N = np.asarray(parts, dtype=np.float64), np.asarray(wholes, dtype=np.float64)
    return _drawn(100 * parts_N, wholes_N, groups)


def mean_of(values: ArrayLike, groups: Sequence[Hashable] | None = None, percent: bool = False) -> Figure:
    """The mean of some values with its 95 % interval; with groups, whole groups are drawn.

    Raises ValueError if there are no values.
    """
    values_N = np.asarray(values, dtype=np.float64) * (100 if percent else 1)
    return _drawn(values_N, np.ones_like(values_N), groups)


def _drawn(parts_N: FloatArray, wholes_N: FloatArray, groups: Sequence[Hashable] | None) -> Figure:
    if not len(parts_N):
        raise ValueError("a mean needs values")
    group_of: dict[Hashable, int] = {}
    keys = range(len(parts_N)) if groups is None else groups
    members_N = np.array([group_of.setdefault(key, len(group_of)) for key in keys])
    parts_G, wholes_G = np.bincount(members_N, parts_N), np.bincount(members_N, wholes_N)
    drawn_SG = np.random.default_rng(0).integers(len(parts_G), size=(SAMPLES, len(parts_G)))
    low, high = np.quantile(parts_G[drawn_SG].sum(1) / wholes_G[drawn_SG].sum(1), [0.025, 0.975])
    return Figure(float(parts_N.sum() / wholes_N.sum()), float(low), float(high))
