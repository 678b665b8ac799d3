"""What every router of prompts learns from and is judged by: the quality and the cost of each model on each prompt.

Axis names in this room: N prompts, M models, D numbers of an embedding, S settings of a router.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from mofme.errors import TableError

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


@dataclass(frozen=True)
class RoutingTable:
    """N prompts x M models, checked when it is made.

    `quality_NM` is in [0, 1], `cost_NM` in dollars for the whole query, never below zero. `tasks` names where each
    prompt comes from ("" where nobody knows). `repairs` says what was changed on the way here, one sentence each.

    Raises TableError, naming the rows counted from 1, for shapes that disagree, blanks, values out of range and
    repeated prompts.
    """

    name: str
    prompts: tuple[str, ...]
    models: tuple[str, ...]
    quality_NM: FloatArray
    cost_NM: FloatArray
    tasks: tuple[str, ...]
    repairs: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        problems = find_problems(self)
        if problems:
            raise TableError(f"{self.name} cannot be used: {'; '.join(problems)}")

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
        unknown = sorted(set(names) - set(self.models))
        if unknown:
            raise TableError(f"{self.name} has no model {', '.join(unknown)}: it has {', '.join(self.models)}")
        columns = [self.models.index(name) for name in names]
        return replace(
            self, models=tuple(names), quality_NM=self.quality_NM[:, columns], cost_NM=self.cost_NM[:, columns]
        )


def find_problems(table: RoutingTable) -> list[str]:
    """What makes the table unusable, one sentence each; empty if nothing does."""
    shape = (len(table.prompts), len(table.models))
    if not all(shape):
        return ["it has no prompts or no models"]
    if table.quality_NM.shape != shape or table.cost_NM.shape != shape or len(table.tasks) != shape[0]:
        return [
            f"{shape[0]} prompts and {shape[1]} models need {shape} qualities and costs and {shape[0]} tasks, got "
            f"{table.quality_NM.shape}, {table.cost_NM.shape} and {len(table.tasks)}"
        ]
    first: dict[str, int] = {}
    repeated = [row for row, prompt in enumerate(table.prompts) if first.setdefault(prompt, row) != row]
    blank = [row for row, prompt in enumerate(table.prompts) if not prompt.strip()]
    missing = np.flatnonzero(~np.isfinite(table.quality_NM + table.cost_NM).all(1))
    outside = np.flatnonzero(((table.quality_NM < 0) | (table.quality_NM > 1)).any(1))
    found: list[tuple[Sequence[int] | IntArray, str]] = [
        (blank, "blank prompts"),
        (repeated, "prompts that stand there twice"),
        (missing, "blank qualities or costs"),
        (outside, "qualities outside 0 to 1"),
        (np.flatnonzero((table.cost_NM < 0).any(1)), "costs below zero"),
    ]
    problems = [f"{what} in {_rows(rows)}" for rows, what in found if len(rows)]
    if len(set(table.models)) < len(table.models):
        problems.append("two models have the same name")
    return problems


def _rows(rows: Sequence[int] | IntArray) -> str:
    shown = ", ".join(str(row + 1) for row in rows[:5])
    return f"{len(rows)} rows ({shown}{', ...' if len(rows) > 5 else ''})"
