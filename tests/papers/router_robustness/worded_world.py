"""A made-up world for routers: prompts are sums of their words, and answers are recorded as a test wants them."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from mofme.language.sentence_encoder import Queries
from mofme.language.tables.table import FloatArray, RoutingTable
from mofme.papers.router_robustness.routers import BoolArray, Recorded

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


@dataclass(frozen=True)
class IfWord:
    """Sends to the strong model whatever holds the word."""

    word: str
    name: str = "if word"

    def to_strong(self, queries: Queries) -> BoolArray:
        return np.array([self.word in prompt for prompt in queries.prompts], dtype=bool)


def table_of(qualities: Sequence[tuple[float, float]], tasks: Sequence[str] | None = None) -> RoutingTable:
    count = len(qualities)
    return RoutingTable(
        "made",
        tuple(f"prompt {n}" for n in range(count)),
        ("strong", "weak"),
        np.array(qualities, np.float64),
        np.tile([2.0, 0.5], (count, 1)),
        tuple(tasks or [""] * count),
    )


def recorded_of(qualities: Sequence[tuple[float, float]], tasks: Sequence[str] | None = None) -> Recorded:
    table = table_of(qualities, tasks)
    return Recorded(table, embed(table.prompts), np.arange(len(table)))
