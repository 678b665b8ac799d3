"""A table as its file has it, with its faults; each fault is named, and can be mended on request."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binom

from mofme.errors import TableError
from mofme.language.llm_routing.table import FloatArray, IntArray, RoutingTable

SPARSE = 0.05  # a model with more blanks than this share goes, not the prompts that it lacks
BELOW_CHANCE = 1e-3  # the probability of a false alarm in a whole table
_OPTION = re.compile(r"^[^\S\n]*\(?([A-Z])[).:]\s", re.MULTILINE)


@dataclass(frozen=True)
class Draft:
    """N prompts x M models; blanks are NaN. `rows_N` counts the rows of the file from 1.

    `ids` says which question a row asks, where the file does: one id with two prompts means that the models were
    not asked the same. Empty where there are none.
    """

    path: Path
    name: str
    prompts: list[str]
    tasks: list[str]
    models: list[str]
    quality_NM: FloatArray
    cost_NM: FloatArray
    rows_N: IntArray
    ids: list[str]

    @classmethod
    def of(
        cls,
        path: Path,
        name: str,
        prompts: Sequence[str],
        tasks: Sequence[str],
        models: Sequence[str],
        quality_NM: FloatArray,
        cost_NM: FloatArray,
        ids: Sequence[str] = (),
    ) -> "Draft":
        rows_N = np.arange(1, len(prompts) + 1)
        return cls(path, name, list(prompts), list(tasks), list(models), quality_NM, cost_NM, rows_N, list(ids))

    def keep(self, mask_N: NDArray[np.bool_]) -> "Draft":
        index = np.flatnonzero(mask_N)
        return replace(
            self,
            prompts=[self.prompts[i] for i in index],
            tasks=[self.tasks[i] for i in index],
            ids=[self.ids[i] for i in index] if self.ids else [],
            quality_NM=self.quality_NM[index],
            cost_NM=self.cost_NM[index],
            rows_N=self.rows_N[index],
        )

    def keep_models(self, names: Sequence[str]) -> "Draft":
        unknown = sorted(set(names) - set(self.models))
        if unknown:
            raise TableError(f"{self.path} has no model {', '.join(unknown)}: it has {', '.join(self.models)}")
        columns = [self.models.index(name) for name in names]
        return replace(
            self, models=list(names), quality_NM=self.quality_NM[:, columns], cost_NM=self.cost_NM[:, columns]
        )

    def checked(self, repair: bool) -> RoutingTable:
        """The table, if it has no fault or `repair` is asked for. Raises TableError, naming every fault."""
        draft, faults = self, []
        for find in CHECKS:
            fault = find(draft)
            if fault:
                faults.append(fault)
                draft = fault.mended
        if faults and not repair:
            problems = "; ".join(fault.problem for fault in faults)
            raise TableError(f"{self.path} cannot be used as it is: {problems}. Mend the file, or give --repair")
        if not draft.prompts or not draft.models:
            mended = f" after repair ({'; '.join(fault.repair for fault in faults)})" if faults else ""
            raise TableError(f"{self.path} has no prompts or no models{mended}")
        return RoutingTable(
            draft.name,
            tuple(draft.prompts),
            tuple(draft.models),
            draft.quality_NM,
            draft.cost_NM,
            tuple(draft.tasks),
            tuple(fault.repair for fault in faults),
        )


class Fault(NamedTuple):
    """What is wrong, what was done about it, and the draft after that."""

    problem: str
    repair: str
    mended: Draft


def blank_prompts(draft: Draft) -> Fault | None:
    return _drop(draft, np.array([not prompt.strip() for prompt in draft.prompts], bool), "blank prompts")


def misaligned(draft: Draft) -> Fault | None:
    """One question, several prompts: not every model was asked the same, so their answers cannot be compared."""
    asked: dict[str, set[str]] = {}
    for id_, prompt in zip(draft.ids, draft.prompts, strict=False):
        asked.setdefault(id_, set()).add(prompt)
    wrong = np.array([len(asked[id_]) > 1 for id_ in draft.ids] or [False] * len(draft.prompts), bool)
    return _drop(draft, wrong, "one id but different prompts (the models were not asked the same)")


def sparse_models(draft: Draft) -> Fault | None:
    share_M = np.isnan(draft.quality_NM + draft.cost_NM).mean(0) if draft.prompts else np.zeros(len(draft.models))
    sparse = [name for name, share in zip(draft.models, share_M, strict=True) if share > SPARSE]
    if not sparse:
        return None
    what = f"{', '.join(sparse)} with more than {SPARSE:.0%} of its qualities or costs blank"
    kept = [name for name in draft.models if name not in sparse]
    return Fault(f"{what}", f"dropped the model {what}", draft.keep_models(kept))


def blanks(draft: Draft) -> Fault | None:
    return _drop(draft, np.asarray(np.isnan(draft.quality_NM + draft.cost_NM).any(1)), "blank qualities or costs")


def outside(draft: Draft) -> Fault | None:
    wrong_NM = (draft.quality_NM < 0) | (draft.quality_NM > 1)
    return _drop(draft, np.asarray(wrong_NM.any(1)), "qualities outside 0 to 1")


def negative_costs(draft: Draft) -> Fault | None:
    return _drop(draft, np.asarray((draft.cost_NM < 0).any(1)), "costs below zero")


def repeats(draft: Draft) -> Fault | None:
    """Rows that ask the same become one, with the mean of their outcomes."""
    first: dict[str, int] = {}
    owner_N = np.array([first.setdefault(prompt, row) for row, prompt in enumerate(draft.prompts)], int)
    repeated = owner_N != np.arange(len(owner_N))
    if not repeated.any():
        return None
    count_N = np.bincount(owner_N, minlength=len(owner_N))[:, None].clip(1)
    sums = []
    for values_NM in (draft.quality_NM, draft.cost_NM):
        sum_NM = np.zeros_like(values_NM)
        np.add.at(sum_NM, owner_N, values_NM)
        sums.append(sum_NM / count_N)
    merged = replace(draft, quality_NM=sums[0].clip(0, 1), cost_NM=sums[1]).keep(~repeated)
    what = f"repeated prompts in {rows_in_words(draft.rows_N[repeated])}"
    return Fault(what, f"merged {what} with the first of their kind, outcomes averaged", merged)


def below_chance(draft: Draft) -> Fault | None:
    """A model that does worse on a multiple-choice task than blind guessing: its answers were read wrongly.

    One-sided binomial test per task and model against the chance that the options in the prompts leave, Bonferroni.
    """
    chance_N = np.array([1 / max(options_in(prompt), 1) for prompt in draft.prompts])
    tasks_N = np.array(draft.tasks, object)
    tasks = sorted({task for task, chance in zip(draft.tasks, chance_N, strict=True) if chance < 1})
    broken = []
    for task in tasks:
        rows = (tasks_N == task) & (chance_N < 1)
        if rows.sum() < (tasks_N == task).sum() / 2:
            continue  # a prompt here and there that lists things by letter
        right_M, count, chance = draft.quality_NM[rows].sum(0), int(rows.sum()), float(chance_N[rows].mean())
        # Half points count upwards, so that partial credit never raises the alarm.
        probability_M = binom.cdf(np.ceil(right_M), count, chance)
        limit = BELOW_CHANCE / max(len(tasks) * len(draft.models), 1)
        broken += [
            (
                task,
                f"{model} scores {right / count:.3f} on {task or 'the table'}, where guessing would give {chance:.3f}",
            )
            for model, right, probability in zip(draft.models, right_M, probability_M, strict=True)
            if probability < limit
        ]
    if not broken:
        return None
    wrong_tasks = {task for task, _ in broken}
    gone = np.array([task in wrong_tasks for task in draft.tasks], bool)
    what = "; ".join(sentence for _, sentence in broken)
    return Fault(
        f"a broken column: {what}",
        f"dropped {int(gone.sum())} rows of {', '.join(sorted(wrong_tasks)) or 'the table'}: {what}",
        draft.keep(~gone),
    )


CHECKS: tuple[Callable[[Draft], Fault | None], ...] = (
    blank_prompts, misaligned, sparse_models, blanks, outside, negative_costs, repeats, below_chance,
)  # fmt: skip


def options_in(prompt: str) -> int:
    """How many lettered options (A, B, C, ... one a line) the last question of a prompt offers; 0 for none."""
    letters = _OPTION.findall(prompt)
    starts = [i for i, letter in enumerate(letters) if letter == "A"]
    run = letters[starts[-1] :] if starts else []
    count = next((i for i, letter in enumerate(run) if letter != chr(ord("A") + i)), len(run))
    return count if count >= 2 else 0


def rows_in_words(rows_N: IntArray) -> str:
    shown = ", ".join(str(row) for row in rows_N[:5])
    return f"{len(rows_N)} rows ({shown}{', ...' if len(rows_N) > 5 else ''})"


def _drop(draft: Draft, wrong_N: NDArray[np.bool_], what: str) -> Fault | None:
    if not wrong_N.any():
        return None
    rows = rows_in_words(draft.rows_N[wrong_N])
    return Fault(f"{what} in {rows}", f"dropped {rows} for {what}", draft.keep(~wrong_N))
