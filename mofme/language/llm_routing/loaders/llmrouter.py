"""LLMRouter (ulab-uiuc): scores of nine models on fourteen tasks, in two files that share questions."""

import zlib
from pathlib import Path
from typing import Any

import numpy as np

from mofme.errors import TableError
from mofme.language.llm_routing.loaders.draft import Draft
from mofme.language.llm_routing.loaders.reading import number, opened, read_json, read_json_lines
from mofme.language.llm_routing.prices import CHARS_PER_TOKEN, Price, Prices
from mofme.language.llm_routing.table import FloatArray

LOOKS_LIKE = "dcrouter_train.json.gz and dcrouter_test.json.gz (or one of them), with default_llm.json beside"
ANSWER_TOKENS = 200.0  # no length of an answer was recorded, so every answer is taken to have this one


def matches(path: Path) -> bool:
    return bool(_files(path))


def read(path: Path, prices: Prices | None) -> Draft:
    """The questions of the file, or of both files of a folder, training first.

    119 of the 500 test questions are copies of training questions: a fault unless one file is read on its own.
    Cost: a token for every 4 characters of the question and ANSWER_TOKENS of answer, at `prices`, else those in
    `default_llm.json`. llama3-chatqa-1.5-70b scores 0 to .03 on six multiple-choice tasks, below chance, as if its
    answers could not be read; the prompts do not list the options, so the check for that cannot see it. It is kept.
    """
    folder = path if path.is_dir() else path.parent
    beside = folder / "default_llm.json"
    listed = prices or (_prices_in(beside) if beside.exists() else Prices.load())
    task_of = {
        record.get("query"): str(record.get("task_name", ""))
        for file in sorted(folder.glob("default_query_*.jsonl*"))
        for record in read_json_lines(file)
    }
    records = [record for file in _files(path) for record in _records(file)]
    if not records:
        raise TableError(f"{path} has no questions")
    models = sorted(records[0]["scores"])
    for row, record in enumerate(records, 1):
        if sorted(record["scores"]) != models:
            raise TableError(f"{path}: question {row} was not answered by the same models as the first")
    prompts = [str(record["question"]) for record in records]
    tokens_N = np.array([len(prompt) for prompt in prompts]) / CHARS_PER_TOKEN
    cost_NM: FloatArray = np.stack([listed.cost(model, tokens_N, ANSWER_TOKENS) for model in models], 1)
    return Draft.of(
        path,
        "llmrouter",
        prompts,
        [task_of.get(prompt, "") for prompt in prompts],
        models,
        np.array([[number(record["scores"][model]) for model in models] for record in records]),
        cost_NM,
    )


def _files(path: Path) -> list[Path]:
    if path.is_dir():
        return sorted(path.glob("dcrouter_*.json*"), key=lambda file: "train" not in file.name)
    if not path.name.endswith((".json", ".json.gz")):
        return []
    try:
        with opened(path) as file:
            start = file.read(2**16).decode("utf-8", "ignore")
    except (OSError, EOFError, zlib.error) as error:
        raise TableError(f"{path} cannot be read: {error}") from error
    return [path] if start.lstrip().startswith("[") and '"question"' in start and '"scores"' in start else []


def _records(file: Path) -> list[dict[str, Any]]:
    records = read_json(file)
    for row, record in enumerate(records, 1):
        if not isinstance(record, dict) or "question" not in record or not isinstance(record.get("scores"), dict):
            raise TableError(f"{file}: entry {row} needs a question and the scores of each model")
    return list(records)


def _prices_in(file: Path) -> Prices:
    try:
        listed = {
            str(name): Price(float(entry["input_price"]), float(entry["output_price"]))
            for name, entry in read_json(file).items()
        }
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise TableError(f"{file} needs an input_price and an output_price for each model: {error}") from error
    return Prices(listed, source=file.name)
