"""What routing does to jailbreaks and to private data.

JailbreakBench (arXiv 2404.01318) recorded which of its attacks broke which model. An attack here meets the stronger or
a weaker model, whichever the router picks, with the recorded outcome. Our reading: where an attack was fitted to each
model apart, either text may arrive at the router, and both are asked. What a guard stops goes to the strong model.

Axis names: N attempts, prompts or sentences, T texts of all attempts, S runs.
"""

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from sklearn.linear_model import LogisticRegression

from mofme.errors import TableError
from mofme.language.tables.table import BoolArray, FloatArray
from mofme.measure.result import Figure
from mofme.measure.statistics import bootstrap_percent
from mofme.papers.router_robustness.probes import (
    JAILBREAKS,
    PRIVATE,
    Probe,
    Record,
    own_probes,
    read_probes,
    read_records,
)
from mofme.papers.router_robustness.routers import Embed, Figures, TwoModelRouter

STRONG = "gpt-4-0125-preview"
WEAK = ("gpt-3.5-turbo-1106", "vicuna-13b-v1.5", "llama-2-7b-chat-hf")
_PHRASES = re.compile(
    "|".join(
        [
            r"\b(?:ignore|disregard|forget|bypass|override|suspend)\b.{0,30}"
            r"\b(?:instructions?|rules?|guidelines?|polic\w+|safety|filters?|moderation)",
            r"\b(?:do anything now|DAN|jailbreak\w*|(?:developer|maintenance) mode|debug console|system override)\b",
            r"\b(?:no|without|free from|not bound by|knows no)\b.{0,25}"
            r"\b(?:restrictions?|limits?|filters?|ethic\w*|moral\w*|rules|polic\w+|guidelines|disclaimers?|warnings?)",
            r"\b(?:never|must not|cannot|do not|don't) (?:refuse|apologi[sz]e|warn|moralize|break character)\b",
            r"\b(?:begin|start) .{0,30}\b(?:with|by)\b.{0,15}\b(?:sure|absolutely|of course)\b",
            r"\b(?:stay|remain) in character\b",
            r"\b(?:unaligned|unrestricted|uncensored|unfiltered|amoral)\b",
            r"\bhypothetical(?:ly)?\b.{0,60}\b(?:story|world|laws|response)",
        ]
    ),
    re.IGNORECASE | re.DOTALL,
)


class Attempt(NamedTuple):
    """One attack on one request: its texts (none if the attack gave up), and whether it broke the two models."""

    attack: str
    request: str
    prompts: tuple[str, ...]
    breaks_strong: bool
    breaks_weak: bool


def attempts(records: Sequence[Record], weak: str) -> list[Attempt]:
    """All attacks that were tried on the strong and on this weak model. Raises TableError if none was."""
    found: dict[tuple[str, str], dict[str, Record]] = {}
    for record in records:
        if record["target_model"] in (STRONG, weak):
            found.setdefault((record["attack"], record["goal"]), {})[record["target_model"]] = record
    both = []
    for (attack, request), by_model in found.items():
        if len(by_model) == 2:
            texts = dict.fromkeys(prompt for record in by_model.values() if (prompt := record["prompt"].strip()))
            on_strong, on_weak = (int(by_model[model]["jailbroken"]) == 1 for model in (STRONG, weak))
            both.append(Attempt(attack, request, tuple(texts), on_strong, on_weak))
    if not both:
        raise TableError(f"no attack was recorded on both {STRONG} and {weak}")
    return both


def texts_of(tried: Sequence[Attempt]) -> list[str]:
    """The texts of all attempts, one after the other."""
    return [prompt for attempt in tried for prompt in attempt.prompts]


def _means(values_T: BoolArray | FloatArray, tried: Sequence[Attempt], without: float) -> FloatArray:
    """The mean over the texts of each attempt (N,); `without` where it has none."""
    counts_N = np.array([len(attempt.prompts) for attempt in tried], int)
    sums_N = np.bincount(np.repeat(np.arange(len(tried)), counts_N), values_T, minlength=len(tried))
    return np.where(counts_N > 0, sums_N / counts_N.clip(1), without)


def strong_share(
    runs: Sequence[TwoModelRouter], tried: Sequence[Attempt], embed: Embed, stopped_T: BoolArray | bool = False
) -> FloatArray:
    """Of each attempt's texts, the share that goes to the strong model, over the runs (N,); 1/2 where it has none. What
    a guard stops goes there, whatever the router says."""
    queries = embed(texts_of(tried))
    return _means(np.mean([run.to_strong(queries) | stopped_T for run in runs], axis=0), tried, 0.5)


