"""Routers side by side: the same prompts to learn from, the same to be judged on, split again and again.

What is read off their curves, with intervals, what a decision takes, and what a router knows beyond the task: inside
one, does it tell the prompts apart? One that only recognises tasks gives all prompts of a task the same prediction.

Axis names: N prompts, n test prompts of a split, M models, S settings, T trials, B draws of prompts, G groups of
near-duplicates.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import combinations
from time import thread_time
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mofme.language.sentence_encoder import Queries, grouped_splits
from mofme.language.tables.table import FloatArray, IntArray, RoutingTable
from mofme.measure.result import Figure
from mofme.measure.statistics import percentiles, students_interval, wider
from mofme.papers.carrot.baselines import BestSingle, Pair, StrongOrWeak, TaskTable, choose_pair
from mofme.papers.carrot.carrot import EstimatingRouter, PromptRouter, plug_in
from mofme.papers.carrot.curve import Curve, aiq, curve_of, hull_of, quality_at

TEST_SHARE = 0.2
DRAWS = 1000
ChoiceArray = NDArray[np.int16]  # a fourth of the memory: there is one for every prompt, setting, router and split


@dataclass(frozen=True)
class Trial:
    """What the routers, trained on a split's other prompts, chose for its test prompts (the rows `test_n`).

    Of each router its choices (S, n); of those with an estimate the quality (n, M) that they expected and how well they
    expected costs; of those between the two models of `pair` the scores (n,).
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
        choices = {name: choice_Sn[:, keep_n] for name, choice_Sn in self.choices.items()}
        quality, scores = ({name: of_n[keep_n] for name, of_n in each.items()} for each in (self.quality, self.scores))
        return Trial(self.test_n[keep_n], self.pair, choices, quality, scores)


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
    names = routers or comparison.routers
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


def milliseconds(
    routers: Sequence[PromptRouter], queries: Queries, embed: Callable[[Sequence[str]], Queries]
) -> tuple[FloatArray, dict[str, FloatArray]]:
    """Processor time of this thread, prompt by prompt after one to warm up: to embed it, and for a router's decision.

    A router that estimates makes one estimate and applies the plug-in rule once; another is asked for its whole dial.
    """
    singles = [queries.rows([row]) for row in range(len(queries))]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # what other threads do would not be counted
    try:
        embedding = _milliseconds(embed, [single.prompts for single in singles])
    finally:
        torch.set_num_threads(threads)
    return embedding, {router.name: _milliseconds(partial(_decide, router), singles) for router in routers}


def _decide(router: PromptRouter, query: Queries) -> None:
    if isinstance(router, EstimatingRouter):
        plug_in(router.estimate(query), 0.5).argmax(1)
    else:
        router.sweep(query)


def _milliseconds(work: Callable[[Any], object], items: Sequence[Any]) -> FloatArray:
    times = []
    for item in (items[0], *items):
        start = thread_time()
        work(item)
        times.append(1000 * (thread_time() - start))
    return np.array(times[1:])


ENOUGH = 25  # test prompts of a task in a split
MEAN = "mean of the tasks"
DEALT = "dealt out"
EACH = 5  # prompts on which one of two models wins, for the pair to count
GOOD = 0.5  # quality from here on counts as correct
PROMPTS, RIGHT, BETTER = "test prompts", "AUC, is it right", "AUC, which is better"
GAIN, LOST = "AIQ, gain over the task table", "AIQ, gain over its choices dealt out at random"


def auc(score_n: FloatArray, positive_n: NDArray[np.bool_], weight_Bn: FloatArray) -> FloatArray:
    """P(a positive's score is above a negative's), ties half, for every row of weights (B,); NaN without both kinds."""
    order = np.argsort(score_n, kind="stable")
    _, first = np.unique(score_n[order], return_index=True)
    sorted_Bn, positive_n = weight_Bn[:, order], positive_n[order]
    positive_BU = np.add.reduceat(sorted_Bn * positive_n, first, axis=1)
    negative_BU = np.add.reduceat(sorted_Bn * ~positive_n, first, axis=1)
    below_BU = negative_BU.cumsum(1) - negative_BU / 2
    pairs_B = positive_BU.sum(1) * negative_BU.sum(1)
    won_B = (positive_BU * below_BU).sum(1)
    return np.divide(won_B, pairs_B, out=np.full(len(pairs_B), np.nan), where=pairs_B > 0)


