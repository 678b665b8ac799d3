"""The prompts that routers are probed with, a category and a difficulty each: our own, and those of open sets.

Which file gives which category, and what counts as hard in it, is our reading, since DSC's is not public: a set that
was made easy or hard as a whole counts as that; in the others it is the length of the known solution, the number of
its steps, or how much private data there is.
"""

import itertools
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mofme.errors import TableError
from mofme.language.tables.columns import read_columns, read_json, read_json_lines
from mofme.language.text import OWN_PROMPTS

CATEGORIES = ("coding", "translation", "mathematics", "human instructions", "general knowledge", "jailbreak", "privacy")
DIFFICULTIES = ("simple", "hard")
PER_CELL = 40
JAILBREAKS = "jailbreakbench_artifacts_outcomes.csv"
PRIVATE = "presidio_synth_v2.json"
_NEAR, _FAR = ("French", "German", "Spanish", "Italian"), ("Japanese", "Arabic", "Finnish", "Korean")
_SHORT_SOLUTION = 148  # characters, the median of HumanEval's
# Of nobody in particular when they stand alone.
_PLAIN_KINDS = {"GPE", "ORGANIZATION", "DATE_TIME", "TITLE", "NRP", "AGE"}

Record = dict[str, Any]


@dataclass(frozen=True)
class Probe:
    """One prompt to route; `source` names where it was taken from. Raises TableError for a blank one."""

    prompt: str
    category: str
    difficulty: str
    source: str = "own"

    def __post_init__(self) -> None:
        if not self.prompt.strip():
            raise TableError(f"a prompt of {self.source} is blank")


def own_probes() -> list[Probe]:
    """The prompts that ship with the package."""
    return [Probe(**record) for record in read_json_lines(OWN_PROMPTS)]


def read_probes(folder: Path, seed: int = 0) -> list[Probe]:
    """Our own probes and those of the folder's files, each prompt once.

    At most PER_CELL of the folder's for each category and difficulty, drawn with the seed. Raises TableError if the
    folder has none of the files, or one that cannot be read.
    """
    sets = {name: read_records(folder, name) for name in READERS}
    if not any(sets.values()):
        raise TableError(f"{folder} has no prompts: at least one of {', '.join(READERS)} (or .gz of it) must be there")
    found: dict[str, Probe] = {}
    for name, records in sets.items():
        try:
            for probe in READERS[name](records):
                found.setdefault(probe.prompt, probe)
        except (KeyError, IndexError, TypeError, AttributeError) as error:
            raise TableError(f"{folder.name}/{name} is not as expected: {error!r} is missing or wrong") from error
    rng, drawn = random.Random(seed), []
    for cell in itertools.product(CATEGORIES, DIFFICULTIES):
        probes = [probe for probe in found.values() if (probe.category, probe.difficulty) == cell]
        drawn += rng.sample(probes, min(PER_CELL, len(probes)))
    return own_probes() + drawn


def read_records(folder: Path, name: str) -> list[Record]:
    """The rows of a .jsonl, .json or .csv file, plain or .gz; none if it is not there. Raises TableError for any other.
    `_80` and the like, the counts in some names, may be left out of `name`."""
    stem, ending = name.rsplit(".", 1)
    patterns = (name, f"{stem}_[0-9]*.{ending}", f"{name}.gz", f"{stem}_[0-9]*.{ending}.gz")
    path = next((path for one in patterns for path in sorted(folder.glob(one)) if path.is_file()), None)
    if path is None:
        return []
    if ".jsonl" in path.suffixes:
        return read_json_lines(path)
    if ".csv" in path.suffixes:
        columns = read_columns(path)
        return [dict(zip(columns, cells, strict=True)) for cells in zip(*columns.values(), strict=True)]
    records = read_json(path)
    if not isinstance(records, list):
        raise TableError(f"{path} is not a list of records")
    return records


def _humaneval(records: list[Record]) -> Iterator[Probe]:
    for record in records:
        difficulty = "hard" if len(record["canonical_solution"]) > _SHORT_SOLUTION else "simple"
        yield Probe(record["prompt"], "coding", difficulty, "HumanEval")


def _gsm8k(records: list[Record]) -> Iterator[Probe]:
    """Each step of a solution has one calculation in << >>: at most 2 are simple, 5 or more hard."""
    for record in records:
        steps = record["answer"].count("<<")
        if steps <= 2 or steps >= 5:
            yield Probe(record["question"], "mathematics", "simple" if steps <= 2 else "hard", "GSM8K")


def _first_turns(source: str, difficulty: str) -> Callable[[list[Record]], Iterator[Probe]]:
    kinds = {"coding": "coding", "math": "mathematics", "stem": "general knowledge", "humanities": "general knowledge"}

    def read(records: list[Record]) -> Iterator[Probe]:
        for record in records:
            category = kinds.get(record["category"], "human instructions")
            yield Probe(record["turns"][0], category, difficulty, source)

    return read


def _self_instruct(difficulty: str) -> Callable[[list[Record]], Iterator[Probe]]:
    """Instructions with their input; and inputs made into translations, there being no open set of such prompts. Short
    ones are to go into a near language, long ones into a far one."""

    def read(records: list[Record]) -> Iterator[Probe]:
        for number, record in enumerate(records):
            text = record["instances"][0]["input"].strip()
            yield Probe(f"{record['instruction']}\n{text}".strip(), "human instructions", difficulty, "self-instruct")
            words = len(text.split())
            if "\n" in text or not 4 <= words <= 120 or sum(c.isalpha() or c.isspace() for c in text) < 0.9 * len(text):
                continue
            far = words >= 25
            language = (_FAR if far else _NEAR)[number % 4]
            prompt = f"Translate into {language}: {text}"
            yield Probe(prompt, "translation", "hard" if far else "simple", "self-instruct, made")

    return read


def _nq_open(records: list[Record]) -> Iterator[Probe]:
    for record in records:
        yield Probe(record["question"], "general knowledge", "simple", "NQ-open")


def _presidio(records: list[Record]) -> Iterator[Probe]:
    """One piece of private data is simple, three or more are hard."""
    for record in records:
        private = [span for span in record["spans"] if span["entity_type"] not in _PLAIN_KINDS]
        if len(private) == 1 or len(private) >= 3:
            yield Probe(record["full_text"], "privacy", "simple" if len(private) == 1 else "hard", "Presidio")


def _jailbreaks(records: list[Record]) -> Iterator[Probe]:
    """The bare request is simple, the request inside an attack hard."""
    for record in records:
        yield Probe(record["goal"], "jailbreak", "simple", "JailbreakBench")
        if record["prompt"].strip():
            yield Probe(record["prompt"], "jailbreak", "hard", "JailbreakBench")


READERS: dict[str, Callable[[list[Record]], Iterator[Probe]]] = {
    "humaneval.jsonl": _humaneval,
    "gsm8k_test.jsonl": _gsm8k,
    "vicuna_bench.jsonl": _first_turns("Vicuna", "simple"),
    "mt_bench.jsonl": _first_turns("MT-bench", "hard"),
    "self_instruct_seed.jsonl": _self_instruct("simple"),
    "self_instruct_user_oriented.jsonl": _self_instruct("hard"),
    "nq_open_dev.jsonl": _nq_open,
    PRIVATE: _presidio,
    JAILBREAKS: _jailbreaks,
}
