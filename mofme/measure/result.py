"""Measured results: one schema for every room, a JSON file each below `assets/results/`.

The commands that measure write them; the app's tabs, the README and PAPERS.md quote them and nothing else.
"""

import json
import math
import os
import platform
import re
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from enum import StrEnum
from importlib import metadata
from pathlib import Path
from typing import Any

from mofme.errors import ResultError
from mofme.files import ASSETS, atomic_file

RESULTS = ASSETS / "results"


@dataclass(frozen=True)
class Figure:
    """One measured number; `low` to `high` is its interval, where there is one.

    `values` are the few that it is the mean of, as one a seed.
    """

    value: float
    low: float | None = None
    high: float | None = None
    values: Sequence[float] = field(default=(), compare=False)

    @classmethod
    def exact(cls, value: float) -> "Figure":
        """A number that another seed or sample would not change, as of parameters."""
        return cls(value, value, value)

    @property
    def half(self) -> float:
        """Half of its interval, the least effect that it can tell; infinite where there is none."""
        return math.inf if self.low is None or self.high is None else (self.high - self.low) / 2

    def side(self, level: float = 0.0) -> int:
        """Which side of `level` all of the interval lies on: +1 above, -1 below; 0 if it holds it or there is none."""
        return 0 if self.low is None or self.high is None else int(self.low > level) - int(self.high < level)

    def noise(self) -> str:
        """For verdicts: is there a difference at all?"""
        return f"{'beyond' if self.side() else 'within'} the noise"

    def text(self, signed: bool = False, digits: int | None = None) -> str:
        """As people write it: `27.39`, or with its interval `+4.63 (+3.84 to +5.43)`; by default digits by its size."""
        numbers = [self.value] if self.low is None or self.high is None else [self.value, self.low, self.high]
        if digits is None:
            size = max(map(abs, numbers))
            whole = not signed and all(float(number).is_integer() for number in numbers)
            digits = 0 if whole else 1 if size >= 100 else 2 if size >= 1 else 3
        value, *interval = [f"{number:{'+' if signed else ''},.{digits}f}" for number in numbers]
        return f"{value} ({interval[0]} to {interval[1]})" if interval else value

    def map(self, function: Callable[[float], float]) -> "Figure":
        """The figure of a function that only rises or only falls, as of what a share leaves over."""
        if self.low is None or self.high is None:
            return Figure(function(self.value))
        low, high = sorted((function(self.low), function(self.high)))
        return Figure(function(self.value), low, high)

    def plain(self) -> dict[str, float | None]:
        """For programs: value and interval."""
        return {"value": self.value, "low": self.low, "high": self.high}

    def percent(self) -> "Figure":
        """A share in percent."""
        return self.map(lambda share: 100 * share)


class Verdict(StrEnum):
    """What a claim is worth here. There is no fourth."""

    REPRODUCED = "reproduced"
    CONTRADICTED = "contradicted"
    UNSEEN = "cannot be seen here"


@dataclass(frozen=True)
class Check:
    """A figure that should lie above `level`, or `below` it, with all of its interval.

    `side` is +1 if it does, -1 if all of it lies on the other side, 0 if neither, as without an interval.
    """

    name: str
    figure: Figure
    level: float = 0.0
    below: bool = False
    side: int = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "side", self.figure.side(self.level) * (-1 if self.below else 1))

    @classmethod
    def least(cls, name: str, figures: Iterable[Figure], level: float) -> "Check":
        """A gate: the widest of `figures` could tell an effect of `level`; not passed if one has no interval."""
        widest = max(figure.half for figure in figures)
        return cls(name, Figure.exact(widest) if math.isfinite(widest) else Figure(0.0), level, below=True)

    def rank(self) -> tuple[int, float]:
        """What holds least comes first."""
        return self.side, (self.figure.value - self.level) * (-1 if self.below else 1)

    def text(self) -> str:
        """`gain, dB: +0.07 (-0.09 to +0.22)`"""
        figure = Figure(self.figure.value) if self.figure.low == self.figure.high else self.figure
        return f"{self.name}: {figure.text(_is_gain(self.name))}"

    def wanted(self) -> str:
        return f"{'below' if self.below else 'above'} {self.level:g}"


