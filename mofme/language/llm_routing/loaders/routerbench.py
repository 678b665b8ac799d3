"""RouterBench: one row a prompt, with the score and the real cost of each model (arXiv 2403.12031)."""

import ast
from pathlib import Path

import numpy as np

from mofme.errors import TableError
from mofme.language.llm_routing.loaders.draft import Draft
from mofme.language.llm_routing.loaders.reading import column_names, number, read_columns, text
from mofme.language.llm_routing.prices import Prices

LOOKS_LIKE = "CSV or Parquet with the columns prompt, <model>|score (or <model>) and <model>|total_cost"
_COST = "|total_cost"


def matches(path: Path) -> bool:
    table = _table_in(path)
    names = column_names(table) if table else []
    return "prompt" in names and any(name.endswith(_COST) for name in names)


def read(path: Path, _prices: Prices | None) -> Draft:
    """The prompts are kept whole, worked examples included: `question_of` finds the question in them."""
    columns = read_columns(_table_in(path) or path)
    models = [name.removesuffix(_COST) for name in columns if name.endswith(_COST)]
    scores = [f"{model}|score" if f"{model}|score" in columns else model for model in models]
    missing = [name for name in scores if name not in columns]
    if missing:
        raise TableError(f"{path} has costs but no scores of {', '.join(missing)}")
    prompts = [_prompt(text(cell)) for cell in columns["prompt"]]
    tasks = columns.get("eval_name") or columns.get("task") or [""] * len(prompts)
    return Draft.of(
        path,
        "routerbench",
        prompts,
        [text(task) for task in tasks],
        models,
        np.array([[number(cell) for cell in columns[name]] for name in scores]).T,
        np.array([[number(cell) for cell in columns[model + _COST]] for model in models]).T,
        [text(id_) for id_ in columns.get("sample_id", [])],
    )


def _prompt(cell: str) -> str:
    """The text of a prompt, which RouterBench keeps as a Python list of its parts."""
    if not cell.startswith("["):
        return cell
    try:
        parts = ast.literal_eval(cell)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return cell
    return "\n\n".join(part for part in parts if isinstance(part, str)) if isinstance(parts, list) else cell


def _table_in(path: Path) -> Path | None:
    if path.is_file():
        return path
    return next(iter(sorted(path.glob("routerbench*.csv*"))), None)
