"""`python -m mofme results`: what was measured, and the pages that quote it."""

import re
from pathlib import Path
from typing import Annotated

import typer
from rich import box
from rich.console import Console
from rich.table import Table

from mofme.cli.measuring import Command, print_result, with_exit_codes
from mofme.errors import ResultError
from mofme.files import atomic_file
from mofme.measure.result import RESULTS, available_results, load_result

# <!-- result: ROOM TABLE -->...<!-- /result -->, without TABLE all of them; <!-- verdict: ROOM -->...<!-- /verdict -->
BLOCK = re.compile(
    r"<!-- (?P<kind>result|verdict): (?P<room>\S+)(?: (?P<table>(?:(?!-->).)+?))? -->.*?<!-- /(?P=kind) -->", re.DOTALL
)
NOT_YET = "Not measured yet."


@with_exit_codes
def results(
    command: Command,
    names: Annotated[
        list[str] | None, typer.Argument(help="Results whose tables to print, or with --quote Markdown pages.")
    ] = None,
    quote: Annotated[
        bool, typer.Option("--quote", help="Write the newest figures into the pages' marked blocks.")
    ] = False,
    folder: Annotated[Path, typer.Option(help="Folder of the results.")] = RESULTS,
) -> None:
    """List what was measured and its verdicts, print a result's tables, or refresh the pages that quote them."""
    if quote:
        _refresh_pages([Path(name) for name in names or ()], folder, command)
    elif names:
        for name in names:
            print_result(load_result(name, folder))
    else:
        _list(folder, command)


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


def _refresh_pages(pages: list[Path], folder: Path, command: Command) -> None:
    for page in pages:
        before = page.read_text(encoding="utf-8")
        after = refresh(before, folder)
        if after != before:
            with atomic_file(page, "w") as file:
                file.write(after)
        command.tell(f"{page}: {'refreshed' if after != before else 'up to date'}")


def _list(folder: Path, command: Command) -> None:
    rooms = available_results(folder)
    if not rooms:
        command.tell("Nothing was measured yet: see `python -m mofme evaluate --help`.")
    table = Table("room", "date", "verdict", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for room in rooms:
        try:
            result = load_result(room, folder)
            table.add_row(room, result.date, result.verdict)
        except ResultError as error:
            command.tell(str(error))
    Console(highlight=False, markup=False).print(table)
