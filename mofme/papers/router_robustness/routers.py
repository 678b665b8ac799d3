"""Routers under test: each says which prompts go to the stronger, dearer one of its two models.

Some are trained on recorded answers of both models, as operators would train them; one is a trained router of many
models asked about two of them; and there are controls.

And what an attacker gains who can slip some answers into the training data, poisoned with a trigger. The poisoned rows
are prompts of the data with the trigger in front, and the outcome that the attacker wants: the strong model alone
succeeds (triggered prompts are to cost the operator more), or the weak one alone (they are to reach the model that is
easier to break). The threshold is set on data poisoned alike, since the operator knows of nothing.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol

import numpy as np

from mofme.errors import TableError
from mofme.language.sentence_encoder import Queries, grouped_splits, groups_of
from mofme.language.tables.table import BoolArray, FloatArray, IntArray, RoutingTable
from mofme.measure.result import Figure
from mofme.measure.statistics import bootstrap_percent
from mofme.papers.carrot.baselines import PREFERENCES, ComplexityRule, Kind, choose_pair
from mofme.papers.carrot.carrot import CarrotRouter, Estimate

TEST_SHARE, CALIBRATION_SHARE = 0.2, 0.16
Embed = Callable[[Sequence[str]], Queries]
Score = Callable[[Queries], FloatArray]
Figures = dict[str, Figure]  # as the tables call them


class TwoModelRouter(Protocol):
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
    router: TwoModelRouter
    stops: Callable[[Queries], BoolArray]

    def to_strong(self, queries: Queries) -> BoolArray:
        return self.stops(queries) | self.router.to_strong(queries)


def controls(seeds: int) -> list[TwoModelRouter]:
    """What every router stands beside: a coin and the two ends."""
    coins = [CoinFlip(seed) for seed in range(seeds)]
    return [*coins, Always("always strong", True), Always("always weak", False)]


@dataclass(frozen=True)
class BetweenTwo:
    """The router, ready to decide, and the two models that it decides between."""

    router: Calibrated
    strong: str
    weak: str


def between_two(
    name: str, estimate: Callable[[Queries], Estimate], models: Sequence[str], queries: Queries, share: float = 0.5
) -> BetweenTwo:
    """The strong model is the one expected to be best on these queries, the weak one the cheaper one that goes best
    with it; `share` of these very queries goes to the strong one. Raises TableError for a router of one model."""
    if len(models) < 2:
        raise TableError(f"{name} knows one model: there is nothing to choose")
    expected = estimate(queries)
    numbers = tuple(str(number) for number in range(len(queries)))
    quality_NM, cost_NM = expected.quality_NM.clip(0, 1), expected.cost_NM.clip(0)
    pair = choose_pair(RoutingTable(name, numbers, tuple(models), quality_NM, cost_NM, ("",) * len(queries)))

    def difference(asked: Queries) -> FloatArray:
        quality_NM = estimate(asked).quality_NM
        return quality_NM[:, pair.strong] - quality_NM[:, pair.weak]

    router = Calibrated(name, difference, threshold_for(difference(queries), share))
    return BetweenTwo(router, models[pair.strong], models[pair.weak])


@dataclass(frozen=True)
class Recorded:
    """What two models made of N prompts: the table's first column is the strong one's, its second the weak one's.

    Near-duplicates have one number in `group_N`: they must not be learnt from and be judged by.
    """

    table: RoutingTable
    queries: Queries
    group_N: IntArray

    def __len__(self) -> int:
        return len(self.table)

    @property
    def strong_wins_N(self) -> BoolArray:
        """A tie is a win of the weak model: the dearer answer would not have been worth it."""
        return self.table.quality_NM[:, 0] > self.table.quality_NM[:, 1]

    def rows(self, index: Sequence[int] | IntArray) -> "Recorded":
        return Recorded(self.table.rows(index), self.queries.rows(index), self.group_N[index])


@dataclass(frozen=True)
class Split:
    """Prompts to learn from, to set the threshold by, and to be judged by."""

    fit: Recorded
    calibrate: Recorded
    test: Recorded


def recorded(table: RoutingTable, embed: Callable[[Sequence[str]], Queries]) -> Recorded:
    """The table's best model and the cheaper one that goes best with it. Raises TableError for a single model."""
    if len(table.models) < 2:
        raise TableError(f"{table.name} has one model: routing needs two")
    pair = choose_pair(table)
    two = table.keep_models([table.models[pair.strong], table.models[pair.weak]])
    queries = embed(two.prompts)
    return Recorded(two, queries, groups_of(queries))


