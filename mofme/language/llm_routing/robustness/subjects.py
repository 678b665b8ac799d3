"""Routers under test: each says which prompts go to the stronger, dearer one of its two models."""

import hashlib
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from mofme.language.llm_routing.prompt_router import Queries
from mofme.language.llm_routing.table import FloatArray, RoutingTable

BoolArray = NDArray[np.bool_]


class Subject(Protocol):
    """A router that is ready to decide."""

    @property
    def name(self) -> str: ...

    def to_strong(self, queries: Queries) -> BoolArray:
        """Which of the N prompts go to the strong model (N,)."""
        ...


class Scorer(Protocol):
    """A router that learns from recorded answers of two models how much a prompt needs the strong one."""

    @property
    def name(self) -> str: ...

    def fit(self, table: RoutingTable, queries: Queries) -> None: ...

    def strong_probability(self, queries: Queries) -> FloatArray:
        """How much each prompt needs the strong model (N,): only the order matters here."""
        ...


@dataclass(frozen=True)
class Calibrated:
    """A scorer that sends to the strong model whatever reaches the threshold."""

    name: str
    scorer: Scorer
    threshold: float

    def to_strong(self, queries: Queries) -> BoolArray:
        return self.scorer.strong_probability(queries) >= self.threshold


def threshold_for(scores_N: FloatArray, share: float) -> float:
    """The threshold that sends the share of these scores nearest to `share` to the strong model."""
    levels, counts = np.unique(scores_N, return_counts=True)
    reaching = counts[::-1].cumsum()[::-1] / len(scores_N)  # at threshold levels[i], this share
    nearest = int(np.abs(reaching - share).argmin())
    return float(levels[nearest])


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
