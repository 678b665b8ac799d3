"""What routing wastes, by recorded answers to held-back prompts: strong calls that the weak model had answered."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from mofme.language.tables.table import BoolArray, FloatArray
from mofme.measure.result import Figure
from mofme.measure.statistics import bootstrap_percent, percentiles
from mofme.papers.carrot.comparison import auc
from mofme.papers.router_robustness.routers import Calibrated, Recorded, Split, TwoModelRouter

GOOD = 0.5  # quality from here on is an answer that will do
DRAWS = 300
# MMLU's subjects say how far a learner must be.
GROUPS: dict[str, Callable[[str], bool]] = {
    "mathematics": lambda task: "mathematics" in task or task in ("abstract_algebra", "high_school_statistics"),
    "computing": lambda task: "computer" in task or task == "machine_learning",
    "school": lambda task: task.startswith(("elementary_", "high_school_")),
    "college and profession": lambda task: task.startswith(("college_", "professional_")),
}


@dataclass(frozen=True)
class Waste:
    """One router on N held-back prompts of all runs; figures in percent, AUCs in [0, 1].

    `strong`: share of calls to the strong model. `wasted`: of these, the share that the weak model answers well.
    `missed`: of the calls to the weak model, the share that it fails and the strong one answers.
    `cost`: of what always asking the strong model costs. `quality`: mean of the answers.
    `auc`: P(a prompt that needs the strong model scores higher than one that does not); `auc_within`: the same among
    prompts of one task, which is what knowing difficulty means. Both None for routers without scores.
    """

    router: str
    group: str
    prompts: int
    strong: Figure
    wasted: Figure | None
    missed: Figure | None
    cost: Figure
    quality: Figure
    auc: Figure | None = None
    auc_within: Figure | None = None


def waste(
    runs: Sequence[TwoModelRouter], splits: Sequence[Split], group: str = "all", only: Sequence[str] = ()
) -> Waste:
    """One router, a run for each split, on the splits' test prompts, or on those of the tasks named `only`.

    Raises ValueError if no test prompt is of these tasks.
    """
    tests = [_of_tasks(part.test, only) for part in splits]
    strong_N: BoolArray = np.concatenate([run.to_strong(test.queries) for run, test in zip(runs, tests, strict=True)])
    quality_N2 = np.concatenate([test.table.quality_NM for test in tests])
    cost_N2 = np.concatenate([test.table.cost_NM for test in tests])
    prompts = [prompt for test in tests for prompt in test.table.prompts]
    if not prompts:
        raise ValueError("no test prompt is of these tasks")
    good_N2 = quality_N2 >= GOOD
    needed_N = good_N2[:, 0] & ~good_N2[:, 1]
    rows_N = np.array(prompts, object)

    def among(values_N: BoolArray, chosen_N: BoolArray) -> Figure | None:
        return bootstrap_percent(values_N[chosen_N], groups=rows_N[chosen_N].tolist()) if chosen_N.any() else None

    def chosen_of(values_N2: FloatArray) -> FloatArray:
        return np.where(strong_N, values_N2[:, 0], values_N2[:, 1])

    return Waste(
        router=runs[0].name,
        group=group,
        prompts=len(set(prompts)),
        strong=bootstrap_percent(strong_N, groups=prompts),
        wasted=among(good_N2[:, 1], strong_N),
        missed=among(needed_N, ~strong_N),
        cost=bootstrap_percent(chosen_of(cost_N2), cost_N2[:, 0].clip(1e-12), prompts),
        quality=bootstrap_percent(chosen_of(quality_N2), groups=prompts),
        auc=_auc(runs, tests, within=False),
        auc_within=_auc(runs, tests, within=True),
    )


def waste_by_group(runs: Sequence[TwoModelRouter], splits: Sequence[Split]) -> list[Waste]:
    """On all test prompts, then on those groups of tasks that the table has."""
    lines = [waste(runs, splits)]
    present = {task for part in splits for task in part.test.table.tasks}
    for group, belongs in GROUPS.items():
        if only := sorted(filter(belongs, present)):
            lines.append(waste(runs, splits, group, only))
    return lines


def _of_tasks(test: Recorded, only: Sequence[str]) -> Recorded:
    return test.rows([row for row, task in enumerate(test.table.tasks) if task in only]) if only else test


def _auc(runs: Sequence[TwoModelRouter], tests: Sequence[Recorded], within: bool) -> Figure | None:
    """Mean of the runs, with a 95 % bootstrap interval over the prompts of each."""
    auc_TB = []
    for run, test in zip(runs, tests, strict=True):
        if not isinstance(run, Calibrated):
            return None
        tasks = test.table.tasks if within else [""] * len(test)
        drawn_BN = np.random.default_rng(0).multinomial(len(test), np.full(len(test), 1 / len(test)), DRAWS)
        weight_BN = np.concatenate([np.ones((1, len(test))), drawn_BN])
        auc_TB.append(auc_inside(run.score(test.queries), test.strong_wins_N, tasks, weight_BN))
    mean_B = np.mean(auc_TB, axis=0)
    if not np.isfinite(mean_B[0]):
        return None
    return Figure(float(mean_B[0]), *percentiles(mean_B[1:]))


def auc_inside(score_N: FloatArray, positive_N: BoolArray, groups: Sequence[str], weight_BN: FloatArray) -> FloatArray:
    """P(a positive scores above a negative of its group), ties half, by every row of weights (B,).

    NaN where no group has both kinds.
    """
    group_N = np.unique(np.array(groups), return_inverse=True)[1]
    won_B, pairs_B = np.zeros(len(weight_BN)), np.zeros(len(weight_BN))
    for group in range(int(group_N.max(initial=-1)) + 1):
        inside_N = group_N == group
        weight_Bn, positive_n = weight_BN[:, inside_N], positive_N[inside_N]
        pairs_b = (weight_Bn * positive_n).sum(1) * (weight_Bn * ~positive_n).sum(1)
        won_B += pairs_b * np.nan_to_num(auc(score_N[inside_N], positive_n, weight_Bn))
        pairs_B += pairs_b
    return np.divide(won_B, pairs_B, out=np.full(len(pairs_B), np.nan), where=pairs_B > 0)