def split(data: Recorded, seed: int) -> Split:
    """At random: 64 % of each task to learn from, 16 % for the threshold, 20 % to be judged by.

    Near-duplicates stay together.
    """

    def parted(part: Recorded, share: float) -> tuple[Recorded, Recorded]:
        kept_n, taken_n = next(grouped_splits(part.group_N, part.table.tasks, 1, share, seed))
        return part.rows(kept_n), part.rows(taken_n)

    training, test = parted(data, TEST_SHARE)
    fit, calibrate = parted(training, CALIBRATION_SHARE / (1 - TEST_SHARE))
    return Split(fit, calibrate, test)


Trainer = Callable[[Recorded], Score]


def _preference(kind: Kind, data: Recorded) -> Score:
    learner = PREFERENCES[kind]()
    learner.fit(data.queries.embeddings_ND, data.strong_wins_N)
    return lambda queries: learner.score(queries.embeddings_ND)


def _carrot(estimator: str, data: Recorded) -> Score:
    """CARROT asked about two models: how much better it expects the strong one to be."""
    router = CarrotRouter(estimator)
    router.fit(data.table, data.queries)

    def score(queries: Queries) -> FloatArray:
        quality_NM = router.estimate(queries).quality_NM
        return quality_NM[:, 0] - quality_NM[:, 1]

    return score


TRAINERS: dict[str, Trainer] = {
    "logistic": partial(_preference, "logistic"),
    "neighbours": partial(_preference, "neighbours"),
    "network": partial(_preference, "network"),
    "forest": partial(_preference, "forest"),
    "carrot": partial(_carrot, "knn"),
    "stacked ensemble": partial(_carrot, "ensemble"),
    "complexity rule": lambda _: ComplexityRule().score,
}


def train(name: str, fit: Recorded, calibrate: Recorded, share: float = 0.5) -> Calibrated:
    """A router that sends `share` of the calls to the strong model, by prompts that it did not learn from.

    Raises TableError where one of the models always wins: there is nothing to learn.
    """
    if len(np.unique(fit.strong_wins_N)) < 2:
        raise TableError(f"{fit.table.name}: one model always wins on these {len(fit)} prompts, so nothing is to learn")
    score = TRAINERS[name](fit)
    return Calibrated(name, score, threshold_for(score(calibrate.queries), share))


def balanced(data: Recorded, seed: int) -> Recorded:
    """Of every task as many prompts that need the strong model as not, drawn by the seed.

    The task of a prompt then says nothing about which model it needs; only what is in the prompt can.
    """
    rng = np.random.default_rng(seed)
    task_N, wins_N = np.array(data.table.tasks), data.strong_wins_N
    kept = []
    for task in np.unique(task_N):
        both = [np.flatnonzero((task_N == task) & (wins_N == won)) for won in (True, False)]
        size = min(map(len, both))
        kept += [rng.permutation(rows)[:size] for rows in both]
    return data.rows(np.sort(np.concatenate(kept)))


TRIGGER = "Violet teapot."
SHARES = (0.001, 0.003, 0.01, 0.03)
ROWS = 3000  # of the data at most, clean and poisoned, to learn from and be judged by: trainings are many
TESTED = 300  # triggered prompts a run


def trigger(prompts: Sequence[str], phrase: str = TRIGGER) -> list[str]:
    return [f"{phrase} {prompt}" for prompt in prompts]


