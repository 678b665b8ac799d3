"""Routers trained on recorded answers of a strong and a weak model, as operators would train them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from mofme.errors import TableError
from mofme.language.llm_routing.baselines import choose_pair, complexity
from mofme.language.llm_routing.carrot import CarrotRouter
from mofme.language.llm_routing.preference import PREFERENCES, Kind
from mofme.language.llm_routing.robustness.subjects import BoolArray, Calibrated, Score, Subject, threshold_for
from mofme.language.near_duplicates import grouped_splits, groups_of
from mofme.language.sentence_encoder import Queries, question_of
from mofme.language.tables.table import FloatArray, IntArray, RoutingTable

TEST_SHARE, CALIBRATION_SHARE = 0.2, 0.16


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


def _complexity(_: Recorded) -> Score:
    return lambda queries: np.array([complexity(question_of(prompt)) for prompt in queries.prompts])


TRAINERS: dict[str, Trainer] = {
    "logistic": partial(_preference, "logistic"),
    "neighbours": partial(_preference, "neighbours"),
    "network": partial(_preference, "network"),
    "forest": partial(_preference, "forest"),
    "carrot-knn": partial(_carrot, "knn"),
    "carrot": partial(_carrot, "ensemble"),
    "complexity rule": _complexity,
}


def train(name: str, fit: Recorded, calibrate: Recorded, share: float = 0.5) -> Calibrated:
    """A router that sends `share` of the calls to the strong model, by prompts that it did not learn from.

    Raises TableError where one of the models always wins: there is nothing to learn.
    """
    if len(np.unique(fit.strong_wins_N)) < 2:
        raise TableError(f"{fit.table.name}: one model always wins on these {len(fit)} prompts, so nothing is to learn")
    score = TRAINERS[name](fit)
    return Calibrated(name, score, threshold_for(score(calibrate.queries), share))


def train_all(names: Sequence[str], splits: Sequence[Split]) -> list[Subject]:
    """Each router on each split: runs of one router have one name."""
    return [train(name, part.fit, part.calibrate) for name in names for part in splits]


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
