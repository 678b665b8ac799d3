"""`python -m mofme results`: what was measured, and the pages that quote it."""

import dataclasses
import json
import re
from pathlib import Path
from typing import Annotated

import typer
from rich import box
from rich.console import Console
from rich.table import Table

from mofme.errors import MofmeError, ResultError
from mofme.files import atomic_file
from mofme.measure.result import RESULTS, Result, available_results, load_result

# <!-- result: ROOM TABLE -->...<!-- /result -->, without TABLE all of them; <!-- verdict: ROOM -->...<!-- /verdict -->
BLOCK = re.compile(
    r"<!-- (?P<kind>result|verdict): (?P<room>\S+)(?: (?P<table>(?:(?!-->).)+?))? -->.*?<!-- /(?P=kind) -->", re.DOTALL
)
NOT_YET = "Not measured yet."


def results(
    names: Annotated[
        list[str] | None, typer.Argument(help="Rooms whose tables to print; with --quote, Markdown pages.")
    ] = None,
    quote: Annotated[
        bool, typer.Option("--quote", help="Write the newest figures into the pages' marked blocks.")
    ] = False,
    folder: Annotated[Path, typer.Option(help="Folder of the results.")] = RESULTS,
) -> None:
    """List what was measured and its verdicts, print a room's tables, or refresh the pages that quote them."""
    log = Console(stderr=True, highlight=False, soft_wrap=True)
    try:
        if quote:
            _refresh_pages([Path(name) for name in names or ()], folder, log)
        elif names:
            for name in names:
                print_result(load_result(name, folder))
        else:
            _list(folder, log)
    except (MofmeError, OSError) as error:
        log.print(f"error: {error}", style="red", markup=False)
        raise typer.Exit(2) from None


def show_result(result: Result, as_json: bool) -> None:
    """What a measuring command prints: JSON for machines, else tables, verdict and source."""
    if as_json:
        typer.echo(json.dumps(dataclasses.asdict(result), indent=2))
    else:
        print_result(result)


def print_result(result: Result) -> None:
    """Tables, verdict and source, for people."""
    console = Console(highlight=False, markup=False)
    for title, (headings, lines) in result.tables().items():
        table = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left", padding=(0, 1, 0, 0))
        for column, heading in enumerate(headings):
            table.add_column(heading, justify="right" if column else "left")
        for line in lines:
            table.add_row(*line)
        console.print(table)
    console.print(result.verdict)
    console.print(result.source(), style="dim")


def refresh(text: str, folder: Path = RESULTS) -> str:
    """The Markdown `text` with every marked block filled from the results. Raises ResultError for an unknown table."""
    return BLOCK.sub(lambda block: _filled(block, folder), text)


def _filled(block: re.Match[str], folder: Path) -> str:
    kind, room, title = block["kind"], block["room"], block["table"]
    opening = f"<!-- {kind}: {room}{f' {title}' if title else ''} -->"
    if room not in available_results(folder):
        return f"{opening}{NOT_YET}<!-- /{kind} -->"
    result = load_result(room, folder)
    if kind == "verdict":
        return f"{opening}{result.verdict}<!-- /verdict -->"
    tables = result.tables()
    if title and title not in tables:
        raise ResultError(f"{room} has no table {title!r}; it has: {', '.join(map(repr, tables))}")
    parts = [_markdown(*tables[title])] if title else [f"**{name}**\n\n{_markdown(*tables[name])}" for name in tables]
    return "\n".join([opening, "\n\n".join([*parts, f"<sub>{result.source()}</sub>"]), f"<!-- /{kind} -->"])


def _markdown(headings: list[str], lines: list[list[str]]) -> str:
    rule = ["---", *["---:"] * (len(headings) - 1)]
    return "\n".join(
        "| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in [headings, rule, *lines]
    )


def _refresh_pages(pages: list[Path], folder: Path, log: Console) -> None:
    for page in pages:
        before = page.read_text(encoding="utf-8")
        after = refresh(before, folder)
        if after != before:
            with atomic_file(page, "w") as file:
                file.write(after)
        log.print(f"{page}: {'refreshed' if after != before else 'up to date'}", markup=False)


def _list(folder: Path, log: Console) -> None:
    rooms = available_results(folder)
    if not rooms:
        log.print("Nothing was measured yet: see `python -m mofme evaluate --help`.", markup=False)
    table = Table("room", "date", "verdict", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for room in rooms:
        try:
            result = load_result(room, folder)
            table.add_row(room, result.date, result.verdict)
        except ResultError as error:
            log.print(str(error), style="red", markup=False)
    Console(highlight=False, markup=False).print(table)