@dataclass(frozen=True)
class Judgement:
    """A row of the ledger: a claim of a paper, and what it is worth here.

    `departs` says where our method is not the paper's, `scale` what of here stands against what of the paper's.
    A claim is reproduced if every part holds beyond its noise, contradicted if one fails beyond it. `gates` ask first
    whether it could show at all: where one does not hold, or nothing is decided, it cannot be seen here, and `needed`
    says what that would take.
    """

    claim: str
    departs: str
    scale: str
    parts: Sequence[Check]
    gates: Sequence[Check] = field(default_factory=list)
    needed: str = ""
    verdict: Verdict = field(init=False)

    def __post_init__(self) -> None:
        sides = [part.side for part in self.parts]
        decided = bool(sides) and all(gate.side > 0 for gate in self.gates)
        reproduced = Verdict.REPRODUCED if decided and min(sides) > 0 else Verdict.UNSEEN
        object.__setattr__(self, "verdict", Verdict.CONTRADICTED if decided and min(sides) < 0 else reproduced)

    @property
    def bearing(self) -> Check | None:
        """What the verdict hangs on: the gate that fails, or else the part that is worst."""
        failed = [gate for gate in self.gates if gate.side <= 0]
        return failed[0] if failed else min(self.parts, key=Check.rank, default=None)

    def least(self) -> str:
        """The least effect that could be seen: half the interval of the part that the verdict is about."""
        part = min(self.parts, key=Check.rank, default=None)
        if part is None or math.isinf(half := part.figure.half):
            return "unknown"
        return f"{Figure(half).text()} ({part.name})" if half else "any: it is counted"

    def sentences(self) -> str:
        """`Cannot be seen here: CLAIM. GATE: 0.7, where it had to be above 1. It would take NEEDED.`"""
        said = f"{self.verdict.capitalize()}: {self.claim}."
        if self.bearing:
            wanted = "where the claim wants it" if self.bearing in self.parts else "where it had to be"
            text = self.bearing.text()
            said += f" {text[:1].upper()}{text[1:]}, {wanted} {self.bearing.wanted()}."
        return said + (f" It would take {self.needed}." if self.needed and self.verdict is Verdict.UNSEEN else "")


@dataclass(frozen=True)
class Row:
    """What was measured of one thing. Rows of one `table` stand together; a figure's key names its unit: "gain, dB"."""

    table: str
    name: str
    figures: Mapping[str, Figure]


@dataclass(frozen=True)
class Machine:
    """What everything was measured on, and with how many threads."""

    cpu: str
    cores: int
    system: str
    torch: str
    threads: int | None = None
    precision: str = ""


def this_machine(threads: int | None = None, precision: str = "") -> Machine:
    return Machine(
        cpu=_cpu_name(),
        cores=os.cpu_count() or 1,
        system=platform.system(),
        torch=metadata.version("torch"),
        threads=threads,
        precision=precision,
    )


