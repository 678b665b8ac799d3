"""A table of one's own, CSV or Parquet: a row a prompt, or a row for each answer of a model."""

import csv
import math
from pathlib import Path

import numpy as np

from mofme.errors import TableError
from mofme.files import atomic_file
from mofme.language.llm_routing.loaders.draft import Draft
from mofme.language.llm_routing.loaders.reading import Columns, column_names, number, read_columns, text
from mofme.language.llm_routing.prices import Prices
from mofme.language.llm_routing.table import RoutingTable

LOOKS_LIKE = (
    "CSV or Parquet with prompt, perhaps task, and quality:<model> and cost:<model> for each model; or a row an answer "
    "with id, prompt, model, quality, cost and perhaps task"
)
_QUALITY, _COST = "quality:", "cost:"
_LONG = {"id", "prompt", "model", "quality", "cost"}


def matches(path: Path) -> bool:
    if path.is_dir():
        return False
    names = column_names(path)
    return set(names) >= _LONG or ("prompt" in names and any(name.startswith((_QUALITY, _COST)) for name in names))


def read(path: Path, _prices: Prices | None) -> Draft:
    """Quality from 0 to 1 and cost in dollars, as they stand in the file."""
    columns = read_columns(path)
    return _long(path, columns) if columns.keys() >= _LONG else _wide(path, columns)


def save_plain(table: RoutingTable, path: Path) -> None:
    """Writes the table as CSV, exactly: `load_table` gives the same prompts, tasks, models and numbers back."""
    with atomic_file(path, "w") as lines:
        writer = csv.writer(lines, quoting=csv.QUOTE_NONNUMERIC)
        pairs = [f"{kind}{model}" for model in table.models for kind in (_QUALITY, _COST)]
        writer.writerow(["prompt", "task", *pairs])
        numbers_NMx2 = np.stack([table.quality_NM, table.cost_NM], 2).reshape(len(table), -1)
        for prompt, task, numbers in zip(table.prompts, table.tasks, numbers_NMx2.tolist(), strict=True):
            writer.writerow([prompt, task, *numbers])


def _wide(path: Path, columns: Columns) -> Draft:
    models = [name.removeprefix(_QUALITY) for name in columns if name.startswith(_QUALITY)]
    costs = [name.removeprefix(_COST) for name in columns if name.startswith(_COST)]
    alone = sorted(set(models) ^ set(costs))
    if alone:
        raise TableError(f"{path}: {', '.join(alone)} needs both a column {_QUALITY}... and a column {_COST}...")
    prompts = [text(cell) for cell in columns["prompt"]]
    return Draft.of(
        path,
        path.name.split(".")[0],
        prompts,
        [text(task) for task in columns.get("task", [""] * len(prompts))],
        models,
        np.array([[number(cell) for cell in columns[_QUALITY + model]] for model in models]).T,
        np.array([[number(cell) for cell in columns[_COST + model]] for model in models]).T,
    )


def _long(path: Path, columns: Columns) -> Draft:
    """One row for each id and prompt: an id with two prompts makes two rows, with blanks, which the checks find."""
    cells = {name: [text(cell) for cell in columns[name]] for name in ("id", "prompt", "model")}
    asked = list(dict.fromkeys(zip(cells["id"], cells["prompt"], strict=True)))
    models = list(dict.fromkeys(cells["model"]))
    row_of = {pair: row for row, pair in enumerate(asked)}
    column_of = {model: column for column, model in enumerate(models)}
    quality_NM = np.full((len(asked), len(models)), math.nan)
    cost_NM, tasks, seen = quality_NM.copy(), [""] * len(asked), set()
    for row, (id_, prompt, model) in enumerate(zip(*cells.values(), strict=True)):
        place = row_of[id_, prompt], column_of[model]
        if place in seen:
            raise TableError(f"{path}: row {row + 1} is a second answer of {model} to {id_}: remove one of them")
        seen.add(place)
        quality_NM[place], cost_NM[place] = number(columns["quality"][row]), number(columns["cost"][row])
        tasks[place[0]] = text(columns["task"][row]) if "task" in columns else ""
    prompts = [prompt for _, prompt in asked]
    ids = [id_ for id_, _ in asked]
    return Draft.of(path, path.name.split(".")[0], prompts, tasks, models, quality_NM, cost_NM, ids)
