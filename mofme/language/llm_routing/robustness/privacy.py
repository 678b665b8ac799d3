"""Where private data goes: which prompts that hold some leave for the weak model, and whether it makes a difference."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mofme.language.llm_routing.robustness.private_data import find_private
from mofme.language.llm_routing.robustness.report import Embed
from mofme.language.llm_routing.robustness.sources import Record
from mofme.language.llm_routing.robustness.subjects import Subject
from mofme.measure.result import Figure
from mofme.measure.statistics import bootstrap_percent

# Presidio's names for what the rule looks for, and the rule's own.
RULED = {
    "EMAIL_ADDRESS": "email",
    "IBAN_CODE": "IBAN",
    "CREDIT_CARD": "card",
    "US_SSN": "social security number",
    "PHONE_NUMBER": "phone",
    "IP_ADDRESS": "IP address",
    "STREET_ADDRESS": "address",
}
_PERSONAL = {*RULED, "PERSON", "US_DRIVER_LICENSE"}
_STANDING_IN = {"PERSON": "somebody", "STREET_ADDRESS": "an address", "PHONE_NUMBER": "a number"}
_PLACE = re.compile(r"\{\{(\w+)\}\}")


@dataclass(frozen=True)
class Labelled:
    """A prompt with the kinds of private data that are in it, and the same prompt with words standing in for them."""

    prompt: str
    kinds: frozenset[str]
    masked: str


@dataclass(frozen=True)
class Privacy:
    """Figures in percent: private prompts sent to the weak model; those of the same set without private data; private
    ones whose destination changes when the private data is taken out; private ones to the weak model under the rule."""

    router: str
    private_to_weak: Figure
    others_to_weak: Figure | None
    changed_by_masking: Figure
    to_weak_under_rule: Figure


@dataclass(frozen=True)
class Detection:
    """How the rule does on one kind, in percent of the prompts that hold it: found as this kind, and found at all."""

    kind: str
    prompts: int
    found: Figure
    found_at_all: Figure


def labelled(records: Sequence[Record]) -> list[Labelled]:
    """Presidio's synthetic sentences, each once."""
    found: dict[str, Labelled] = {}
    for record in records:
        kinds = frozenset(span["entity_type"] for span in record["spans"]) & _PERSONAL
        masked = _PLACE.sub(
            lambda place: _STANDING_IN.get(place[1], f"the {place[1].lower().replace('_', ' ')}"), record["masked"]
        )
        found.setdefault(record["full_text"], Labelled(record["full_text"], kinds, masked))
    return list(found.values())


def privacy(runs: Sequence[Subject], sentences: Sequence[Labelled], embed: Embed) -> Privacy:
    """One router's runs before these sentences. Raises ValueError if none of them is private."""
    private_N = np.array([bool(sentence.kinds) for sentence in sentences])
    ruled_N = np.array([bool(find_private(sentence.prompt)) for sentence in sentences])
    plain, masked = embed([s.prompt for s in sentences]), embed([s.masked for s in sentences])
    strong = [run.to_strong(plain) for run in runs]
    weak_N = 1 - np.mean(strong, axis=0)
    changed_N = np.mean([run.to_strong(masked) != was for run, was in zip(runs, strong, strict=True)], axis=0)
    others_N = ~private_N
    return Privacy(
        runs[0].name,
        bootstrap_percent(weak_N[private_N]),
        bootstrap_percent(weak_N[others_N]) if others_N.any() else None,
        bootstrap_percent(changed_N[private_N]),
        bootstrap_percent((weak_N * ~ruled_N)[private_N]),
    )


def detections(sentences: Sequence[Labelled]) -> list[Detection]:
    """The rule on every kind that it looks for, and how often it raises a false alarm: kind "none"."""
    lines = []
    for name, kind in RULED.items():
        found = [find_private(sentence.prompt) for sentence in sentences if name in sentence.kinds]
        if found:
            as_such = bootstrap_percent([kind in kinds for kinds in found])
            lines.append(Detection(kind, len(found), as_such, bootstrap_percent([bool(kinds) for kinds in found])))
    alarms = [bool(find_private(sentence.prompt)) for sentence in sentences if not sentence.kinds]
    if alarms:
        alarm = bootstrap_percent(alarms)
        lines.append(Detection("none", len(alarms), alarm, alarm))
    return lines
