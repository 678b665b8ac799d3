"""The quality and the cost of each model on each prompt: what routers of prompts learn from and are judged by.

A file is read into a `RawTable`, faults and all; `checked` names each fault, mends it if asked to, and makes a
`RoutingTable`, which has none. Axis names: N prompts, M models.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binom

from mofme.errors import TableError

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]

SPARSE = 0.05  # a model with more blanks than this share goes, not the prompts that it lacks
BELOW_CHANCE = 1e-3  # the probability of a false alarm in a whole table
_OPTION = re.compile(r"^[^\S\n]*\(?([A-Z])[).:]\s", re.MULTILINE)


Rows: TypeAlias = "RoutingTable | RawTable"


def first_of_kind(table: Rows) -> IntArray:
    """The row (N,) in which each prompt stands for the first time."""
    first: dict[str, int] = {}
    return np.array([first.setdefault(prompt, row) for row, prompt in enumerate(table.prompts)], int)


# What is wrong with a row, in words, and which rows it is wrong with.
WRONG_ROWS: Mapping[str, Callable[[Rows], BoolArray]] = {
    "blank prompts": lambda table: np.array([not prompt.strip() for prompt in table.prompts], bool),
    "prompts that stand there twice": lambda table: first_of_kind(table) != np.arange(len(table.prompts)),
    "qualities or costs that are blank or no numbers": lambda table: np.asarray(
        ~np.isfinite(table.quality_NM + table.cost_NM).all(1)
    ),
    "qualities outside 0 to 1": lambda table: np.asarray(((table.quality_NM < 0) | (table.quality_NM > 1)).any(1)),
    "costs below zero": lambda table: np.asarray((table.cost_NM < 0).any(1)),
}


@dataclass(frozen=True)
class RoutingTable:
    """N prompts x M models, checked when it is made: raises TableError, naming the rows, counted from 1.

    `quality_NM` is in [0, 1], `cost_NM` in dollars for the whole query, never below zero. `tasks` names where each
    prompt comes from ("" where nobody knows). `repairs` says what was changed on the way here, one sentence each.
    """

    name: str
    prompts: tuple[str, ...]
    models: tuple[str, ...]
    quality_NM: FloatArray
    cost_NM: FloatArray
    tasks: tuple[str, ...]
    repairs: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("quality_NM", "cost_NM"):
            object.__setattr__(self, name, np.asarray(getattr(self, name), np.float64))
        if problems := self._problems():
            raise TableError(f"{self.name} cannot be used: {'; '.join(problems)}")

    def _problems(self) -> list[str]:
        shape = (len(self.prompts), len(self.models))
        if not all(shape):
            return ["it has no prompts or no models"]
        if self.quality_NM.shape != shape or self.cost_NM.shape != shape or len(self.tasks) != shape[0]:
            return [
                f"{shape[0]} prompts and {shape[1]} models need {shape} qualities and costs and {shape[0]} tasks, got "
                f"{self.quality_NM.shape}, {self.cost_NM.shape} and {len(self.tasks)}"
            ]
        wrong = {what: np.flatnonzero(find(self)) + 1 for what, find in WRONG_ROWS.items()}
        problems = [f"{what} in {rows_in_words(rows)}" for what, rows in wrong.items() if len(rows)]
        return problems + ["two models have the same name"] * (len(set(self.models)) < shape[1])

    def __len__(self) -> int:
        return len(self.prompts)

    def rows(self, index: Sequence[int] | IntArray) -> "RoutingTable":
        """The table of these prompts only, in this order."""
        return replace(
            self,
            prompts=tuple(self.prompts[i] for i in index),
            tasks=tuple(self.tasks[i] for i in index),
            quality_NM=self.quality_NM[index],
            cost_NM=self.cost_NM[index],
        )

    def keep_models(self, names: Sequence[str]) -> "RoutingTable":
        """The table of these models only, in this order. Raises TableError for a model that it does not have."""
        at = columns_of(names, self.models, self.name)
        return replace(self, models=tuple(names), quality_NM=self.quality_NM[:, at], cost_NM=self.cost_NM[:, at])


@dataclass(frozen=True)
class RawTable:
    """N prompts x M models as their file has them; blanks are NaN.

    `ids` says which question a row asks, where the file does: one id with two prompts means that the models were
    not asked the same. Empty where there are none. `number_N` counts the rows of the file, by default all, from 1.
    """

    path: Path
    name: str
    prompts: Sequence[str]
    tasks: Sequence[str]
    models: Sequence[str]
    quality_NM: FloatArray
    cost_NM: FloatArray
    ids: Sequence[str] = ()
    number_N: IntArray | None = None

    def numbers(self) -> IntArray:
        return np.arange(1, len(self.prompts) + 1) if self.number_N is None else self.number_N

    def keep(self, mask_N: BoolArray) -> "RawTable":
        index = np.flatnonzero(mask_N).tolist()
        return replace(
            self,
            prompts=[self.prompts[i] for i in index],
            tasks=[self.tasks[i] for i in index],
            ids=[self.ids[i] for i in index] if self.ids else (),
            quality_NM=self.quality_NM[index],
            cost_NM=self.cost_NM[index],
            number_N=self.numbers()[index],
        )

    def keep_models(self, names: Sequence[str]) -> "RawTable":
        at = columns_of(names, self.models, self.path)
        return replace(self, models=names, quality_NM=self.quality_NM[:, at], cost_NM=self.cost_NM[:, at])

    def checked(self, repair: bool) -> RoutingTable:
        """The table, if it has no fault or `repair` is asked for. Raises TableError, naming every fault."""
        table, faults = self, []
        for find in CHECKS:
            if fault := find(table):
                faults.append(fault)
                table = fault.mended
        if faults and not repair:
            problems = "; ".join(fault.problem for fault in faults)
            raise TableError(f"{self.path} cannot be used as it is: {problems}. Mend the file, or give --repair")
        repairs = tuple(fault.repair for fault in faults)
        if not table.prompts or not table.models:
            mended = f" after repair ({'; '.join(repairs)})" if faults else ""
            raise TableError(f"{self.path} has no prompts or no models{mended}")
        names = (table.name, tuple(table.prompts), tuple(table.models))
        return RoutingTable(*names, table.quality_NM, table.cost_NM, tuple(table.tasks), repairs)


class Fault(NamedTuple):
    """What is wrong, what was done about it, and the table after that."""

    problem: str
    repair: str
    mended: RawTable


Check = Callable[[RawTable], Fault | None]


def dropping(what: str, find: Callable[[RawTable], BoolArray] | None = None) -> Check:
    """A check whose repair is to leave out the rows that `find` marks, by default as WRONG_ROWS has it."""

    def check(table: RawTable) -> Fault | None:
        wrong_N = (find or WRONG_ROWS[what])(table)
        if not wrong_N.any():
            return None
        rows = rows_in_words(table.numbers()[wrong_N])
        return Fault(f"{what} in {rows}", f"dropped {rows} for {what}", table.keep(~wrong_N))

    return check


def misaligned(table: RawTable) -> BoolArray:
    """One question, several prompts: not every model was asked the same, so their answers cannot be compared."""
    asked: dict[str, set[str]] = {}
    for id_, prompt in zip(table.ids, table.prompts, strict=False):
        asked.setdefault(id_, set()).add(prompt)
    return np.array([len(asked[id_]) > 1 for id_ in table.ids] or [False] * len(table.prompts), bool)


def first_gap(table: RawTable, models: Sequence[str]) -> str:
    """Where the first blank or what is no number stands among these models, and how numbers are written."""
    at = columns_of(models, table.models, table.path)
    row, model = np.argwhere(~np.isfinite(table.quality_NM + table.cost_NM)[:, at])[0].tolist()
    kind = "cost" if np.isfinite(table.quality_NM[row, at[model]]) else "quality"
    where = f"{kind} of {models[model]} in row {table.numbers()[row]}"
    return f"first the {where} (write 0.85 or 1200.5, without marks between thousands)"


def gaps(table: RawTable) -> Fault | None:
    fault = dropping("qualities or costs that are blank or no numbers")(table)
    return fault and fault._replace(problem=f"{fault.problem}, {first_gap(table, table.models)}")


def sparse_models(table: RawTable) -> Fault | None:
    share_M = np.isnan(table.quality_NM + table.cost_NM).mean(0) if table.prompts else np.zeros(len(table.models))
    sparse = [name for name, share in zip(table.models, share_M, strict=True) if share > SPARSE]
    if not sparse:
        return None
    gap = first_gap(table, sparse)
    what = f"{', '.join(sparse)} with more than {SPARSE:.0%} of its qualities or costs blank or no numbers, {gap}"
    kept = [name for name in table.models if name not in sparse]
    return Fault(what, f"dropped the model {what}", table.keep_models(kept))


def repeats(table: RawTable) -> Fault | None:
    """Rows that ask the same become one, with the mean of their outcomes."""
    owner_N = first_of_kind(table)
    repeated_N = owner_N != np.arange(len(owner_N))
    if not repeated_N.any():
        return None
    count_N = np.bincount(owner_N, minlength=len(owner_N))[:, None].clip(1)
    means = []
    for values_NM in (table.quality_NM, table.cost_NM):
        sum_NM = np.zeros_like(values_NM)
        np.add.at(sum_NM, owner_N, values_NM)
        means.append(sum_NM / count_N)
    merged = replace(table, quality_NM=means[0].clip(0, 1), cost_NM=means[1]).keep(~repeated_N)
    what = f"repeated prompts in {rows_in_words(table.numbers()[repeated_N])}"
    return Fault(what, f"merged {what} with the first of their kind, outcomes averaged", merged)


def below_chance(table: RawTable) -> Fault | None:
    """A model that does worse on a multiple-choice task than blind guessing: its answers were read wrongly.

    One-sided binomial test per task and model against the chance that the options in the prompts leave, Bonferroni.
    """
    chance_N = np.array([1 / max(options_in(prompt), 1) for prompt in table.prompts])
    tasks_N = np.array(table.tasks, object)
    tasks = sorted({task for task, chance in zip(table.tasks, chance_N, strict=True) if chance < 1})
    limit = BELOW_CHANCE / max(len(tasks) * len(table.models), 1)
    broken: dict[str, list[str]] = {}
    for task in tasks:
        rows = (tasks_N == task) & (chance_N < 1)
        if rows.sum() < (tasks_N == task).sum() / 2:
            continue  # a prompt here and there that lists things by letter
        right_M, count, chance = table.quality_NM[rows].sum(0), int(rows.sum()), float(chance_N[rows].mean())
        # Half points count upwards, so that partial credit never raises the alarm.
        probability_M = binom.cdf(np.ceil(right_M), count, chance)
        for model, right, probability in zip(table.models, right_M, probability_M, strict=True):
            if probability < limit:
                scores = f"{model} scores {right / count:.3f} on {task or 'the table'}"
                broken.setdefault(task, []).append(f"{scores}, where guessing would give {chance:.3f}")
    if not broken:
        return None
    gone = np.array([task in broken for task in table.tasks], bool)
    what = "; ".join(sentence for sentences in broken.values() for sentence in sentences)
    repair = f"dropped {int(gone.sum())} rows of {', '.join(sorted(broken)) or 'the table'}: {what}"
    return Fault(f"a broken column: {what}", repair, table.keep(~gone))


CHECKS: tuple[Check, ...] = (
    dropping("blank prompts"),
    dropping("one id but different prompts (the models were not asked the same)", misaligned),
    sparse_models,
    gaps,
    dropping("qualities outside 0 to 1"),
    dropping("costs below zero"),
    repeats,
    below_chance,
)


def options_in(prompt: str) -> int:
    """How many lettered options (A, B, C, ... one a line) the last question of a prompt offers; 0 for none."""
    letters = _OPTION.findall(prompt)
    starts = [i for i, letter in enumerate(letters) if letter == "A"]
    run = letters[starts[-1] :] if starts else []
    count = next((i for i, letter in enumerate(run) if letter != chr(ord("A") + i)), len(run))
    return count if count >= 2 else 0


def columns_of(names: Sequence[str], models: Sequence[str], where: object) -> list[int]:
    """The places of these models. Raises TableError for one that `where` does not have."""
    if unknown := sorted(set(names) - set(models)):
        raise TableError(f"{where} has no model {', '.join(unknown)}: it has {', '.join(models)}")
    return [models.index(name) for name in names]


def rows_in_words(numbers: IntArray) -> str:
    shown = ", ".join(str(number) for number in numbers[:5])
    return f"{len(numbers)} rows ({shown}{', ...' if len(numbers) > 5 else ''})"
