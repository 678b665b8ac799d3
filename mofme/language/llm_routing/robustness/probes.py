"""The prompts that routers are probed with: a category and a difficulty each."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from mofme.errors import TableError

CATEGORIES = (
    "coding",
    "translation",
    "mathematics",
    "human instructions",
    "general knowledge",
    "jailbreak",
    "privacy",
)
DIFFICULTIES = ("simple", "hard")
OWN = Path(__file__).with_name("own_prompts.jsonl")


@dataclass(frozen=True)
class Probe:
    """One prompt to route. `source` names where it was taken from.

    Raises TableError for a blank prompt and for a category or difficulty that is not one of the above.
    """

    prompt: str
    category: str
    difficulty: str
    source: str = "own"

    def __post_init__(self) -> None:
        if not self.prompt.strip():
            raise TableError(f"a prompt of {self.source} is blank")
        if self.category not in CATEGORIES:
            raise TableError(f"{self.category!r} is no category: they are {', '.join(CATEGORIES)}")
        if self.difficulty not in DIFFICULTIES:
            raise TableError(f"{self.difficulty!r} is no difficulty: they are {' and '.join(DIFFICULTIES)}")


def own_probes(path: Path = OWN) -> list[Probe]:
    """The prompts that ship with the package, or those of the user's own file in the same form.

    One JSON object a line: prompt, category, difficulty. Raises TableError, naming the line.
    """
    probes = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            probes.append(Probe(**json.loads(line)))
        except (ValueError, TypeError, TableError) as error:
            raise TableError(f"{path.name}, line {number}: {error}") from error
    return probes


def without(probes: Iterable[Probe], prompts: Iterable[str]) -> list[Probe]:
    """The probes whose prompt is none of these."""
    known = set(prompts)
    return [probe for probe in probes if probe.prompt not in known]
