"""Tables in the formats in which others publish them, recognised by what the files look like, and one of one's own.

One's own is CSV or Parquet: a row a prompt, or a row for each answer of a model.
"""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from textwrap import shorten
from typing import NamedTuple

import numpy as np

from mofme.errors import TableError
from mofme.language.tables import published
from mofme.language.tables.columns import Columns, column_names, number, numbers, read_columns, text, texts
from mofme.language.tables.published import Prices
from mofme.language.tables.table import RawTable, RoutingTable

PLAIN = (
    "CSV or Parquet with prompt, perhaps task, and quality:<model> and cost:<model> for each model; or a row an answer "
    "with prompt, model, quality, cost and perhaps id and task"
)
_QUALITY, _COST = "quality:", "cost:"
_SHOWN = 200  # letters of the names of columns
_LONG = {"prompt", "model", "quality", "cost"}


class Format(NamedTuple):
    """One way of publishing a table: its name, what its files look like, how to tell and how to read them."""

    name: str
    looks_like: str
    matches: Callable[[Path], bool]
    read: Callable[[Path, Prices | None], RawTable]
    models: Sequence[str] = ()  # those taken where nobody asks for others; empty for all


def load_table(
    path: Path, repair: bool = False, models: Sequence[str] | None = None, prices: Prices | None = None
) -> RoutingTable:
    """The table in a file or folder of any of FORMATS.

    `repair` drops or merges what is wrong and says so in `table.repairs`; otherwise any fault is an error. `models`
    takes these only, ["all"] every one; by default all but for MMLU-Pro (published.TEN_MODELS). `prices` stand in
    where costs were not recorded; else those beside the table, else the list prices. Raises TableError, which names
    the file, the rows, the fault and the remedy.
    """
    path = Path(path)
    if not path.exists():
        raise TableError(f"{path} is not there")
    found = next((format for format in FORMATS if format.matches(path)), None)
    if found is None:
        known = "; ".join(f"{format.name}: {format.looks_like}" for format in FORMATS)
        names = ", ".join(column_names(path))[:_SHOWN]
        has = f"it has the columns {names}" if names else "it names no columns"
        raise TableError(f"{path} is no table of a format known here: {has}. Known are {known}")
    raw = found.read(path, prices)
    wanted = found.models if models is None else models
    if wanted and list(wanted) != ["all"]:
        raw = raw.keep_models(wanted)
    above_0 = raw.quality_NM[raw.quality_NM > 0]
    if above_0.size and np.median(above_0) > 1:  # a repair would leave the prompts on which all models fail
        raise TableError(f"{path}: qualities go up to {above_0.max():g}: give them from 0 to 1")
    return raw.checked(repair)


def is_plain(path: Path) -> bool:
    if path.is_dir():
        return False
    names = column_names(path)
    return set(names) >= _LONG or ("prompt" in names and any(name.startswith((_QUALITY, _COST)) for name in names))


def read_plain(path: Path, _prices: Prices | None) -> RawTable:
    """Quality from 0 to 1 and cost in dollars, as they stand in the file."""
    columns = read_columns(path)
    if strange := [row for row, cell in enumerate(columns["prompt"], 1) if isinstance(cell, list | dict | bytes)]:
        raise TableError(f"{path}: the prompt of row {strange[0]} is no text: give the question in plain words")
    return _a_row_an_answer(path, columns) if columns.keys() >= _LONG else _a_row_a_prompt(path, columns)


def _a_row_a_prompt(path: Path, columns: Columns) -> RawTable:
    models = [name.removeprefix(_QUALITY) for name in columns if name.startswith(_QUALITY)]
    costs = [name.removeprefix(_COST) for name in columns if name.startswith(_COST)]
    if alone := sorted(set(models) ^ set(costs)):
        raise TableError(f"{path}: {', '.join(alone)} needs both a column {_QUALITY}... and a column {_COST}...")
    prompts = texts(columns["prompt"])
    tasks = texts(columns.get("task", [""] * len(prompts)))
    kinds = ((_QUALITY, "%"), (_COST, "$"))
    quality_NM, cost_NM = (numbers(columns, [kind + model for model in models], unit) for kind, unit in kinds)
    return RawTable(path, path.name.split(".")[0], prompts, tasks, models, quality_NM, cost_NM)


def _a_row_an_answer(path: Path, columns: Columns) -> RawTable:
    """One row for each id and prompt, numbered as its first answer: an id with two prompts makes two rows, with blanks,
    which the checks find. Where there are no ids, the prompts' texts are.
    """
    cells = {name: texts(columns[name]) for name in ("prompt", "model")}
    cells["model"] = [name.strip() for name in cells["model"]]
    ids = texts(columns.get("id", cells["prompt"]))
    first_of: dict[tuple[str, str], int] = {}
    for row, pair in enumerate(zip(ids, cells["prompt"], strict=True)):
        first_of.setdefault(pair, row)
    models = list(dict.fromkeys(cells["model"]))
    row_of = {pair: row for row, pair in enumerate(first_of)}
    column_of = {model: column for column, model in enumerate(models)}
    quality_NM = np.full((len(row_of), len(models)), math.nan)
    cost_NM, tasks, seen = quality_NM.copy(), [""] * len(row_of), set()
    for row, (id_, prompt, model) in enumerate(zip(ids, *cells.values(), strict=True)):
        place = row_of[id_, prompt], column_of[model]
        if place in seen:
            remedy = "remove one of them" + ("" if "id" in columns else ", or tell the prompts apart by a column id")
            raise TableError(f"{path}: row {row + 1} is a second answer of {model} to {shorten(id_, 60)}: {remedy}")
        seen.add(place)
        quality_NM[place] = number(columns["quality"][row], "%")
        cost_NM[place] = number(columns["cost"][row], "$")
        tasks[place[0]] = text(columns["task"][row]) if "task" in columns else ""
    known: Sequence[str] = [id_ for id_, _ in row_of] if "id" in columns else ()
    number_N = np.array([row + 1 for row in first_of.values()], int)
    prompts = [prompt for _, prompt in row_of]
    return RawTable(path, path.name.split(".")[0], prompts, tasks, models, quality_NM, cost_NM, known, number_N)


FORMATS: tuple[Format, ...] = (
    Format("plain", PLAIN, is_plain, read_plain),
    Format("routerbench", published.ROUTERBENCH, published.is_routerbench, published.read_routerbench),
    Format("llmrouter", published.LLMROUTER, published.is_llmrouter, published.read_llmrouter),
    Format("mmlu_pro", published.MMLU_PRO, published.is_mmlu_pro, published.read_mmlu_pro, published.TEN_MODELS),
    Format("routellm", published.ROUTELLM, published.is_routellm, published.read_routellm),
    Format("sprout", published.SPROUT, published.is_sprout, published.read_sprout),
)
