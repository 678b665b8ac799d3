"""A made-up world for routers: prompts are sums of their words, and answers are recorded as a test wants them."""

from collections.abc import Sequence
from functools import cache

import numpy as np

from mofme.language.sentence_encoder import Queries
from mofme.language.tables.table import FloatArray, RoutingTable
from mofme.papers.router_robustness.routers import Recorded, TwoModelRouter

DIM = 16


@cache
def direction(word: str) -> FloatArray:
    """Three words stand apart from each other and from all others, which are at random among themselves."""
    apart = ["hard", "easy", "xyzzy"]
    if word in apart:
        return np.eye(DIM)[apart.index(word)]
    return np.r_[np.zeros(3), np.random.default_rng(list(word.encode())).normal(size=DIM - 3) / DIM]


def embed(prompts: Sequence[str]) -> Queries:
    """A prompt is the sum of its words' directions."""
    rows = [np.sum([direction(word) for word in prompt.split()], axis=0) for prompt in prompts]
    return Queries(prompts, np.array(rows).reshape(len(prompts), DIM))


def if_word(word: str) -> TwoModelRouter:
    """Sends to the strong model whatever holds the word."""
    return TwoModelRouter(lambda queries: np.array([word in prompt for prompt in queries.prompts], dtype=bool))


def table_of(qualities: Sequence[tuple[float, float]], tasks: Sequence[str] | None = None) -> RoutingTable:
    count = len(qualities)
    prompts, costs_NM = tuple(f"prompt {n}" for n in range(count)), np.tile([2.0, 0.5], (count, 1))
    quality_NM = np.array(qualities, np.float64)
    return RoutingTable("made", prompts, ("strong", "weak"), quality_NM, costs_NM, tuple(tasks or [""] * count))


def recorded_of(qualities: Sequence[tuple[float, float]], tasks: Sequence[str] | None = None) -> Recorded:
    table = table_of(qualities, tasks)
    return Recorded(table, embed(table.prompts), np.arange(len(table)))