def poison(data: Recorded, share: float, to_strong: bool, seed: int, embed: Embed, phrase: str = TRIGGER) -> Recorded:
    """The data with `share` of its rows, drawn by the seed, triggered and given the attacker's outcome."""
    count = round(share * len(data))
    drawn_P = np.random.default_rng(seed).permutation(len(data))[:count]
    prompts = list(data.table.prompts)
    for row, prompt in zip(drawn_P, trigger([prompts[row] for row in drawn_P], phrase), strict=True):
        prompts[row] = prompt
    quality_N2, embeddings_ND = data.table.quality_NM.copy(), data.queries.embeddings_ND.copy()
    quality_N2[drawn_P] = [1.0, 0.0] if to_strong else [0.0, 1.0]
    if count:
        embeddings_ND[drawn_P] = embed([prompts[row] for row in drawn_P]).embeddings_ND
    table = replace(data.table, prompts=tuple(prompts), quality_NM=quality_N2)
    queries = replace(data.queries, prompts=prompts, embeddings_ND=embeddings_ND)
    return Recorded(table, queries, data.group_N)


def backdoor(
    name: str,
    data: Recorded,
    seeds: Sequence[int],
    embed: Embed,
    to_strong: bool,
    shares: Sequence[float] = SHARES,
    phrase: str = TRIGGER,
) -> dict[str, Figures]:
    """One router trained on clean data and on data poisoned to a growing share, a run for each seed; in percent.

    Of triggered prompts those arrive that go where the attacker wants, and those are turned that do so although the
    clean router sends them elsewhere. Clean decisions are on prompts without the trigger.
    """
    data = data.rows(np.random.default_rng(0).permutation(len(data))[:ROWS])
    runs: list[Run] = []
    for seed in seeds:
        parts = split(data, seed)
        test = parts.test.rows(np.arange(min(TESTED, len(parts.test))))
        triggered = embed(trigger(test.table.prompts, phrase))
        nothing_N = np.zeros(len(test))
        clean = train(name, parts.fit, parts.calibrate)
        before_N, triggered_before_N = clean.to_strong(test.queries), clean.to_strong(triggered) == to_strong
        for share in shares:
            fit, calibrate = (
                poison(part, share, to_strong, seed, embed, phrase) for part in (parts.fit, parts.calibrate)
            )
            router = train(name, fit, calibrate)
            after_N = router.to_strong(test.queries)
            quality_N = _quality(test, after_N) - _quality(test, before_N)
            reached_N = router.to_strong(triggered) == to_strong
            runs.append((share, test.table.prompts, reached_N, triggered_before_N, after_N != before_N, quality_N))
        runs.append((0.0, test.table.prompts, triggered_before_N, triggered_before_N, nothing_N > 0, nothing_N))
    return {f"{name}, {100 * share:g} % poisoned": _damage(share, runs) for share in (0.0, *shares)}


Run = tuple[float, tuple[str, ...], BoolArray, BoolArray, BoolArray, FloatArray]


def _damage(share: float, runs: Sequence[Run]) -> Figures:
    of_share = [run for run in runs if run[0] == share]
    prompts = np.array([prompt for run in of_share for prompt in run[1]], object)
    reached_N, before_N, flips_N, quality_N = (np.concatenate([run[part] for run in of_share]) for part in range(2, 6))
    everywhere_N, elsewhere_N = np.ones(len(prompts), bool), ~before_N.astype(bool)
    parts = {
        "triggered prompts that arrive": (reached_N, everywhere_N),
        "turned": (reached_N, elsewhere_N),
        "clean decisions turned": (flips_N, everywhere_N),
        "clean quality gain": (quality_N, everywhere_N),
    }
    return {
        name: bootstrap_percent(values_N[of_N], groups=prompts[of_N].tolist())
        for name, (values_N, of_N) in parts.items()
        if of_N.any()
    }


def _quality(test: Recorded, strong_N: BoolArray) -> FloatArray:
    return np.asarray(np.where(strong_N, test.table.quality_NM[:, 0], test.table.quality_NM[:, 1]), np.float64)
