"""Routers side by side: the same prompts to learn from, the same to be judged on, split again and again.

What is read off their curves, with intervals, and what a decision takes. Axis names: N prompts, n test prompts of a
split, M models, S settings, T trials, B draws of prompts, G groups of near-duplicates.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from time import thread_time

import numpy as np
import torch
from numpy.typing import NDArray

from mofme.language.near_duplicates import grouped_splits
from mofme.language.sentence_encoder import Queries
from mofme.language.tables.table import FloatArray, IntArray, RoutingTable
from mofme.measure.result import Figure
from mofme.measure.statistics import percentiles, students_interval, wider
from mofme.papers.carrot.baselines import BestSingle, Pair, StrongOrWeak, choose_pair
from mofme.papers.carrot.carrot import EstimatingRouter, PromptRouter, plug_in
from mofme.papers.carrot.curve import Curve, aiq, curve_of, hull_of, quality_at

TEST_SHARE = 0.2
DRAWS = 1000
ChoiceArray = NDArray[np.int16]  # a fourth of the memory: there is one for every prompt, setting, router and split


@dataclass(frozen=True)
class Trial:
    """What the routers, trained on a split's other prompts, chose for its test prompts.

    `test_n` holds the rows of the test prompts, `choices` each router's choices (S, n). `quality` holds the quality
    (n, M) that routers with an estimate expected, `cost_r2` how well they expected costs; `scores` the score (n,) of
    those between the two models of `pair`.
    """

    test_n: IntArray
    pair: Pair
    choices: Mapping[str, ChoiceArray]
    quality: Mapping[str, FloatArray]
    scores: Mapping[str, FloatArray]
    cost_r2: Mapping[str, float] = field(default_factory=dict)

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

    def curves(self, router: str) -> list[Curve]:
        """A router's curve in every trial."""
        return [curve_of(trial.choices[router], self.table.rows(trial.test_n)) for trial in self.trials]


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
        choices, quality, scores, r2 = {}, {}, {}, {}
        known, unseen = table.rows(train), queries.rows(test)
        for router in routers:
            report(f"{table.name}: split {number} of {splits}, {router.name}")
            router.fit(known, queries.rows(train))
            choices[router.name] = router.sweep(unseen).astype(np.int16)
            if isinstance(router, EstimatingRouter):
                expected = router.estimate(unseen)
                quality[router.name] = expected.quality_NM
                r2[router.name] = mean_r2(expected.cost_NM, table.cost_NM[test])
            elif isinstance(router, StrongOrWeak):
                scores[router.name] = router.score(unseen)
        trials.append(Trial(test, choose_pair(known), choices, quality, scores, r2))
    return Comparison(table, group_N, trials)


def mean_r2(expected_nM: FloatArray, true_nM: FloatArray) -> float:
    """R2 of each model's column, the mean of those that vary: 1 is perfect, 0 no better than a mean."""
    varies_M = np.ptp(true_nM, axis=0) > 0
    missed_M = ((expected_nM - true_nM) ** 2).sum(0)[varies_M]
    return float((1 - missed_M / ((true_nM - true_nM.mean(0)) ** 2).sum(0)[varies_M]).mean()) if varies_M.any() else 0.0


@dataclass(frozen=True)
class Reading:
    """Figures of one router in T trials, first from all test prompts, then from B draws of them: (T, 1 + B) each.

    `quality_TB` is what the router brings for the money that the best single model costs; NaN if it is never as cheap.
    """

    aiq_TB: FloatArray
    quality_TB: FloatArray


def draw_weights(comparison: Comparison, draws: int = DRAWS, seed: int = 0) -> FloatArray:
    """How often each prompt counts, (1 + B, N): once, then B draws of whole groups of prompts with replacement.

    The same draw is for every trial and router: differences between routers are paired, and a prompt that several
    trials test counts as one prompt.
    """
    group_N = np.unique(comparison.group_N, return_inverse=True)[1]
    groups = int(group_N.max()) + 1
    random = np.random.default_rng(seed)
    drawn_BG = random.multinomial(groups, np.full(groups, 1 / groups), size=draws)
    return np.concatenate([np.ones((1, len(group_N))), drawn_BG[:, group_N]])


