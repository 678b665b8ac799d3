"""What a router knows beyond the task: inside one task, does it tell the prompts apart?

A router that only recognises tasks gives all prompts of one task the same prediction: AUC .5, and no gain.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from mofme.language.tables.table import FloatArray
from mofme.measure.result import Figure
from mofme.papers.carrot.comparison import Comparison, Trial, as_figure, read

ENOUGH = 25  # test prompts of a task in a split
MEAN = "mean of the tasks"
DEALT = "dealt out"
EACH = 5  # prompts on which one of two models wins, for the pair to count
GOOD = 0.5  # quality from here on counts as correct


@dataclass(frozen=True)
class WithinTask:
    """What `router` knows inside one task, over all trials; `prompts` is the mean number of test prompts.

    `correct` is the AUC of its P(correct), averaged over the models; `better` that of which of two models answers
    better where they differ, averaged over the pairs (of a router between two models, its own pair). `gain` is what
    its AIQ on this task's prompts alone is above the control's; `lost` what it loses when its choices are dealt out
    among these prompts at random. A curve is drawn from the best of many settings, which favours a router with many
    different ones over the control, yet not over itself: `lost` is the cleaner figure. None where most trials
    have nothing to tell apart.
    """

    task: str
    prompts: float
    correct: Figure | None
    better: Figure | None
    gain: Figure | None
    lost: Figure | None


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


def within_tasks(comparison: Comparison, router: str, control: str, weight_BN: FloatArray) -> list[WithinTask]:
    """One line for each task with `ENOUGH` test prompts a split on average; with several tasks, their mean last."""
    task_N = np.array(comparison.table.tasks)
    lines, values = [], []
    for task in sorted(set(comparison.table.tasks)):
        inside = replace(comparison, trials=[_dealt(trial.only(task_N == task), router) for trial in comparison.trials])
        prompts = float(np.mean([len(trial.test_n) for trial in inside.trials]))
        if prompts < ENOUGH:
            continue
        readings = read(inside, weight_BN, sorted({router, control, DEALT}))
        value_FTB = np.stack(
            [
                _each_trial(inside, weight_BN, router, auc_of_correct),
                _each_trial(inside, weight_BN, router, auc_of_better),
                readings[router].aiq_TB - readings[control].aiq_TB,
                readings[router].aiq_TB - readings[DEALT].aiq_TB,
            ]
        )
        lines.append(WithinTask(task, prompts, *map(_figure, value_FTB)))
        values.append(value_FTB)
    if len(lines) > 1:
        prompts = float(np.mean([line.prompts for line in lines]))
        lines.append(WithinTask(MEAN, prompts, *map(_figure, _mean_over_tasks(values))))
    return lines


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


Auc = Callable[[Comparison, Trial, str, FloatArray], FloatArray]


def _each_trial(comparison: Comparison, weight_BN: FloatArray, router: str, figure: Auc) -> FloatArray:
    return np.stack([figure(comparison, trial, router, weight_BN[:, trial.test_n]) for trial in comparison.trials])


def auc_of_correct(comparison: Comparison, trial: Trial, router: str, weight_Bn: FloatArray) -> FloatArray:
    """AUC (B,) of P(correct), the mean over the models that were both right and wrong; NaN without an estimate."""
    nothing_B = np.full(len(weight_Bn), np.nan)
    if router not in trial.quality or not len(trial.test_n):
        return nothing_B
    right_nM = comparison.table.quality_NM[trial.test_n] >= GOOD
    both = [model for model in range(right_nM.shape[1]) if 0 < right_nM[:, model].sum() < len(right_nM)]
    aucs = [auc(trial.quality[router][:, model], right_nM[:, model], weight_Bn) for model in both]
    return np.mean(aucs, axis=0) if aucs else nothing_B


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
