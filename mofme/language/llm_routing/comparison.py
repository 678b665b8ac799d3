"""Routers side by side: the same prompts to learn from, the same to be judged on, split again and again."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mofme.language.llm_routing.baselines.strong_or_weak import Pair, StrongOrWeak, choose_pair
from mofme.language.llm_routing.prompt_router import EstimatingRouter, PromptRouter
from mofme.language.llm_routing.table import FloatArray, IntArray, RoutingTable
from mofme.language.near_duplicates import grouped_splits
from mofme.language.sentence_encoder import Queries

TEST_SHARE = 0.2
ChoiceArray = NDArray[np.int16]  # a fourth of the memory: there is one for every prompt, setting, router and split


@dataclass(frozen=True)
class Trial:
    """What the routers, trained on a split's other prompts, chose for its test prompts.

    `test_n` holds the rows of the test prompts, `choices` each router's choices (S, n). `quality` holds the quality
    (n, M) that routers with an estimate expected; `scores` the score (n,) of those between the two models of `pair`.
    """

    test_n: IntArray
    pair: Pair
    choices: Mapping[str, ChoiceArray]
    quality: Mapping[str, FloatArray]
    scores: Mapping[str, FloatArray]

    def only(self, wanted_N: NDArray[np.bool_]) -> "Trial":
        """The same trial, of the test prompts that are wanted alone."""
        keep_n = wanted_N[self.test_n]
        return Trial(
            self.test_n[keep_n],
            self.pair,
            {name: choice_Sn[:, keep_n] for name, choice_Sn in self.choices.items()},
            {name: quality_nM[keep_n] for name, quality_nM in self.quality.items()},
            {name: score_n[keep_n] for name, score_n in self.scores.items()},
        )


@dataclass(frozen=True)
class Comparison:
    """Trials of the same routers on splits of one table. Prompts of one group were never parted (`group_N`)."""

    table: RoutingTable
    group_N: IntArray
    trials: Sequence[Trial]

    @property
    def routers(self) -> tuple[str, ...]:
        return tuple(self.trials[0].choices)


def compare(
    table: RoutingTable,
    queries: Queries,
    routers: Sequence[PromptRouter],
    splits: int = 5,
    seed: int = 0,
    groups: IntArray | None = None,
    report: Callable[[str], None] = lambda message: None,
) -> Comparison:
    """Train every router on four fifths of the table and let it choose for the rest, `splits` times.

    `groups` (N,) keeps prompts with the same number on one side. The routers are left as the last split trained them.
    Raises TableError where there is nothing to split.
    """
    group_N = np.arange(len(table)) if groups is None else groups
    parted = grouped_splits(group_N, table.tasks, splits, TEST_SHARE, seed)
    trials = []
    for number, (train, test) in enumerate(parted, start=1):
        choices, quality, scores = {}, {}, {}
        known, unseen = table.rows(train), queries.rows(test)
        for router in routers:
            report(f"{table.name}: split {number} of {splits}, {router.name}")
            router.fit(known, queries.rows(train))
            choices[router.name] = router.sweep(unseen).astype(np.int16)
            if isinstance(router, EstimatingRouter):
                quality[router.name] = router.estimate(unseen).quality_NM
            elif isinstance(router, StrongOrWeak):
                scores[router.name] = router.score(unseen)
        trials.append(Trial(test, choose_pair(known), choices, quality, scores))
    return Comparison(table, group_N, trials)
