"""Tasks with a fixed set of classes: a text in, a class out, parted so that near-duplicates are never on both sides.

Axis names: N texts.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mofme.errors import TableError
from mofme.language.near_duplicates import grouped_splits, groups_of
from mofme.language.sentence_encoder import SentenceEncoder, question_of
from mofme.language.tables.columns import column_names, read_columns, read_json_lines
from mofme.language.tables.formats import load_table
from mofme.language.tables.table import IntArray
from mofme.language.text import OWN_PROMPTS


@dataclass(frozen=True)
class Examples:
    """Texts and their classes (N,), counted from 0."""

    texts: tuple[str, ...]
    label_N: IntArray


@dataclass(frozen=True)
class Task:
    """Three parts of the same texts: to learn from, to make choices by, and for the final figures alone."""

    name: str
    labels: tuple[str, ...]
    training: Examples
    validation: Examples
    test: Examples


def make_task(
    name: str,
    texts: Sequence[str],
    labels: Sequence[str],
    encoder: SentenceEncoder | None = None,
    limit: int | None = None,
) -> Task:
    """Part labelled texts 3 : 1 : 1, within each class, near-duplicates on one side; always the same way.

    At most `limit` texts are drawn. Raises TableError for less than two classes, or blank texts.
    """
    names = tuple(sorted(set(labels)))
    if len(names) < 2:
        raise TableError(f"{name} needs at least two classes, it has {len(names)}")
    if any(not text.strip() for text in texts):
        raise TableError(f"{name} has blank texts")
    chosen = np.sort(np.random.default_rng(0).permutation(len(texts))[:limit])
    texts, labels = [texts[i] for i in chosen], [labels[i] for i in chosen]
    group_N = groups_of((encoder or SentenceEncoder()).queries(texts))
    rest, test = next(grouped_splits(group_N, labels, splits=1, test_share=0.2))
    inner = next(grouped_splits(group_N[rest], [labels[i] for i in rest], splits=1, test_share=0.25))
    label_N = np.array([names.index(label) for label in labels], np.int64)

    def part(index: IntArray) -> Examples:
        return Examples(tuple(texts[i] for i in index), label_N[index])

    return Task(name, names, part(rest[inner[0]]), part(rest[inner[1]]), part(test))


def read_task(path: Path, encoder: SentenceEncoder | None = None, limit: int | None = None) -> Task:
    """A CSV file with the columns `text` and `label`; or any table of models' answers: which task is a prompt from?

    Raises TableError naming the file and what is wrong with it.
    """
    if path.is_file() and set(column_names(path)) >= {"text", "label"}:
        columns = read_columns(path)
        return make_task(path.stem, list(columns["text"]), list(columns["label"]), encoder, limit)
    table = load_table(path, repair=True)
    return make_task(table.name, [question_of(prompt) for prompt in table.prompts], table.tasks, encoder, limit)


def own_task(encoder: SentenceEncoder | None = None) -> Task:
    """What ships with this package, for a try without any data: 196 prompts of 7 categories."""
    rows = read_json_lines(OWN_PROMPTS)
    return make_task("kinds of prompts", [row["prompt"] for row in rows], [row["category"] for row in rows], encoder)
