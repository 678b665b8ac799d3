"""Routers that a visitor trains: the same banks trained with several routers on the same texts, one after the other."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mofme.errors import TableError
from mofme.language.sentence_encoder import SentenceEncoder
from mofme.language.tables.columns import column_names
from mofme.measure.result import Figure
from mofme.measure.statistics import wilson
from mofme.papers.mixture_of_routers.lora import LAST, Recipe, lowest_block
from mofme.papers.mixture_of_routers.tab import ARMS
from mofme.papers.mixture_of_routers.training import (
    Measured,
    Plan,
    Progress,
    Task,
    measure,
    own_task,
    prepare,
    read_task,
    train,
    trained_parameters,
)
from mofme.ui.limits import Limits
from mofme.ui.runs import Job

_READING = 0.2  # share of the work


@dataclass(frozen=True)
class Arm:
    """One router after training: the loss of every step, how it does on texts held back, parameters trained."""

    name: str
    losses: Sequence[float]
    measured: Measured
    parameters: int

    @property
    def accuracy(self) -> Figure:
        """Percent of the texts held back, with Wilson's 95 % interval."""
        right_N = self.measured.right_N
        return wilson(int(right_N.sum()), len(right_N)).percent()


@dataclass(frozen=True)
class Trained:
    """All arms on one task, beside the percentage that the encoder gets right with the head that all begin with."""

    task: Task
    arms: tuple[Arm, ...]
    without_experts: float

    @property
    def guess(self) -> float:
        """Percent of the texts held back that are of the most frequent class."""
        return 100 * float(np.bincount(self.task.test.label_N).max()) / len(self.task.test.label_N)


def read_texts(path: str | Path | None, limits: Limits, encoder: SentenceEncoder | None = None) -> Task:
    """A visitor's CSV with the columns `text` and `label`; without one the prompts of seven kinds that ship.

    Raises TableError, naming what is wrong with the file.
    """
    encoder = encoder or SentenceEncoder(remember=False)  # a visitor's texts leave no trace
    if path is None:
        return own_task(encoder)
    path = Path(path)
    if path.stat().st_size > limits.table_megabytes * 1e6:
        raise TableError(f"{path.name} is larger than the limit of {limits.table_megabytes:g} MB.")
    if missing := {"text", "label"} - set(column_names(path)):
        raise TableError(f"{path.name} lacks {', '.join(sorted(missing))}: its first line names the columns.")
    return read_task(path, encoder, limits.table_prompts)


def train_arms(task: Task, arms: Sequence[str], steps: int, job: Job) -> Trained:
    """Train every arm of ARMS that is named: the same beginning, texts and steps, only the router differs.

    Raises MofmeError when the job is stopped or its time is up.
    """

    def read(done: int, total: int) -> None:
        job.report(_READING * done / total, "Reading the texts")

    prepared = prepare(task, lowest_block(Recipe(LAST)), read)
    trained: list[Arm] = []
    for number, name in enumerate(arms):
        losses: list[float] = []

        def learnt(progress: Progress, number: int = number, name: str = name, losses: list[float] = losses) -> None:
            losses.append(progress.loss)
            share = (number + progress.step / progress.steps) / len(arms)
            words = f"{name}: step {progress.step} of {progress.steps}, {progress.loss:.2f} nats"
            job.report(_READING + (1 - _READING) * share, words)

        classifier = train(Plan(prepared, Recipe(LAST, *ARMS[name]), steps=steps), learnt)
        trained.append(Arm(name, losses, measure(classifier, prepared.test), trained_parameters(classifier)))
    without = 100 * float(prepared.right_without_banks(prepared.test).mean())
    return Trained(task, tuple(trained), without)
