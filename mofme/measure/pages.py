"""Pages that quote what was measured, between marks, so that nobody types a number:

<!-- result: ROOM TABLE --> a table and how it came about <!-- /result -->   without TABLE: all of the room
<!-- verdict: ROOM --> a few sentences <!-- /verdict -->
<!-- plain: ROOM --> what it means, in one plain sentence <!-- /plain -->
<!-- figure: ROOM TABLE | ROW | COLUMN --> one number <!-- /figure -->
<!-- ledger: whole --> what every claim is worth here <!-- /ledger -->   with "short": papers, claims and verdicts alone
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from mofme.errors import ResultError
from mofme.files import atomic_file
from mofme.measure.result import RESULTS, Figure, Judgement, Result, Verdict, available_results, load_result

BLOCK = re.compile(
    r"<!-- (?P<kind>result|verdict|plain|ledger|figure): (?P<room>\S+)(?: (?P<table>(?:(?!-->).)+?))? -->.*?"
    r"<!-- /(?P=kind) -->",
    re.DOTALL,
)
NOT_YET = "Not measured yet."
# For each room, where its telling figure stands and what it means in plain words.
_HEADLINES = Path(__file__).with_name("headlines.json")


@dataclass(frozen=True)
class Headline:
    """`sentence`, and the figures of one column by row, of which `telling` is the row that the sentence speaks of."""

    sentence: str
    column: str
    telling: str
    figures: Mapping[str, Figure]


@dataclass(frozen=True)
class Telling:
    """Where the telling figure stands, and the sentence if all of its interval is above 0, below it, or neither.

    `{value}` is the figure without its interval, `{less}` the share in percent by which the error shrinks where it is
    a gain in dB. A sentence that is the only one takes no side.
    """

    table: str
    column: str
    row: str
    above: str
    below: str = ""
    neither: str = ""

    def sentence(self, figure: Figure) -> str:
        words = {1: self.above, -1: self.below, 0: self.neither}[figure.side()] or self.above
        value = f"{abs(figure.value):,.{0 if abs(figure.value) >= 10 else 1}f}"
        return words.format(value=value, less=f"{100 * (1 - 10 ** (-figure.value / 20)):.0f}")


@cache
def tellings() -> dict[str, Telling]:
    """By room."""
    return {room: Telling(**told) for room, told in json.loads(_HEADLINES.read_text(encoding="utf-8")).items()}


def headline(result: Result) -> Headline | None:
    """None for a result of which no plain sentence is known, or that lacks the figure which would bear it."""
    telling = tellings().get(result.room)
    if telling is None:
        return None
    figures = {
        row.name: row.figures[telling.column]
        for row in result.rows
        if row.table == telling.table and telling.column in row.figures
    }
    if telling.row not in figures:
        return None
    return Headline(telling.sentence(figures[telling.row]), telling.column, telling.row, figures)


def refresh_page(page: Path, folder: Path = RESULTS) -> bool:
    """Write the newest figures into a page's marked blocks; whether that changed it. Raises ResultError, OSError."""
    before = page.read_text(encoding="utf-8")
    after = refresh(before, folder)
    if after != before:
        with atomic_file(page, "w") as file:
            file.write(after)
    return after != before


def refresh(text: str, folder: Path = RESULTS) -> str:
    """The Markdown `text` with every marked block filled from the results. Raises ResultError for an unknown table."""
    return BLOCK.sub(lambda block: _filled(block, folder), text)


def _filled(block: re.Match[str], folder: Path) -> str:
    kind, room, title = block["kind"], block["room"], block["table"]
    opening = f"<!-- {kind}: {room}{f' {title}' if title else ''} -->"
    if kind == "ledger":
        return f"{opening}\n{_table(*ledger(room == 'whole', folder), words=True)}\n<!-- /ledger -->"
    if room not in available_results(folder):
        return f"{opening}{NOT_YET}<!-- /{kind} -->"
    result = load_result(room, folder)
    if kind == "verdict":
        return f"{opening}{result.verdict}<!-- /verdict -->"
    if kind == "figure":
        table, row, column = (title or "").split(" | ")
        return f"{opening}{result.figure(table, row, column).text()}<!-- /figure -->"
    if kind == "plain":
        told = headline(result)
        return f"{opening}{told.sentence if told else result.verdict}<!-- /plain -->"
    tables = result.tables()
    if title and title not in tables:
        raise ResultError(f"{room} has no table {title!r}; it has: {', '.join(map(repr, tables))}")
    parts = [_table(*tables[title])] if title else [f"**{name}**\n\n{_table(*tables[name])}" for name in tables]
    return "\n".join([opening, "\n\n".join([*parts, f"<sub>{result.source()}</sub>"]), f"<!-- /{kind} -->"])


def as_page(result: Result) -> str:
    """A whole result as a page of its own."""
    claim = f"{result.paper}. Claim: {result.claim}"
    parts = [f"# {result.room.capitalize()}", claim, result.verdict, result.source()]
    parts += [f"## {title}\n\n{_table(*table)}" for title, table in result.tables().items()]
    return "\n\n".join(parts) + "\n"


def _table(headings: Sequence[str], lines: Sequence[Sequence[str]], words: bool = False) -> str:
    """Columns of numbers stand on the right, those of words on the left."""
    rule = ["---", *["---" if words else "---:"] * (len(headings) - 1)]
    return "\n".join(
        "| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in [headings, rule, *lines]
    )


def entries(folder: Path = RESULTS) -> Iterator[tuple[Result, Judgement]]:
    """Every claim that was judged, with its result, in the order of the papers' names. Raises ResultError."""
    results = [load_result(room, folder) for room in available_results(folder)]
    for result in sorted(results, key=lambda result: result.paper):
        for judgement in result.judgements:
            yield result, judgement


def of_claim(one: Judgement) -> dict[str, str]:
    """What the ledger tells of a claim, by heading."""
    return {
        "claim": one.claim,
        "verdict here": one.verdict,
        "method": one.departs,
        "scale, here against the paper's": one.scale,
        "least effect to be seen": one.least(),
        "could it show: checks passed": f"{sum(gate.side > 0 for gate in one.gates)} of {len(one.gates)}",
        "it hangs on": one.bearing.text() if one.bearing else "",
        "it would take": one.needed if one.verdict is Verdict.UNSEEN else "",
    }


def ledger(whole: bool = True, folder: Path = RESULTS) -> tuple[list[str], list[list[str]]]:
    """Headings and lines; unless `whole`, papers, claims and verdicts alone."""
    lines = [{"paper": _name(result), **of_claim(one)} for result, one in entries(folder)]
    most = None if whole else 3
    return list(lines[0])[:most] if lines else [], [list(line.values())[:most] for line in lines]


def _name(result: Result) -> str:
    return result.paper.split(" (")[0].split(", ")[0]
