"""SPROUT (arXiv 2502.03261), as on Hugging Face: one row a prompt, one column of structs a model."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mofme.language.llm_routing.loaders.draft import Draft
from mofme.language.llm_routing.loaders.reading import (
    column_names,
    is_parquet,
    number,
    parquet_files,
    read_parquet,
    text,
)
from mofme.language.llm_routing.prices import Prices

LOOKS_LIKE = (
    "Parquet (file or folder) with prompt, key, dataset and a struct for each model of score, num_input_tokens, "
    "num_output_tokens and response"
)
_FIELDS = ("score", "num_input_tokens", "num_output_tokens")


def matches(path: Path) -> bool:
    if not (is_parquet(path) or path.is_dir()) or "prompt" not in column_names(path):
        return False
    return bool(_models(parquet_files(path)[0]))


def read(path: Path, prices: Prices | None) -> Draft:
    """Cost: the recorded tokens at `prices`. The answers themselves are not read."""
    prices = prices or Prices.load()
    files = parquet_files(path)
    models = _models(files[0])
    asked = [name for name in ("prompt", "dataset") if name in column_names(files[0])]
    columns = read_parquet(path, [*asked, *(f"{model}.{field}" for model in models for field in _FIELDS)])
    prompts = [text(cell) for cell in columns["prompt"]]
    quality, cost = [], []
    for model in models:
        cells: list[dict[str, Any]] = [cell or {} for cell in columns[model]]
        score_N, input_N, output_N = (
            np.array([number(cell.get(field, math.nan)) for cell in cells], float) for field in _FIELDS
        )
        quality.append(score_N)
        cost.append(prices.cost(model, input_N, output_N))
    return Draft.of(
        path,
        "sprout",
        prompts,
        [text(task) for task in columns.get("dataset", [""] * len(prompts))],
        models,
        np.stack(quality, 1),
        np.stack(cost, 1),
    )


def _models(file: Path) -> list[str]:
    schema = pq.read_schema(file)
    return [
        field.name
        for field in schema
        if pa.types.is_struct(field.type) and {part.name for part in field.type} >= set(_FIELDS)
    ]
