"""RouteLLM's evaluation data: GPT-4 against Mixtral 8x7B on MMLU, GSM8K and MT-bench (arXiv 2406.18665)."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from mofme.errors import TableError
from mofme.language.llm_routing.loaders.draft import Draft
from mofme.language.llm_routing.loaders.reading import column_names, number, read_columns, read_json_lines, text
from mofme.language.llm_routing.prices import CHARS_PER_TOKEN, Prices
from mofme.language.llm_routing.table import FloatArray

LOOKS_LIKE = "mmlu_gpt4_vs_mixtral.csv.gz, gsm8k_responses.csv.gz, mt_bench_judgements.jsonl.gz, or a folder of them"
STRONG, WEAK = "gpt-4-1106-preview", "mixtral-8x7b-instruct-v0.1"
ANSWER_TOKENS = 2.0  # of MMLU, where the models answer with a letter and its length was not recorded
_MIXTRAL = "mistralai/Mixtral-8x7B-Instruct-v0.1"
_ANSWER = re.compile(r"The Start of Assistant.s Answer\]?(.*?)\[?The End of Assistant.s Answer", re.DOTALL)
_CORRECT = {WEAK: "mixtral_8x7b_correct", STRONG: "gpt4_1106_correct"}


def matches(path: Path) -> bool:
    return bool(_parts(path))


def read(path: Path, prices: Prices | None) -> Draft:
    """The table of the file, or of the files in the folder one after another.

    Cost: a token for every 4 characters of the question and of the recorded answer (MMLU: ANSWER_TOKENS), at
    `prices`. Tasks are the subjects of MMLU, "gsm8k" and "mt_bench". GPT-4's column of high_school_mathematics is
    broken (.030, where guessing gives .25): a fault.
    """
    listed = prices or Prices.load()
    parts = [read_part(file, listed) for read_part, file in _parts(path)]
    return Draft.of(
        path,
        "routellm",
        [prompt for part in parts for prompt in part.prompts],
        [task for part in parts for task in part.tasks],
        [STRONG, WEAK],
        np.concatenate([part.quality_NM for part in parts]),
        np.concatenate([part.cost_NM for part in parts]),
    )


def read_mmlu(file: Path, prices: Prices) -> Draft:
    columns = read_columns(file)
    prompts = [text(cell) for cell in columns["prompt"]]
    quality = {model: [number(cell) for cell in columns[name]] for model, name in _CORRECT.items()}
    tokens = {model: np.full(len(prompts), ANSWER_TOKENS) for model in quality}
    return _draft(file, prompts, [text(cell) for cell in columns["domain"]], quality, tokens, prices)


def read_gsm8k(file: Path, prices: Prices) -> Draft:
    columns = read_columns(file)
    prompts = [text(cell) for cell in columns["prompt"]]
    names = {STRONG: STRONG, WEAK: _MIXTRAL}
    quality = {model: [number(cell) for cell in columns[name]] for model, name in names.items()}
    tokens = {
        model: np.array([len(text(cell)) for cell in columns[f"{name}_response"]]) / CHARS_PER_TOKEN
        for model, name in names.items()
    }
    return _draft(file, prompts, ["gsm8k"] * len(prompts), quality, tokens, prices)


def read_mt_bench(file: Path, prices: Prices) -> Draft:
    """First turns only, since a router sees no more; the judge's 1 to 10 become 0 to 1."""
    beside = sorted(file.parent.glob("mt_bench_question.jsonl*"))
    if not beside:
        raise TableError(f"{file} holds no questions: put mt_bench_question.jsonl.gz beside it")
    questions = {text(record["question_id"]): str(record["turns"][0]) for record in read_json_lines(beside[0])}
    judged: dict[str, dict[str, dict[str, Any]]] = {STRONG: {}, WEAK: {}}
    for record in read_json_lines(file):
        model = WEAK if record.get("model") == _MIXTRAL else text(record.get("model"))
        if record.get("turn") == 1 and model in judged:
            judged[model][text(record["question_id"])] = record
    quality = {
        model: [(number(records.get(id_, {}).get("score")) - 1) / 9 for id_ in questions]
        for model, records in judged.items()
    }
    tokens = {
        model: np.array([_answer_chars(records.get(id_, {})) for id_ in questions]) / CHARS_PER_TOKEN
        for model, records in judged.items()
    }
    return _draft(file, list(questions.values()), ["mt_bench"] * len(questions), quality, tokens, prices)


def _answer_chars(record: dict[str, Any]) -> float:
    found = _ANSWER.search(text(record.get("user_prompt")))
    return len(found.group(1).strip()) if found else np.nan


def _draft(
    file: Path,
    prompts: list[str],
    tasks: list[str],
    quality: dict[str, list[float]],
    answer_tokens: dict[str, FloatArray],
    prices: Prices,
) -> Draft:
    prompt_tokens_N = np.array([len(prompt) for prompt in prompts]) / CHARS_PER_TOKEN
    models = [STRONG, WEAK]
    cost_NM = np.stack([prices.cost(model, prompt_tokens_N, answer_tokens[model]) for model in models], 1)
    return Draft.of(file, "routellm", prompts, tasks, models, np.array([quality[model] for model in models]).T, cost_NM)


def _parts(path: Path) -> list[tuple[Callable[[Path, Prices], Draft], Path]]:
    found: list[tuple[Callable[[Path, Prices], Draft], Path]] = []
    for file in sorted(path.iterdir()) if path.is_dir() else [path]:
        if file.name.startswith("mt_bench_judgements.jsonl"):
            found.append((read_mt_bench, file))
        elif file.is_file() and file.name.endswith((".csv", ".csv.gz")):
            names = set(column_names(file))
            if {"prompt", "domain", *_CORRECT.values()} <= names:
                found.append((read_mmlu, file))
            elif {"prompt", STRONG, f"{STRONG}_response", _MIXTRAL, f"{_MIXTRAL}_response"} <= names:
                found.append((read_gsm8k, file))
    return found
