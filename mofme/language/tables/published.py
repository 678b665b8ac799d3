"""Tables as their publishers pack them: RouterBench, LLMRouter, MMLU-Pro, RouteLLM and SPROUT.

Of each, what its files look like, whether a path is one, and how it is read. Where no cost was recorded, tokens are
priced: those recorded, else one for every 4 characters.
"""

import ast
import json
import math
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import ascii_uppercase
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mofme.errors import TableError
from mofme.language.tables.columns import (
    column_names,
    is_parquet,
    number,
    numbers,
    opened,
    parquet_files,
    read_columns,
    read_json,
    read_json_lines,
    read_parquet,
    text,
    texts,
)
from mofme.language.tables.table import FloatArray, RawTable

CHARS_PER_TOKEN = 4.0  # of English text, as the makers of the models advise to count
_EXAMPLE = '{"models": {"gpt-4o": [2.5, 10]}}'  # dollars per million tokens in and out
_LIST_PRICES = Path(__file__).with_name("prices.json")


class Price(NamedTuple):
    """Dollars per million tokens, of the prompt and of the answer."""

    input: float
    output: float


@dataclass(frozen=True)
class Prices:
    """The price of each model, by the name that the tables use."""

    models: Mapping[str, Price]

    @classmethod
    def load(cls, path: Path | None = None) -> "Prices":
        """Those in a JSON file as _EXAMPLE, or the public list prices that come with the package. Raises TableError."""
        path = path or _LIST_PRICES
        try:
            content = json.loads(path.read_bytes())
            models = {str(name): Price(float(pair[0]), float(pair[1])) for name, pair in content["models"].items()}
        except (OSError, ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
            raise TableError(f"{path} cannot be read as prices ({error}): it has to look like {_EXAMPLE}") from error
        for name, price in models.items():
            if not all(0 <= dollars < math.inf for dollars in price):
                raise TableError(f"{path}: the price of {name} has to be two numbers, zero or above")
        return cls(models)

    def cost(self, model: str, input_tokens_N: FloatArray, output_tokens_N: FloatArray | float) -> FloatArray:
        """Dollars (N,) of N queries. Raises TableError for a model without a price."""
        if model not in self.models:
            raise TableError(f"there is no price for {model}: give a file of prices that names it (--prices)")
        price = self.models[model]
        return (input_tokens_N * price.input + output_tokens_N * price.output) / 1e6


ROUTERBENCH = "CSV or Parquet with the columns prompt, <model>|score (or <model>) and <model>|total_cost"
LLMROUTER = "dcrouter_train.json.gz and dcrouter_test.json.gz (or one of them), with default_llm.json beside"
MMLU_PRO = "CSV with question_id, <model>|correct and <model>|out_chars, with mmlu_pro_questions.jsonl.gz beside"
ROUTELLM = "mmlu_gpt4_vs_mixtral.csv.gz, gsm8k_responses.csv.gz, or a folder of them"
SPROUT = (
    "Parquet (file or folder) with prompt, key, dataset and a struct for each model of score, num_input_tokens, "
    "num_output_tokens and response"
)

# Models of MMLU-Pro that one could buy as they are (no base models), from 13 cents to 8 dollars a million tokens.
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
STRONG, WEAK = "gpt-4-1106-preview", "mixtral-8x7b-instruct-v0.1"  # RouteLLM's
ANSWER_TOKENS = 200.0  # of LLMRouter, which recorded no length of any answer
LETTER_TOKENS = 2.0  # of RouteLLM's MMLU, where the models answer with a letter and its length was not recorded

_COST, _CORRECT = "|total_cost", "|correct"
_FIELDS = ("score", "num_input_tokens", "num_output_tokens")
_MIXTRAL = "mistralai/Mixtral-8x7B-Instruct-v0.1"
_RIGHT = {WEAK: "mixtral_8x7b_correct", STRONG: "gpt4_1106_correct"}


def is_routerbench(path: Path) -> bool:
    table = _file_in(path, "routerbench*.csv*")
    names = column_names(table) if table.is_file() else []
    return "prompt" in names and any(name.endswith(_COST) for name in names)


def read_routerbench(path: Path, _prices: Prices | None) -> RawTable:
    """One row a prompt, with the score and the real cost of each model (arXiv 2403.12031).

    The prompts are kept whole, worked examples included: `question_of` finds the question in them.
    """
    columns = read_columns(_file_in(path, "routerbench*.csv*"))
    models = [name.removesuffix(_COST) for name in columns if name.endswith(_COST)]
    scores = [f"{model}|score" if f"{model}|score" in columns else model for model in models]
    if missing := [name for name in scores if name not in columns]:
        raise TableError(f"{path} has costs but no scores of {', '.join(missing)}")
    prompts = [_joined(cell) for cell in texts(columns["prompt"])]
    tasks = columns.get("eval_name") or columns.get("task") or [""] * len(prompts)
    cost_NM = numbers(columns, [model + _COST for model in models])
    ids = texts(columns.get("sample_id", []))
    return RawTable(path, "routerbench", prompts, texts(tasks), models, numbers(columns, scores), cost_NM, ids)


def _joined(cell: str) -> str:
    """The text of a prompt, which RouterBench keeps as a Python list of its parts."""
    if not cell.startswith("["):
        return cell
    try:
        parts = ast.literal_eval(cell)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return cell
    return "\n\n".join(part for part in parts if isinstance(part, str)) if isinstance(parts, list) else cell


def is_llmrouter(path: Path) -> bool:
    return bool(_llmrouter_files(path))


def read_llmrouter(path: Path, prices: Prices | None) -> RawTable:
    """LLMRouter (ulab-uiuc): scores of nine models on fourteen tasks, in two files that share questions.

    The questions of the file, or of both files of a folder, training first: 119 of the 500 test questions are copies
    of training questions, a fault unless one file is read on its own. Prices are those in `default_llm.json`, unless
    others are given. llama3-chatqa-1.5-70b scores 0 to .03 on six multiple-choice tasks, below chance, as if its
    answers could not be read; the prompts do not list the options, so the check for that cannot see it. It is kept.
    """
    folder = path if path.is_dir() else path.parent
    beside = folder / "default_llm.json"
    prices = prices or (_prices_in(beside) if beside.exists() else Prices.load())
    task_of = {
        record.get("query"): str(record.get("task_name", ""))
        for file in sorted(folder.glob("default_query_*.jsonl*"))
        for record in read_json_lines(file)
    }
    records = [record for file in _llmrouter_files(path) for record in _llmrouter_records(file)]
    if not records:
        raise TableError(f"{path} has no questions")
    models = sorted(records[0]["scores"])
    for row, record in enumerate(records, 1):
        if sorted(record["scores"]) != models:
            raise TableError(f"{path}: question {row} was not answered by the same models as the first")
    prompts = [str(record["question"]) for record in records]
    tasks = [task_of.get(prompt, "") for prompt in prompts]
    quality_NM = np.array([[number(record["scores"][model]) for model in models] for record in records])
    tokens = _tokens(prompts)
    cost_NM = np.stack([prices.cost(model, tokens, ANSWER_TOKENS) for model in models], 1)
    return RawTable(path, "llmrouter", prompts, tasks, models, quality_NM, cost_NM)


def _llmrouter_files(path: Path) -> list[Path]:
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


def _llmrouter_records(file: Path) -> list[dict[str, Any]]:
    records = read_json(file)
    for row, record in enumerate(records, 1):
        if not isinstance(record, dict) or "question" not in record or not isinstance(record.get("scores"), dict):
            raise TableError(f"{file}: entry {row} needs a question and the scores of each model")
    return list(records)


def _prices_in(file: Path) -> Prices:
    try:
        pairs = {str(name): (entry["input_price"], entry["output_price"]) for name, entry in read_json(file).items()}
        return Prices({name: Price(*map(float, pair)) for name, pair in pairs.items()})
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise TableError(f"{file} needs an input_price and an output_price for each model: {error}") from error


def is_mmlu_pro(path: Path) -> bool:
    table = _file_in(path, "mmlu_pro*.csv*")
    names = column_names(table) if table.is_file() else []
    return "question_id" in names and any(name.endswith(_CORRECT) for name in names)


def read_mmlu_pro(path: Path, prices: Prices | None) -> RawTable:
    """MMLU-Pro (TIGER-AI-Lab): whether each of 28 models chose the right option, and the length of its answer.

    The prompt is the question and its options, A to J, one a line; the worked examples that the models were also
    shown are not paid for. An answer that could not be read counts as wrong.
    """
    prices = prices or Prices.load()
    table = _file_in(path, "mmlu_pro*.csv*")
    columns = read_columns(table)
    beside = sorted(table.parent.glob("*questions.jsonl*"))
    if not beside:
        raise TableError(f"{table} holds no texts: put mmlu_pro_questions.jsonl.gz beside it")
    questions = {text(record.get("question_id")): record for record in read_json_lines(beside[0])}
    ids = texts(columns["question_id"])
    if lost := [row for row, id_ in enumerate(ids, 1) if id_ not in questions]:
        raise TableError(f"{table}: row {lost[0]} and {len(lost) - 1} others have no text in the file of questions")
    prompts = [_with_options(questions[id_]) for id_ in ids]
    models = [name.removesuffix(_CORRECT) for name in columns if name.endswith(_CORRECT)]
    lengths = [f"{model}|out_chars" for model in models]
    if lacking := [name for name in ("category", *lengths) if name not in columns]:
        raise TableError(f"{table} lacks the columns {', '.join(lacking)}")
    tokens_N, answers_NM = _tokens(prompts), numbers(columns, lengths) / CHARS_PER_TOKEN
    cost_NM = np.stack([prices.cost(model, tokens_N, answers_NM[:, m]) for m, model in enumerate(models)], 1)
    quality_NM = numbers(columns, [model + _CORRECT for model in models])
    return RawTable(path, "mmlu_pro", prompts, texts(columns["category"]), models, quality_NM, cost_NM, ids)


def _with_options(question: dict[str, Any]) -> str:
    options = [f"{letter}. {option}" for letter, option in zip(ascii_uppercase, question["options"], strict=False)]
    return "\n".join([str(question["question"]), *options])


def is_routellm(path: Path) -> bool:
    return bool(_routellm_parts(path))


def read_routellm(path: Path, prices: Prices | None) -> RawTable:
    """GPT-4 against Mixtral 8x7B on MMLU and GSM8K (arXiv 2406.18665), one file or those of a folder.

    Tasks are the subjects of MMLU, and "gsm8k". GPT-4's column of high_school_mathematics is broken (.030,
    where guessing gives .25): a fault.
    """
    prices = prices or Prices.load()
    rows = [row for read, file in _routellm_parts(path) for row in read(file)]
    prompts = [row[0] for row in rows]
    quality_N2, answers_N2 = (np.array([row[m] for row in rows], np.float64).reshape(-1, 2) for m in (2, 3))
    tokens_N = _tokens(prompts)
    cost_N2 = np.stack([prices.cost(model, tokens_N, answers_N2[:, m]) for m, model in enumerate((STRONG, WEAK))], 1)
    return RawTable(path, "routellm", prompts, [row[1] for row in rows], [STRONG, WEAK], quality_N2, cost_N2)


# A prompt, its task, and of the two models the qualities and the tokens of their answers.
Row = tuple[str, str, Sequence[float], Sequence[float]]


def _mmlu(file: Path) -> list[Row]:
    columns = read_columns(file)
    quality = numbers(columns, [_RIGHT[STRONG], _RIGHT[WEAK]]).tolist()
    rows = zip(texts(columns["prompt"]), texts(columns["domain"]), quality, strict=True)
    return [(*row, (LETTER_TOKENS, LETTER_TOKENS)) for row in rows]


def _gsm8k(file: Path) -> list[Row]:
    columns = read_columns(file)
    quality = numbers(columns, [STRONG, _MIXTRAL]).tolist()
    tokens = [_tokens(texts(columns[f"{name}_response"])).tolist() for name in (STRONG, _MIXTRAL)]
    told = zip(texts(columns["prompt"]), quality, *tokens, strict=True)
    return [(prompt, "gsm8k", right, (strong, weak)) for prompt, right, strong, weak in told]


def _routellm_parts(path: Path) -> list[tuple[Callable[[Path], list[Row]], Path]]:
    found: list[tuple[Callable[[Path], list[Row]], Path]] = []
    for file in sorted(path.iterdir()) if path.is_dir() else [path]:
        if file.is_file() and file.name.endswith((".csv", ".csv.gz")):
            names = set(column_names(file))
            if {"prompt", "domain", *_RIGHT.values()} <= names:
                found.append((_mmlu, file))
            elif {"prompt", STRONG, f"{STRONG}_response", _MIXTRAL, f"{_MIXTRAL}_response"} <= names:
                found.append((_gsm8k, file))
    return found


def is_sprout(path: Path) -> bool:
    if not (is_parquet(path) or path.is_dir()) or "prompt" not in column_names(path):
        return False
    return bool(_sprout_models(parquet_files(path)[0]))


def read_sprout(path: Path, prices: Prices | None) -> RawTable:
    """SPROUT (arXiv 2502.03261), as on Hugging Face: one row a prompt, one column of structs a model.

    The recorded tokens are paid for. The answers themselves are not read.
    """
    prices = prices or Prices.load()
    files = parquet_files(path)
    models = _sprout_models(files[0])
    asked = [name for name in ("prompt", "dataset") if name in column_names(files[0])]
    columns = read_parquet(path, [*asked, *(f"{model}.{field}" for model in models for field in _FIELDS)])
    prompts = texts(columns["prompt"])
    quality, cost = [], []
    for model in models:
        cells: list[dict[str, Any]] = [cell or {} for cell in columns[model]]
        score_N, input_N, output_N = (np.array([number(cell.get(field)) for cell in cells]) for field in _FIELDS)
        quality.append(score_N)
        cost.append(prices.cost(model, input_N, output_N))
    tasks = texts(columns.get("dataset", [""] * len(prompts)))
    return RawTable(path, "sprout", prompts, tasks, models, np.stack(quality, 1), np.stack(cost, 1))


def _sprout_models(file: Path) -> list[str]:
    structs = [field for field in pq.read_schema(file) if pa.types.is_struct(field.type)]
    return [field.name for field in structs if {part.name for part in field.type} >= set(_FIELDS)]


def _file_in(path: Path, pattern: str) -> Path:
    """The first file in a folder that has such a name, or else the path itself."""
    return min(path.glob(pattern), default=path)


def _tokens(passages: Sequence[str]) -> FloatArray:
    return np.array([len(passage) for passage in passages], np.float64) / CHARS_PER_TOKEN