def read(comparison: Comparison, weight_BN: FloatArray, routers: Sequence[str] | None = None) -> dict[str, Reading]:
    """AIQ, and quality for the best single model's money, of all or these routers in every trial and draw.

    NaN where a draw holds no test prompt of a trial.
    """
    names = comparison.routers if routers is None else routers
    figures: dict[str, list[FloatArray]] = {name: [] for name in names}
    for trial in comparison.trials:
        weight_Bn = weight_BN[:, trial.test_n]
        total_B = weight_Bn.sum(1)
        weight_Bn = weight_Bn[total_B > 0] / total_B[total_B > 0, None]
        highest_B = (weight_Bn @ comparison.table.cost_NM[trial.test_n]).max(1)
        budget_B = _curves(comparison, trial, BestSingle.name, weight_Bn)[0][:, 0]
        for name in names:
            both_2B = np.full((2, len(total_B)), np.nan)
            curves = zip(*_curves(comparison, trial, name, weight_Bn), highest_B, budget_B, strict=True)
            both_2B[:, total_B > 0] = np.array([_figures(*curve) for curve in curves]).T
            figures[name].append(both_2B)
    return {name: Reading(*np.stack(both, axis=1)) for name, both in figures.items()}


def _curves(comparison: Comparison, trial: Trial, name: str, weight_Bn: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Mean cost and mean quality (B, S) of a router's settings in every draw."""
    row_n, choice_Sn = trial.test_n, trial.choices[name]
    table = comparison.table
    return weight_Bn @ table.cost_NM[row_n, choice_Sn].T, weight_Bn @ table.quality_NM[row_n, choice_Sn].T


def _figures(cost_S: FloatArray, quality_S: FloatArray, highest: float, budget: float) -> tuple[float, float]:
    hull = hull_of(Curve(cost_S, quality_S))
    return aiq(hull, highest), quality_at(hull, budget)


def as_figure(figure_TB: FloatArray) -> Figure | None:
    """Mean over the trials with the wider of two 95 % intervals at either end; None where a trial has no value.

    One is over the prompts: the draws' percentiles, reflected about the value (basic bootstrap), for the best of many
    settings looks better in a draw than it is, by as much as the value itself may flatter. The other is over the
    splits: Student's, its variance corrected for the prompts that splits share (Nadeau and Bengio, 2003); with one
    trial there is none.
    """
    value_T = figure_TB[:, 0]
    if not np.isfinite(value_T).all():
        return None
    mean_B, trials = figure_TB.mean(0), len(value_T)
    value = float(mean_B[0])
    low, high = percentiles(mean_B)
    error = value_T.std(ddof=1) * np.sqrt(1 / trials + TEST_SHARE / (1 - TEST_SHARE)) if trials > 1 else 0.0
    return wider(Figure(value, 2 * value - high, 2 * value - low), students_interval(value, float(error), trials))


def milliseconds_to_embed(embed: Callable[[Sequence[str]], Queries], prompts: Sequence[str]) -> FloatArray:
    """Processor time of this thread to embed each prompt by itself, after one for warming up."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # what other threads do would not be counted
    try:
        embed(prompts[:1])
        return np.array([_milliseconds(partial(embed, [prompt])) for prompt in prompts])
    finally:
        torch.set_num_threads(threads)


def milliseconds_to_choose(router: PromptRouter, queries: Queries) -> FloatArray:
    """Processor time of this thread for one decision on each embedded prompt, after one for warming up.

    A router that estimates makes one estimate and applies the plug-in rule once; another is asked for its whole dial.
    """

    def choose(query: Queries) -> None:
        if isinstance(router, EstimatingRouter):
            plug_in(router.estimate(query), 0.5).argmax(1)
        else:
            router.sweep(query)

    choose(queries.rows([0]))
    singles = [queries.rows([row]) for row in range(len(queries))]
    return np.array([_milliseconds(partial(choose, query)) for query in singles])


def _milliseconds(work: Callable[[], object]) -> float:
    start = thread_time()
    work()
    return 1000 * (thread_time() - start)
