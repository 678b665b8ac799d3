"""MMLU-Pro: whether each of 28 models chose the right option, and the length of its answer (TIGER-AI-Lab)."""

from pathlib import Path
from string import ascii_uppercase
from typing import Any

import numpy as np

from mofme.errors import TableError
from mofme.language.llm_routing.loaders.draft import Draft
from mofme.language.llm_routing.loaders.reading import column_names, number, read_columns, read_json_lines, text
from mofme.language.llm_routing.prices import CHARS_PER_TOKEN, Prices

LOOKS_LIKE = "CSV with question_id, <model>|correct and <model>|out_chars, with mmlu_pro_questions.jsonl.gz beside"
# Models that one could buy as they are (no base models), from 13 cents to 8 dollars a million tokens.
TEN_MODELS = (
    "gemini-1.5-pro-002",
    "jamba-1.5-large",
    "Qwen1.5-72B-Chat",
    "Meta-Llama-3_1-70B-Instruct",
    "Mixtral-8x7B-Instruct-v0.1",
    "c4ai-command-r-v01",
    "Mistral-7B-Instruct-v0.2",
    "Meta-Llama-3_1-8B-Instruct",
    "Phi-3-mini-4k-instruct",
    "gemini-1.5-flash-002",
)
_CORRECT = "|correct"


def matches(path: Path) -> bool:
    table = _table_in(path)
    names = column_names(table) if table else []
    return "question_id" in names and any(name.endswith(_CORRECT) for name in names)


def read(path: Path, prices: Prices | None) -> Draft:
    """All models of the file; the prompt is the question and its options, A to J, one a line.

    Cost: a token for every 4 characters, of the prompt and of the recorded answer, at `prices`; the worked examples
    that the models were also shown are not counted. An answer that could not be read counts as wrong.
    """
    prices = prices or Prices.load()
    table = _table_in(path) or path
    columns = read_columns(table)
    questions = {text(record.get("question_id")): record for record in _questions_beside(table)}
    ids = [text(id_) for id_ in columns["question_id"]]
    lost = [row for row, id_ in enumerate(ids, 1) if id_ not in questions]
    if lost:
        raise TableError(f"{table}: row {lost[0]} and {len(lost) - 1} others have no text in the file of questions")
    prompts = [prompt_of(questions[id_]) for id_ in ids]
    tokens_N = np.array([len(prompt) for prompt in prompts]) / CHARS_PER_TOKEN
    models = [name.removesuffix(_CORRECT) for name in columns if name.endswith(_CORRECT)]
    if lacking := [name for name in ("category", *(f"{model}|out_chars" for model in models)) if name not in columns]:
        raise TableError(f"{table} lacks the columns {', '.join(lacking)}")
    quality, cost = [], []
    for model in models:
        answer_N = np.array([number(cell) for cell in columns[f"{model}|out_chars"]]) / CHARS_PER_TOKEN
        quality.append([number(cell) for cell in columns[model + _CORRECT]])
        cost.append(prices.cost(model, tokens_N, answer_N))
    tasks = [text(category) for category in columns["category"]]
    return Draft.of(path, "mmlu_pro", prompts, tasks, models, np.array(quality).T, np.stack(cost, 1), ids)


def prompt_of(question: dict[str, Any]) -> str:
    options = [f"{letter}. {option}" for letter, option in zip(ascii_uppercase, question["options"], strict=False)]
    return "\n".join([str(question["question"]), *options])


def _questions_beside(table: Path) -> list[dict[str, Any]]:
    files = sorted(table.parent.glob("*questions.jsonl*"))
    if not files:
        raise TableError(f"{table} holds no texts: put mmlu_pro_questions.jsonl.gz beside it")
    return read_json_lines(files[0])


def _table_in(path: Path) -> Path | None:
    if path.is_file():
        return path
    return next(iter(sorted(path.glob("mmlu_pro*.csv*"))), None)
