"""Measured results: one schema for every room, a JSON file each below `assets/results/`.

The commands that measure write them; the app's tabs, the README and PAPERS.md quote them and nothing else.
"""

import json
import math
import os
import platform
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from mofme.errors import ResultError
from mofme.files import ASSETS, atomic_file

RESULTS = ASSETS / "results"


@dataclass(frozen=True)
class Figure:
    """One measured number; `low` to `high` is its interval, where there is one."""

    value: float
    low: float | None = None
    high: float | None = None

    def side(self, level: float = 0.0) -> int:
        """Which side of `level` all of the interval lies on: +1 above, -1 below; 0 if it holds it or there is none."""
        if self.low is None or self.high is None:
            return 0
        return int(self.low > level) - int(self.high < level)

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
        return Figure(function(self.value), *sorted((function(self.low), function(self.high))))

    def percent(self) -> "Figure":
        """A share in percent."""
        return self.map(lambda share: 100 * share)


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


def today() -> str:
    return datetime.now(UTC).date().isoformat()


@dataclass(frozen=True)
class Result:
    """One room's result beside its paper's claim.

    `command` is what anyone types to measure it again; `verdict` is one sentence with the numbers that bear it;
    `interval` says what the intervals are.
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
    date: str = field(default_factory=today)

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
        file.write(json.dumps(asdict(result), indent=1, ensure_ascii=False) + "\n")
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
        result = Result(**{**plain, "rows": rows, "machine": Machine(**plain["machine"])})
        _check_finite(result)
        return result
    except FileNotFoundError:
        raise ResultError(f"{path} is missing: nothing was measured for {room!r} yet") from None
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ResultError(f"{path} is not a result: {error}") from error


def available_results(folder: Path = RESULTS) -> list[str]:
    """The rooms that have a result, by name."""
    return sorted(path.stem for path in folder.glob("*.json"))


def _is_gain(column: str) -> bool:
    return re.search(r"\bgain\b", column) is not None  # not "against"


def _check_finite(result: Result) -> None:
    for row in result.rows:
        for name, figure in row.figures.items():
            if any(number is not None and not math.isfinite(number) for number in asdict(figure).values()):
                raise ResultError(f"{result.room}: {row.name}, {name} is not a finite number")


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
