"""A table written as people write their own."""

import csv
from pathlib import Path

import numpy as np

from mofme.language.tables.table import RoutingTable


def save_plain(table: RoutingTable, path: Path) -> None:
    """As CSV, exactly: `load_table` gives the same prompts, tasks, models and numbers back."""
    with path.open("w", encoding="utf-8", newline="") as lines:
        writer = csv.writer(lines, quoting=csv.QUOTE_NONNUMERIC)
        pairs = [f"{kind}:{model}" for model in table.models for kind in ("quality", "cost")]
        writer.writerow(["prompt", "task", *pairs])
        numbers_NMx2 = np.stack([table.quality_NM, table.cost_NM], 2).reshape(len(table), -1)
        for prompt, task, row in zip(table.prompts, table.tasks, numbers_NMx2.tolist(), strict=True):
            writer.writerow([prompt, task, *row])
