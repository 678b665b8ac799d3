"""The paper's comparison: the same banks under one router, under one with as many parameters, and under a mixture.

Axis names: N questions of the test part.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from mofme.errors import TableError
from mofme.language.lora_mixture.bank import MIXTURE, SINGLE, WIDE, Recipe
from mofme.language.lora_mixture.classifier import LAST, Classifier, lowest_block
from mofme.language.lora_mixture.explanation import explain_batch
from mofme.language.lora_mixture.lessons import Lessons, prepare
from mofme.language.lora_mixture.storage import save_adapters
from mofme.language.lora_mixture.tasks import read_task
from mofme.language.lora_mixture.training import Plan, measure, train, trained_parameters
from mofme.measure.study import Study

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
    `folder` holds a study with another setting.
    """
    if len({table.name for table in tables}) < len(tables):
        raise TableError("two of the tables have the same file name, by which results are kept: rename one")
    study = Study(folder, asdict(setting))
    prepared: dict[Path, Lessons] = {}

    def lessons(table: Path) -> Lessons:
        if table not in prepared:
            say(f"{table.name}: reading")
            prepared[table] = prepare(read_task(table, limit=setting.limit), lowest_block(ARMS[CONTROL]))
        return prepared[table]

    def run(table: Path, arm: str, seed: int) -> Outcome:
        say(f"seed {seed}, {table.name}: {arm}")
        classifier, outcome = run_arm(lessons(table), ARMS[arm], setting, seed)
        if shipping is not None and (table, arm, seed) == (tables[0], SHIPPED_ARM, seeds[0]):
            _ship(shipping, lessons(table), classifier, outcome, setting, seed)
        return outcome

    facts = [study.kept(table.name, _with_right(TaskFacts), lambda: _facts(lessons(table))) for table in tables]  # noqa: B023
    outcomes: dict[str, dict[str, list[Outcome]]] = {one.name: {arm: [] for arm in ARMS} for one in facts}
    for seed in seeds:
        for table, one in zip(tables, facts, strict=True):
            for number, arm in enumerate(ARMS):
                name = f"{table.name}-{number}-{seed}"
                outcome = study.kept(name, _with_right(Outcome), partial(run, table, arm, seed))
                outcomes[one.name][arm].append(outcome)
    return Findings(facts, outcomes)


def run_arm(lessons: Lessons, recipe: Recipe, setting: Setting, seed: int) -> tuple[Classifier, Outcome]:
    """Train one arm and measure it on the test part."""
    begin = time.process_time()
    classifier = train(Plan(lessons, recipe, setting.steps, setting.batch, setting.learning_rate, seed))
    seconds = time.process_time() - begin
    measured = measure(classifier, lessons.test)
    outcome = Outcome(measured.right_N.astype(np.int64), measured.load, seconds, trained_parameters(classifier))
    if recipe.router != MIXTURE:
        return classifier, outcome
    x_BTD, seen_BT, _ = lessons.test.batch(np.arange(min(_EXPLAINED, len(lessons.test))))
    _, layers = explain_batch(classifier, x_BTD, seen_BT)
    return classifier, replace(
        outcome,
        agreement=float(np.mean([layer.agreement for layer in layers])),
        divergence=float(np.mean([layer.divergence for layer in layers])),
    )


def _ship(
    shipping: Shipping, lessons: Lessons, classifier: Classifier, outcome: Outcome, setting: Setting, seed: int
) -> None:
    training = {"task": lessons.task.name, "texts": len(lessons.training), "seed": seed, **asdict(setting)}
    metrics = {"test texts": len(lessons.test), "test accuracy": round(float(outcome.right_N.mean()), 4)}
    labels, recipe = lessons.task.labels, ARMS[SHIPPED_ARM]
    save_adapters(shipping.folder, classifier, recipe, labels, shipping.licence, training, metrics)


def _facts(lessons: Lessons) -> TaskFacts:
    return TaskFacts(
        lessons.task.name,
        len(lessons.task.labels),
        len(lessons.training),
        len(lessons.validation),
        lessons.right_without_banks(lessons.test),
    )


def _with_right(kind: type[Kept]) -> Callable[..., Kept]:
    """Runs begun before keep which answers are right as a text of 0 and 1."""
    return lambda right_N, **others: kind(right_N=np.array(list(right_N), np.int64), **others)