@dataclass(frozen=True)
class Result:
    """One room's result beside its paper's claim.

    `command` is what anyone types to measure it again; `verdict` is a few sentences with the numbers that bear it;
    `interval` says what the intervals are; `judgements` are its rows of the ledger.
    """

    room: str
    paper: str
    claim: str
    verdict: str
    command: str
    rows: Sequence[Row]
    seeds: Sequence[int] = ()
    interval: str = ""
    machine: Machine = field(default_factory=this_machine)
    date: str = field(default_factory=lambda: datetime.now(UTC).date().isoformat())
    judgements: Sequence[Judgement] = field(default_factory=list)

    def figure(self, table: str, name: str, column: str) -> Figure:
        """Raises ResultError, naming what is missing."""
        if figure := self.known(table, name, column):
            return figure
        raise ResultError(f"{self.room} has no figure {column!r} of {name!r} in its table {table!r}")

    def known(self, table: str, name: str, column: str) -> Figure | None:
        """The same, None where it was not measured."""
        return next((row.figures.get(column) for row in self.rows if (row.table, row.name) == (table, name)), None)

    def judged(self, judgements: Sequence[Judgement], said: Iterable[str] = ()) -> "Result":
        """The same with its rows of the ledger, and a verdict of their sentences and those `said` besides."""
        sentences = [judgement.sentences() for judgement in judgements]
        return replace(self, judgements=list(judgements), verdict=" ".join([*sentences, *said]))

    def option(self, name: str) -> str:
        """What stands behind an option in the command; nothing where it was not typed."""
        words = shlex.split(self.command)
        return words[words.index(name) + 1] if name in words[:-1] else ""

    def names(self, table: str) -> list[str]:
        """What a table has rows of."""
        return [row.name for row in self.rows if row.table == table]

    def tables(self) -> dict[str, tuple[list[str], list[list[str]]]]:
        """Title -> headings and lines, ready to be shown; a figure that a row lacks is an empty cell."""
        tables = {}
        for title in dict.fromkeys(row.table for row in self.rows):
            rows = [row for row in self.rows if row.table == title]
            columns = list(dict.fromkeys(name for row in rows for name in row.figures))
            lines = [
                [row.name, *(row.figures[name].text(_is_gain(name)) if name in row.figures else "" for name in columns)]
                for row in rows
            ]
            tables[title] = (["", *columns], lines)
        return tables

    def source(self) -> str:
        """How the figures came about, as Markdown: command, date, machine, seeds, and what the intervals are."""
        machine = self.machine
        parts = [
            f"`{self.command}`",
            self.date,
            machine.cpu,
            f"{machine.threads or machine.cores} of {machine.cores} cores",
            machine.precision,
            f"torch {machine.torch}",
            f"seed{'s' * (len(self.seeds) > 1)} {', '.join(map(str, self.seeds))}" if self.seeds else "",
            f"intervals: {self.interval}" if self.interval else "",
        ]
        return "; ".join(filter(None, parts))


def save_result(result: Result, folder: Path = RESULTS) -> Path:
    """Write `folder/<room>.json`, whole or not at all; returns its path. Raises ResultError for NaN and infinity."""
    _check_finite(result)
    path = folder / f"{result.room}.json"
    with atomic_file(path, "w") as file:
        file.write(json.dumps(as_plain(result), indent=1, ensure_ascii=False) + "\n")
    return path


def load_result(room: str, folder: Path = RESULTS) -> Result:
    """Raises ResultError if the file is missing or not of this schema."""
    path = folder / f"{room}.json"
    try:
        plain: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        rows = [
            Row(row["table"], row["name"], {name: Figure(**figure) for name, figure in row["figures"].items()})
            for row in plain.pop("rows")
        ]
        judgements = []
        for one in plain.pop("judgements", ()):
            one.pop("verdict", None)  # what was decided is decided again: a file cannot claim what its figures do not
            for kind in ("parts", "gates"):
                one[kind] = [Check(c["name"], Figure(**c["figure"]), c["level"], c["below"]) for c in one[kind]]
            judgements.append(Judgement(**one))
        result = Result(**{**plain, "rows": rows, "machine": Machine(**plain["machine"]), "judgements": judgements})
        _check_finite(result)
        return result
    except FileNotFoundError:
        raise ResultError(f"{path} is missing: nothing was measured for {room!r} yet") from None
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ResultError(f"{path} is not a result: {error}") from error


def available_results(folder: Path = RESULTS) -> list[str]:
    """The rooms that have a result, by name."""
    return sorted(path.stem for path in folder.glob("*.json"))


def as_plain(result: Result) -> dict[str, Any]:
    """As its file holds it: without what is empty."""

    def without_empty(fields: list[tuple[str, Any]]) -> dict[str, Any]:
        return {name: value for name, value in fields if not (name in ("values", "judgements") and not value)}

    return asdict(result, dict_factory=without_empty)


def _is_gain(column: str) -> bool:
    return re.search(r"\bgain\b", column) is not None  # not "against"


def _check_finite(result: Result) -> None:
    for row in result.rows:
        for name, figure in row.figures.items():
            numbers = (figure.value, figure.low, figure.high, *figure.values)
            if any(number is not None and not math.isfinite(number) for number in numbers):
                raise ResultError(f"{result.room}: {row.name}, {name} is not a finite number")


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