def within_tasks(comparison: Comparison, router: str, weight_BN: FloatArray) -> dict[str, dict[str, Figure | None]]:
    """What a router knows inside each task with `ENOUGH` test prompts a split on average, and in the mean of several.

    RIGHT is the AUC of its P(correct), averaged over the models; BETTER that of which of two models answers better
    where they differ, averaged over the pairs (of a router between two models, its own pair). GAIN is what its AIQ on
    the task's prompts alone is above the task table's; LOST what it loses when its choices are dealt out among these
    prompts at random: the cleaner figure, as a curve is drawn from the best of many settings, which favours whoever has
    many. None where most trials have nothing to tell apart.
    """
    task_N = np.array(comparison.table.tasks)
    known: dict[str, tuple[float, FloatArray]] = {}
    for task in sorted(set(comparison.table.tasks)):
        inside = replace(comparison, trials=[_dealt(trial.only(task_N == task), router) for trial in comparison.trials])
        prompts = float(np.mean([len(trial.test_n) for trial in inside.trials]))
        if prompts < ENOUGH:
            continue
        aucs = [
            [kind(comparison, trial, router, weight_BN[:, trial.test_n]) for trial in inside.trials]
            for kind in (auc_of_correct, auc_of_better)
        ]
        readings = read(inside, weight_BN, sorted({router, TaskTable.name, DEALT}))
        gains = (readings[router].aiq_TB - readings[other].aiq_TB for other in (TaskTable.name, DEALT))
        known[task] = prompts, np.stack([*map(np.stack, aucs), *gains])
    if len(known) > 1:
        counts, values = zip(*known.values(), strict=True)
        known[MEAN] = float(np.mean(counts)), _mean_over_tasks(values)
    names = (PROMPTS, RIGHT, BETTER, GAIN, LOST)
    return {
        task: dict(zip(names, [Figure(round(prompts)), *map(_figure, value_FTB)], strict=True))
        for task, (prompts, value_FTB) in known.items()
    }


def _dealt(trial: Trial, router: str) -> Trial:
    """With one more router: the same choices, each for another of the prompts."""
    choices_Sn = trial.choices[router]
    order_n = np.random.default_rng(len(trial.test_n)).permutation(len(trial.test_n))
    return replace(trial, choices={**trial.choices, DEALT: choices_Sn[:, order_n]})


def _figure(value_TB: FloatArray) -> Figure | None:
    """Over the trials that have a value, if most have: in a small task a trial's prompts may all be alike."""
    known_TB = value_TB[np.isfinite(value_TB[:, 0])]
    return as_figure(known_TB) if 2 * len(known_TB) > len(value_TB) else None


def _mean_over_tasks(values: Sequence[FloatArray]) -> FloatArray:
    """The mean of each trial's tasks that have a value there, (F, T, B); NaN where none has."""
    value_KFTB = np.stack(values)
    known_KFTB = np.isfinite(value_KFTB[..., :1]) & np.ones_like(value_KFTB, dtype=bool)
    total_FTB = np.where(known_KFTB, value_KFTB, 0).sum(0)
    count_FTB = known_KFTB.sum(0)
    return np.divide(total_FTB, count_FTB, out=np.full(total_FTB.shape, np.nan), where=count_FTB > 0)


def auc_of_correct(comparison: Comparison, trial: Trial, router: str, weight_Bn: FloatArray) -> FloatArray:
    """AUC (B,) of P(correct), the mean over the models that were both right and wrong; NaN without an estimate."""
    if router not in trial.quality:
        return np.full(len(weight_Bn), np.nan)
    right_nM = comparison.table.quality_NM[trial.test_n] >= GOOD
    both = [model for model in range(right_nM.shape[1]) if 0 < right_nM[:, model].sum() < len(right_nM)]
    aucs = [auc(trial.quality[router][:, model], right_nM[:, model], weight_Bn) for model in both]
    return np.mean(aucs, axis=0) if aucs else np.full(len(weight_Bn), np.nan)


def auc_of_better(comparison: Comparison, trial: Trial, router: str, weight_Bn: FloatArray) -> FloatArray:
    """AUC (B,) of which of two models is better, the mean over the pairs that differ often enough; NaN without any."""
    truth_nM = comparison.table.quality_NM[trial.test_n]
    if router in trial.quality:
        expected_nM = trial.quality[router]
        pairs = combinations(range(truth_nM.shape[1]), 2)
        scores = {(one, other): expected_nM[:, one] - expected_nM[:, other] for one, other in pairs}
    else:
        pair = (trial.pair.strong, trial.pair.weak)
        scores = {pair: trial.scores[router]} if router in trial.scores else {}
    aucs = []
    for (one, other), score_n in scores.items():
        difference_n = truth_nM[:, one] - truth_nM[:, other]
        if min((difference_n > 0).sum(), (difference_n < 0).sum()) >= EACH:
            differ_n = difference_n != 0
            aucs.append(auc(score_n[differ_n], difference_n[differ_n] > 0, weight_Bn[:, differ_n]))
    return np.mean(aucs, axis=0) if aucs else np.full(len(weight_Bn), np.nan)
