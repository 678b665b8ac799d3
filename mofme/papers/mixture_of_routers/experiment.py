"""The paper's comparison: the same banks under one router, under one with as many parameters, and under a mixture.

Axis names: K tasks, S seeds, N questions of the test part.
"""

import time
import zlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial, reduce
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from mofme.errors import TableError
from mofme.measure.result import Figure, Result, Row, this_machine
from mofme.measure.statistics import FloatArray, stratified_bootstrap, students_mean
from mofme.measure.study import Study
from mofme.papers.mixture_of_routers import MEAN, judge
from mofme.papers.mixture_of_routers.lora import LAST, MIXTURE, SINGLE, WIDE, Classifier, Recipe, lowest_block
from mofme.papers.mixture_of_routers.model import explain_batch, save_adapters
from mofme.papers.mixture_of_routers.training import (
    Plan,
    PreparedTask,
    measure,
    prepare,
    read_task,
    train,
    trained_parameters,
)

ARMS: Mapping[str, Recipe] = {
    "single router": Recipe(LAST, SINGLE),
    "wide router, as large as 2": Recipe(LAST, WIDE, 2),
    "mixture of 2": Recipe(LAST, MIXTURE, 2),
    "wide router, as large as 4": Recipe(LAST, WIDE, 4),
    "mixture of 4": Recipe(LAST, MIXTURE, 4),
}
CONTROL = "single router"
WIDE_CONTROL = {"mixture of 2": "wide router, as large as 2", "mixture of 4": "wide router, as large as 4"}
SHIPPED_ARM = "mixture of 2"
_EXPLAINED = 64

Say = Callable[[str], None]
Kept = TypeVar("Kept", "TaskFacts", "Outcome")


@dataclass(frozen=True)
class Setting:
    """What all arms share. `limit` texts are drawn from each table at most."""

    steps: int = 200
    batch: int = 16
    learning_rate: float = 3e-4
    limit: int | None = None


@dataclass(frozen=True)
class TaskFacts:
    """One task: its classes, the texts of each part, and what the encoder with its head alone gets right (N,)."""

    name: str
    classes: int
    training: int
    validation: int
    right_N: NDArray[np.int64]


@dataclass(frozen=True)
class Outcome:
    """One arm on one task with one seed: what it got right of the test part (N,); CPU seconds of training.

    `agreement` and `divergence` are those of `explanation`, 1 and 0 for arms without sub-routers.
    """

    right_N: NDArray[np.int64]
    load: float
    seconds: float
    parameters: int
    agreement: float = 1.0
    divergence: float = 0.0


@dataclass(frozen=True)
class Findings:
    """All outcomes, by task and arm, one a seed; seeds are paired."""

    tasks: Sequence[TaskFacts]
    outcomes: Mapping[str, Mapping[str, Sequence[Outcome]]]

    def right_SN(self, task: str, arm: str) -> FloatArray:
        return np.array([one.right_N for one in self.outcomes[task][arm]], np.float64)


@dataclass(frozen=True)
class Shipping:
    """Where the adapters of SHIPPED_ARM go, trained on the first task with the first seed, and under which licence."""

    folder: Path
    licence: str


def compare(
    tables: Sequence[Path],
    setting: Setting,
    seeds: Sequence[int],
    folder: Path,
    say: Say,
    shipping: Shipping | None = None,
) -> Findings:
    """Train and measure every arm on every task with every seed.

    `folder` keeps what is finished: stopped and called again with the same arguments it goes on from there. Raises
    TableError for a table that cannot be read or two of one name, ModelError if the encoder is not installed or
    `folder` holds a study with another setting, or of a table of the same name with other content.
    """
    if len({table.name for table in tables}) < len(tables):
        raise TableError("two of the tables have the same file name, by which results are kept: rename one")
    study = Study(folder, asdict(setting))
    for table in tables:
        Study(folder, {"content": _content(table)}, note=f"table-{table.name}")
    tasks: dict[Path, PreparedTask] = {}

    def task_of(table: Path) -> PreparedTask:
        if table not in tasks:
            say(f"{table.name}: reading")
            tasks[table] = prepare(read_task(table, limit=setting.limit), lowest_block(ARMS[CONTROL]))
        return tasks[table]

    def facts_of(table: Path) -> TaskFacts:
        task = task_of(table)
        sizes = len(task.labels), len(task.training), len(task.validation)
        return TaskFacts(task.name, *sizes, task.right_without_banks(task.test))

    def run(table: Path, arm: str, seed: int) -> Outcome:
        say(f"seed {seed}, {table.name}: {arm}")
        task = task_of(table)
        classifier, outcome = _run_arm(task, ARMS[arm], setting, seed)
        if shipping is not None and (table, arm, seed) == (tables[0], SHIPPED_ARM, seeds[0]):
            training = {"task": task.name, "texts": len(task.training), "seed": seed, **asdict(setting)}
            metrics = {"test texts": len(task.test), "test accuracy": round(float(outcome.right_N.mean()), 4)}
            save_adapters(shipping.folder, classifier, ARMS[arm], task.labels, shipping.licence, training, metrics)
        return outcome

    facts = [study.kept(table.name, _with_right(TaskFacts), partial(facts_of, table)) for table in tables]
    counted = Counter(one.name for one in facts)
    if twice := sorted(name for name, count in counted.items() if count > 1):
        raise TableError(f"two of the tables hold a task called {', '.join(twice)}: compare them one after the other")
    outcomes: dict[str, dict[str, list[Outcome]]] = {one.name: {arm: [] for arm in ARMS} for one in facts}
    for seed in seeds:
        for table, one in zip(tables, facts, strict=True):
            for number, arm in enumerate(ARMS):
                name = f"{table.name}-{number}-{seed}"
                outcome = study.kept(name, _with_right(Outcome), partial(run, table, arm, seed))
                outcomes[one.name][arm].append(outcome)
    return Findings(facts, outcomes)


