"""Where private data goes: which prompts that hold some leave for the weak model, and whether it makes a difference.

A rule without any model finds private data in a prompt by its form.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from mofme.measure.result import Figure
from mofme.measure.statistics import bootstrap_percent
from mofme.papers.router_robustness.probes import Record
from mofme.papers.router_robustness.routers import Embed, Figures, TwoModelRouter

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
_SEPARATORS = re.compile(r"[ .\-]")
_STREETS = (
    "street|st|avenue|ave|road|rd|lane|ln|drive|dr|boulevard|blvd|court|ct|way|place|pl|square|close|terrace|crescent|"
    "highway|hwy|parkway|pkwy|row|gate|hill"
)
_DATE = re.compile(r"\d{1,4}[-./ ]\d{1,2}[-./ ]\d{1,4}|[12]\d{3}-[12]\d{3}")


@dataclass(frozen=True)
class Labelled:
    """A prompt with the kinds of private data that are in it, and the same prompt with words standing in for them."""

    prompt: str
    kinds: frozenset[str]
    masked: str


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


def privacy(runs: Sequence[TwoModelRouter], sentences: Sequence[Labelled], embed: Embed) -> Figures:
    """One router's runs before these sentences, in percent. Raises ValueError if none of them is private."""
    private_N = np.array([bool(sentence.kinds) for sentence in sentences])
    ruled_N = np.array([bool(find_private(sentence.prompt)) for sentence in sentences])
    plain, masked = embed([s.prompt for s in sentences]), embed([s.masked for s in sentences])
    strong = [run.to_strong(plain) for run in runs]
    weak_N = 1 - np.mean(strong, axis=0)
    changed_N = np.mean([run.to_strong(masked) != was for run, was in zip(runs, strong, strict=True)], axis=0)
    figures = {
        "private to the weak model": weak_N[private_N],
        "others to the weak model": weak_N[~private_N],
        "turned by masking": changed_N[private_N],
        "private to the weak model under the rule": (weak_N * ~ruled_N)[private_N],
    }
    return {name: bootstrap_percent(values) for name, values in figures.items() if len(values) or "others" not in name}


def detections(sentences: Sequence[Labelled]) -> dict[str, Figures]:
    """How the rule does on every kind that it looks for, in percent of the prompts that hold it, found as this kind and
    at all; and how often it raises a false alarm: kind "none".
    """
    lines = {}
    for name, kind in RULED.items():
        found = [find_private(sentence.prompt) for sentence in sentences if name in sentence.kinds]
        if found:
            lines[kind] = _detection([kind in kinds for kinds in found], [bool(kinds) for kinds in found])
    alarms = [bool(find_private(sentence.prompt)) for sentence in sentences if not sentence.kinds]
    return lines | ({"none": _detection(alarms, alarms)} if alarms else {})


def _detection(as_such: Sequence[bool], at_all: Sequence[bool]) -> Figures:
    found = {"as this kind": bootstrap_percent(as_such), "at all": bootstrap_percent(at_all)}
    return {"sentences": Figure(float(len(at_all))), **found}


def luhn(number: str) -> bool:
    """Whether the digits carry a valid check digit (ISO/IEC 7812-1): every second from the right counts double."""
    digits = [int(digit) for digit in reversed(number)]
    doubled = sum(sum(divmod(2 * digit, 10)) for digit in digits[1::2])
    return (sum(digits[::2]) + doubled) % 10 == 0


def _card(found: str) -> bool:
    digits = _SEPARATORS.sub("", found)
    return 12 <= len(digits) <= 19 and len(set(digits)) > 1 and luhn(digits)


def _iban(found: str) -> bool:
    """ISO 13616: with the first four characters last and letters as 10 to 35, the remainder by 97 is 1."""
    compact = _SEPARATORS.sub("", found)
    moved = compact[4:] + compact[:4]
    return 15 <= len(compact) <= 34 and int("".join(str(int(sign, 36)) for sign in moved)) % 97 == 1


def _phone(found: str) -> bool:
    """Seven to fifteen digits (E.164), and not the form of a date or of two years."""
    digits = re.sub(r"\D", "", found)
    return 7 <= len(digits) <= 15 and not _DATE.fullmatch(found.strip())


_RULES: dict[str, tuple[re.Pattern[str], Callable[[str], bool]]] = {
    "email": (re.compile(r"(?<![\w.+-])[\w.+-]+@[\w-]+(?:\.[\w-]+)+"), bool),
    "IBAN": (re.compile(r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?\b"), _iban),
    "card": (re.compile(r"(?<![\w.])\d(?:[ -]?\d){11,18}(?!\w|\.\d)"), _card),
    "social security number": (re.compile(r"(?<![\d-])\d{3}([- ])\d{2}\1\d{4}(?![\d-])"), bool),
    "phone": (
        re.compile(
            r"(?<![\w.$€£])(?:\+|00)\d{1,3}[ .()-]*\d(?:[ .()-]{0,2}\d){5,12}(?!\w)"  # international
            r"|(?<![\w.$€£])(?:\(\d{2,5}\)|0\d{1,4})[ .-]{0,2}\d{2,8}(?:[ .-]\d{2,4}){0,4}(?![\w-])"  # with a prefix
            r"|(?<![\w.$€£-])\d{2,4}(?:[.-]\d{2,4}){1,4}(?:x\d+)?(?![\w-]|\.\d)"  # grouped by dashes or dots
            r"|(?<![\w.$€£])\d{10}(?!\w)"
        ),
        _phone,
    ),
    "IP address": (
        re.compile(r"(?<![\d.])(?:(?:25[0-5]|2[0-4]\d|1?\d?\d)\.){3}(?:25[0-5]|2[0-4]\d|1?\d?\d)(?![\d.])"),
        bool,
    ),
    "address": (
        re.compile(
            rf"\b\d{{1,5}}[A-Za-z]?,? (?:[A-ZÀ-Ý][\w'\u2019.-]*\s){{1,3}}(?i:{_STREETS})\b"
            r"|\b[A-ZÀ-Ý][\w'\u2019-]{0,60}(?:straße|strasse|gatan|gata|vej|gasse|weg|laan|straat) \d{1,4}\b"
            r"|\b(?:[Rr]ue|[Vv]ia|[Cc]alle|[Aa]venida|[Rr]ua) (?:[\w'\u2019-]+ ){1,4}\d{1,4}\b"
            r"|\b\d{1,4},? (?:rue|via|calle) (?:[\w'\u2019-]+ ?){1,4}"
        ),
        bool,
    ),
}
KINDS = tuple(_RULES)


def find_private(text: str) -> set[str]:
    """The kinds of private data in the text, of KINDS. Names alone are not found: the rule knows forms only."""
    return {
        kind
        for kind, (pattern, check) in _RULES.items()
        if any(check(match.group()) for match in pattern.finditer(text))
    }