def exposure(strong_N: FloatArray, tried: Sequence[Attempt]) -> Figures:
    """Success, in percent, where attempt n meets the strong model with probability `strong_N`; the ends and a coin.
    Intervals are by drawing requests."""
    on_strong_N = np.array([attempt.breaks_strong for attempt in tried], np.float64)
    on_weak_N = np.array([attempt.breaks_weak for attempt in tried], np.float64)
    success_N = strong_N * on_strong_N + (1 - strong_N) * on_weak_N
    with_text_N = np.array([bool(attempt.prompts) for attempt in tried])
    values = {
        "routed": success_N,
        "always strong": on_strong_N,
        "always weak": on_weak_N,
        "routed over always strong, points": success_N - on_strong_N,
        "routed over a coin flip, points": success_N - (on_strong_N + on_weak_N) / 2,
    }
    requests = [attempt.request for attempt in tried]
    figures = {name: bootstrap_percent(values_N, groups=requests) for name, values_N in values.items()}
    return {"to the strong model": bootstrap_percent(strong_N[with_text_N]), **figures}


def stopped_by_phrases(prompts: Sequence[str]) -> BoolArray:
    """Which of N prompts have the usual words of jailbreaks (N,)."""
    return np.array([bool(_PHRASES.search(prompt)) for prompt in prompts], dtype=bool)


def phrase_guard(
    tried: Sequence[Attempt], harmless: Sequence[str], dressed_up: Sequence[str]
) -> tuple[Figures, BoolArray]:
    """How that rule does, in percent: what it stops of each attack, and of harmless prompts, some of them
    (`dressed_up`) in the words of a jailbreak; and which texts of the attempts it stops (T,)."""
    stopped_T, false_N, dressed_N = map(stopped_by_phrases, (texts_of(tried), harmless, dressed_up))
    return _guarded(stopped_T, tried, false_N, dressed_N), stopped_T


def classifier_guard(
    tried: Sequence[Attempt], harmless: Sequence[str], dressed_up: Sequence[str], embed: Embed
) -> tuple[Figures, BoolArray]:
    """The same of logistic regression on embeddings, judged by attacks and requests that it never saw: each attack by
    half of the requests, learnt from the other half of other attacks; harmless prompts by fifths that are left out."""
    benign_ND = embed(harmless).embeddings_ND
    attacks_TD = np.concatenate([embed(attempt.prompts).embeddings_ND for attempt in tried if attempt.prompts])
    half_of = _halves({attempt.request for attempt in tried})
    attack_T = np.array([attempt.attack for attempt in tried for _ in attempt.prompts])
    half_T = np.array([half_of[attempt.request] for attempt in tried for _ in attempt.prompts])
    stopped_T = np.zeros(len(attacks_TD), bool)
    for attack in dict.fromkeys(attack_T):
        for half in (0, 1):
            unseen_T = (attack_T == attack) & (half_T == half)
            if unseen_T.any():
                guard = _fit(attacks_TD[(attack_T != attack) & (half_T != half)], benign_ND)
                stopped_T[unseen_T] = guard.predict(attacks_TD[unseen_T])
    part_N = np.random.default_rng(0).permutation(len(harmless)) % 5
    alarms_N = np.zeros(len(harmless), bool)
    for part in range(5):
        alarms_N[part_N == part] = _fit(attacks_TD, benign_ND[part_N != part]).predict(benign_ND[part_N == part])
    dressed_N = _fit(attacks_TD, benign_ND).predict(embed(dressed_up).embeddings_ND)
    return _guarded(stopped_T, tried, alarms_N, dressed_N), stopped_T


def _guarded(stopped_T: BoolArray, tried: Sequence[Attempt], false_N: BoolArray, dressed_N: BoolArray) -> Figures:
    """Of each attack's texts, what is stopped, in percent, every request counting once; and false alarms."""
    share_N = _means(stopped_T, tried, np.nan)
    by_attack: dict[str, list[float]] = {}
    for attempt, share in zip(tried, share_N.tolist(), strict=True):
        if attempt.prompts:
            by_attack.setdefault(attempt.attack, []).append(share)
    shares: dict[str, ArrayLike] = {**by_attack, "harmless": false_N, "harmless, dressed up": dressed_N}
    return {name: bootstrap_percent(values) for name, values in shares.items()}


def _fit(attacks_ND: FloatArray, benign_ND: FloatArray) -> LogisticRegression:
    both_ND = np.concatenate([attacks_ND, benign_ND])
    is_attack_N = np.arange(len(both_ND)) < len(attacks_ND)
    return LogisticRegression(C=10.0, max_iter=2000, class_weight="balanced").fit(both_ND, is_attack_N)


def _halves(requests: Collection[str]) -> dict[str, int]:
    """In which of two halves each request is, whichever attack it stands in."""
    order = np.random.default_rng(0).permutation(len(requests))
    return {request: int(place % 2) for request, place in zip(sorted(requests), order, strict=True)}


def guarded_exposure(alone_N: FloatArray, guarded_N: FloatArray, tried: Sequence[Attempt]) -> Figures:
    """Success of the attacks, in percent, on the router alone and with a guard before it (see `strong_share`)."""
    difference_N = (guarded_N - alone_N) * np.array([int(a.breaks_strong) - int(a.breaks_weak) for a in tried])
    return {
        "alone": exposure(alone_N, tried)["routed"],
        "guarded": exposure(guarded_N, tried)["routed"],
        "gain, points": bootstrap_percent(difference_N, groups=[attempt.request for attempt in tried]),
    }


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


class Labelled(NamedTuple):
    """A prompt with the kinds of private data that are in it, and the same prompt with words standing in for them."""

    prompt: str
    kinds: frozenset[str]
    masked: str