def _content(table: Path) -> int:
    """A number that a table with other content hardly shares; of a folder, that of all its files."""
    files = sorted(path for path in table.rglob("*") if path.is_file()) if table.is_dir() else [table]
    return reduce(lambda number, file: zlib.crc32(file.read_bytes(), number), files, 0)


def _run_arm(task: PreparedTask, recipe: Recipe, setting: Setting, seed: int) -> tuple[Classifier, Outcome]:
    begin = time.process_time()
    classifier = train(Plan(task, recipe, setting.steps, setting.batch, setting.learning_rate, seed))
    seconds = time.process_time() - begin
    measured = measure(classifier, task.test)
    outcome = Outcome(measured.right_N.astype(np.int64), measured.load, seconds, trained_parameters(classifier))
    if recipe.router != MIXTURE:
        return classifier, outcome
    x_BTD, seen_BT, _ = task.test.batch(np.arange(min(_EXPLAINED, len(task.test))))
    _, layers = explain_batch(classifier, x_BTD, seen_BT)
    agreement = float(np.mean([layer.agreement for layer in layers]))
    divergence = float(np.mean([layer.divergence for layer in layers]))
    return classifier, replace(outcome, agreement=agreement, divergence=divergence)


def _with_right(kind: type[Kept]) -> Callable[..., Kept]:
    """Runs begun before keep which answers are right as a text of 0 and 1."""
    return lambda right_N, **others: kind(right_N=np.array(list(right_N), np.int64), **others)


def as_result(found: Findings, seeds: Sequence[int], command: str) -> Result:
    """Everything that the study measured, beside the paper's claim."""
    rows = [Row("accuracy", f"{task.name}: {arm}", _arm(found, task.name, arm)) for task in found.tasks for arm in ARMS]
    rows += [
        Row("differences", f"{task}: {arm} against {control}", difference(found, task, arm, control))
        for arm, wide in WIDE_CONTROL.items()
        for control in (CONTROL, wide)
        for task in [*(task.name for task in found.tasks), MEAN]
    ]
    for task in found.tasks:
        figures = {
            "classes": task.classes,
            "training texts": task.training,
            "validation texts": task.validation,
            "test texts": len(task.right_N),
            "encoder and head alone, %": 100 * float(task.right_N.mean()),
        }
        rows.append(Row("tasks", task.name, {name: Figure(value) for name, value in figures.items()}))
    result = Result(
        room="mixture_of_routers",
        paper="Mixture of Routers (arXiv 2503.23362)",
        claim="several sub-routers under a main router, as a plug-in for LoRA experts, gain about 1 % on average",
        verdict="",
        command=command,
        rows=rows,
        seeds=list(seeds),
        interval="95 %; Student's over the seeds, or where a column says so of a bootstrap over the test texts; paired",
        machine=this_machine(threads=1),
    )
    return judge(result)


def difference(found: Findings, task: str, arm: str, control: str) -> dict[str, Figure]:
    """Points of accuracy that an arm gains over another on one task, or on MEAN, all tasks counting alike."""
    names = [one.name for one in found.tasks] if task == MEAN else [task]
    # (S, N) each; seeds are paired.
    gains = [100 * (found.right_SN(name, arm) - found.right_SN(name, control)) for name in names]
    over_seeds = students_mean(np.mean([gain_SN.mean(1) for gain_SN in gains], axis=0))
    over_texts = stratified_bootstrap([gain_SN.mean(0) for gain_SN in gains])
    return {"gain, points": over_seeds, "gain, points, over texts": over_texts}


def _arm(found: Findings, task: str, arm: str) -> dict[str, Figure]:
    outcomes = found.outcomes[task][arm]

    def over_seeds(of: Callable[[Outcome], float]) -> Figure:
        return students_mean(np.array([of(one) for one in outcomes], np.float64))

    figures = {
        "accuracy, %": over_seeds(lambda one: 100 * float(one.right_N.mean())),
        "load, coefficient of variation": over_seeds(lambda one: one.load),
        "trained parameters": Figure(outcomes[0].parameters),
        "training, CPU s": over_seeds(lambda one: one.seconds),
    }
    if arm in WIDE_CONTROL:
        figures["sub-routers agree, %"] = over_seeds(lambda one: 100 * one.agreement)
        figures["sub-routers' divergence"] = over_seeds(lambda one: one.divergence)
    return figures
