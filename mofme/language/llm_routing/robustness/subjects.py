"""Routers under test: each says which prompts go to the stronger, dearer one of its two models."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from mofme.language.sentence_encoder import Queries
from mofme.language.tables.table import FloatArray

BoolArray = NDArray[np.bool_]
Score = Callable[[Queries], FloatArray]


class Subject(Protocol):
    """A router that is ready to decide."""

    @property
    def name(self) -> str: ...

    def to_strong(self, queries: Queries) -> BoolArray:
        """Which of the N prompts go to the strong model (N,)."""
        ...


@dataclass(frozen=True)
class Calibrated:
    """Sends to the strong model whatever scores at least the threshold; `score` gives how much prompts need it (N,)."""

    name: str
    score: Score
    threshold: float

    def to_strong(self, queries: Queries) -> BoolArray:
        return self.score(queries) >= self.threshold


def threshold_for(scores_N: FloatArray, share: float) -> float:
    """The threshold that sends the share of these scores nearest to `share` to the strong model."""
    levels, counts = np.unique(scores_N, return_counts=True)
    reaching = counts[::-1].cumsum()[::-1] / len(scores_N)  # at threshold levels[i], this share
    return float(levels[np.abs(reaching - share).argmin()])


@dataclass(frozen=True)
class Always:
    """Sends everything to one model."""

    name: str
    strong: bool

    def to_strong(self, queries: Queries) -> BoolArray:
        return np.full(len(queries), self.strong)


@dataclass(frozen=True)
class CoinFlip:
    """Sends `share` of all prompts to the strong model, by a hash of their text: the same text, the same way."""

    seed: int = 0
    share: float = 0.5
    name: str = "coin flip"

    def to_strong(self, queries: Queries) -> BoolArray:
        digests = (hashlib.sha256(f"{self.seed}\n{prompt}".encode(errors="replace")) for prompt in queries.prompts)
        return np.array([int.from_bytes(digest.digest()[:6]) / 2**48 < self.share for digest in digests], dtype=bool)


@dataclass(frozen=True)
class Guarded:
    """A router with a guard before it: what the guard stops goes to the strong model, whatever the router says."""

    name: str
    router: Subject
    stops: Callable[[Queries], BoolArray]

    def to_strong(self, queries: Queries) -> BoolArray:
        return self.stops(queries) | self.router.to_strong(queries)


def controls(seeds: int) -> list[Subject]:
    """What every router stands beside: a coin and the two ends."""
    coins = [CoinFlip(seed) for seed in range(seeds)]
    return [*coins, Always("always strong", True), Always("always weak", False)]