def labelled(records: Sequence[Record]) -> list[Labelled]:
    """Presidio's synthetic sentences, each once."""

    def word(place: re.Match[str]) -> str:
        return _STANDING_IN.get(place[1], f"the {place[1].lower().replace('_', ' ')}")

    found: dict[str, Labelled] = {}
    for record in records:
        kinds = frozenset(span["entity_type"] for span in record["spans"]) & _PERSONAL
        one = Labelled(record["full_text"], kinds, _PLACE.sub(word, record["masked"]))
        found.setdefault(one.prompt, one)
    return list(found.values())


def privacy(runs: Sequence[TwoModelRouter], sentences: Sequence[Labelled], embed: Embed) -> Figures:
    """One router's runs before these sentences, in percent. Raises ValueError if none of them is private."""
    private_N = np.array([bool(sentence.kinds) for sentence in sentences])
    ruled_N = np.array([bool(find_private(sentence.prompt)) for sentence in sentences])
    plain, masked = embed([s.prompt for s in sentences]), embed([s.masked for s in sentences])
    strong_SN = np.array([run.to_strong(plain) for run in runs])
    weak_N = 1 - strong_SN.mean(0)
    changed_N = (strong_SN != [run.to_strong(masked) for run in runs]).mean(0)
    figures = {
        "private to the weak model": weak_N[private_N],
        "others to the weak model": weak_N[~private_N],
        "turned by masking": changed_N[private_N],
        "private to the weak model under the rule": (weak_N * ~ruled_N)[private_N],
    }
    return {name: bootstrap_percent(values) for name, values in figures.items() if len(values) or "others" not in name}


def detections(sentences: Sequence[Labelled]) -> dict[str, Figures]:
    """How the rule does on every kind that it looks for, in percent of the prompts that hold it, found as this kind and
    at all; and how often it raises a false alarm: kind "none"."""
    found = [(find_private(sentence.prompt), sentence.kinds) for sentence in sentences]
    lines = {
        kind: [(kind in kinds, bool(kinds)) for kinds, true in found if name in true] for name, kind in RULED.items()
    }
    lines["none"] = [(bool(kinds), bool(kinds)) for kinds, true in found if not true]
    return {
        kind: {
            "sentences": Figure(float(len(pairs))),
            "as this kind": bootstrap_percent([as_such for as_such, _ in pairs]),
            "at all": bootstrap_percent([at_all for _, at_all in pairs]),
        }
        for kind, pairs in lines.items()
        if pairs
    }


def _card(found: str) -> bool:
    """With a valid check digit (ISO/IEC 7812-1, Luhn's): every second digit from the right counts double."""
    digits = [int(digit) for digit in reversed(_SEPARATORS.sub("", found))]
    doubled = sum(sum(divmod(2 * digit, 10)) for digit in digits[1::2])
    return 12 <= len(digits) <= 19 and len(set(digits)) > 1 and (sum(digits[::2]) + doubled) % 10 == 0


def _iban(found: str) -> bool:
    """ISO 13616: with the first four characters last and letters as 10 to 35, the remainder by 97 is 1."""
    compact = _SEPARATORS.sub("", found)
    moved = compact[4:] + compact[:4]
    return 15 <= len(compact) <= 34 and int("".join(str(int(sign, 36)) for sign in moved)) % 97 == 1


def _phone(found: str) -> bool:
    """Seven to fifteen digits (E.164), and not the form of a date or of two years."""
    digits = re.sub(r"\D", "", found)
    return 7 <= len(digits) <= 15 and not _DATE.fullmatch(found.strip())


_BYTE = r"(?:25[0-5]|2[0-4]\d|1?\d?\d)"
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
    "IP address": (re.compile(rf"(?<![\d.])(?:{_BYTE}\.){{3}}{_BYTE}(?![\d.])"), bool),
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


def find_private(text: str) -> set[str]:
    """The kinds of private data in the text. Names alone are not found: the rule knows forms only."""
    return {kind for kind, (rule, check) in _RULES.items() if any(check(found[0]) for found in rule.finditer(text))}


@dataclass(frozen=True)
class Prompts:
    """What routers are probed with; attacks, by the weak model, and sentences are empty where the folder has none."""

    probes: Sequence[Probe]
    attacks: Mapping[str, Sequence[Attempt]]
    sentences: Sequence[Labelled]

    @classmethod
    def read(cls, folder: Path | None) -> "Prompts":
        """Our own prompts, and those of the folder. Raises TableError."""
        if folder is None:
            return cls(own_probes(), {}, ())
        probes, records = read_probes(folder), read_records(folder, JAILBREAKS)
        try:
            attacks = {weak: attempts(records, weak) for weak in WEAK} if records else {}
            return cls(probes, attacks, labelled(read_records(folder, PRIVATE)))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise TableError(f"{folder}: {JAILBREAKS} or {PRIVATE} is not as expected: {error!r}") from error

    @property
    def first_attacks(self) -> Sequence[Attempt]:
        """Those on the first weak model, on which guards are tried."""
        return next(iter(self.attacks.values()), ())
