"""Texts to read and questions to answer, from files: plain text, or lines of JSON, also gzipped."""

import ast
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import ascii_uppercase
from typing import Any

import numpy as np

from mofme.errors import TableError
from mofme.language.tables.columns import numbered_records, text_of

OWN_PROMPTS = Path(__file__).with_name("own_prompts.jsonl")  # 196 of seven categories, simple and hard ones: ours
_LETTERS = list(ascii_uppercase)


@dataclass(frozen=True)
class Question:
    """A multiple-choice question as a model meets it: the context, the choices after it, and which one is right."""

    context: str
    choices: tuple[str, ...]
    answer: int
    task: str = ""


def readable(text: str) -> str:
    """With a question mark for half a surrogate pair, such as is left of a cut emoji, which would stop a tokenizer."""
    return text.encode("utf-8", "replace").decode()


def read_text(path: Path) -> str:
    """A text file as it is; of lines of JSON their `text`, or `question` and `answer`, parted by empty lines.

    Raises TableError naming the file and the line.
    """
    if path.name.removesuffix(".gz").endswith(".jsonl"):
        text = "\n\n".join(_passage(row, path, number) for number, row in numbered_records(path))
    else:
        text = text_of(path)
    if not text.strip():
        raise TableError(f"{path} holds no text")
    return text


def read_texts(named: Sequence[tuple[str, Path]]) -> dict[str, str]:
    """Texts by their names. Raises TableError as `read_text`, and for two of one name."""
    texts: dict[str, str] = {}
    for name, path in named:
        if name in texts:
            raise TableError(f"{path}: another text is called {name!r} too, rename one of them")
        texts[name] = read_text(path)
    return texts


def _passage(row: Mapping[str, Any], path: Path, number: int) -> str:
    parts = [row["text"]] if "text" in row else [row[name] for name in ("question", "answer") if name in row]
    if not parts or not all(isinstance(part, str) for part in parts):
        raise TableError(f"{path}, line {number}: expected a `text`, or a `question` and an `answer`")
    return "\n".join(parts)


def read_questions(path: Path, tasks: tuple[str, ...] = (), limit: int | None = None, seed: int = 0) -> list[Question]:
    """Multiple-choice questions from lines of JSON; at most `limit`, drawn by `seed`, in the order of the file.

    A line holds the question (`question` or `query`), its `choices` or `options` (a list, or a mapping with the lists
    `text` and `label`), and the right one by its label, else by a letter or a number from 0 (`answer` or
    `ground_truth`); perhaps a task (`task`, `task_name` or `category`), of which `tasks` keeps some. Lines without
    choices are passed over. Raises TableError naming the file and the line, or if nothing is left.
    """
    asked = (_question(row, path, number, tasks) for number, row in numbered_records(path))
    found = [question for question in asked if question is not None]
    if not found:
        raise TableError(f"{path} holds no multiple-choice question" + (f" of {', '.join(tasks)}" if tasks else ""))
    if limit is None or limit >= len(found):
        return found
    drawn = np.random.default_rng(seed).choice(len(found), limit, replace=False)
    return [found[index] for index in sorted(drawn)]


def _question(row: Mapping[str, Any], path: Path, number: int, tasks: tuple[str, ...]) -> Question | None:
    task = str(_first(row, "task", "task_name", "category") or "")
    choices, labels = _choices(_first(row, "choices", "options"))
    if (tasks and task not in tasks) or not choices:
        return None
    asked, answer = _first(row, "question", "query"), _first(row, "answer", "ground_truth")
    if not isinstance(asked, str) or not isinstance(choices, list) or len(choices) < 2:
        raise TableError(f"{path}, line {number}: expected a question and at least two choices")
    right = labels.index(answer) if answer in labels else answer
    if not isinstance(right, int) or not 0 <= right < len(choices):
        advice = "" if tasks else "; if the file holds other tasks too, name those of multiple choice"
        raise TableError(f"{path}, line {number}: {answer!r} names none of the {len(choices)} choices{advice}")
    # The template of ARC in lm-evaluation-harness.
    return Question(f"Question: {asked.strip()}\nAnswer:", tuple(str(choice) for choice in choices), right, task)


def _choices(value: Any) -> tuple[Any, list[Any]]:
    """The choices' texts and the labels that name them."""
    if isinstance(value, str):  # LLMRouter's files hold the list or the mapping as Python writes it
        try:
            value = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            return value, []
    if isinstance(value, Mapping):
        return value.get("text"), _first(value, "label", "labels") or _LETTERS
    return value, _LETTERS


def _first(row: Mapping[str, Any], *names: str) -> Any:
    return next((row[name] for name in names if row.get(name) is not None), None)
