"""`python -m mofme results`: what was measured, and the pages that quote it."""

from pathlib import Path
from typing import Annotated

import typer
from rich import box
from rich.console import Console
from rich.table import Table

from mofme.cli.measuring import Command, print_result, with_exit_codes
from mofme.errors import ResultError
from mofme.measure.pages import refresh_page
from mofme.measure.result import RESULTS, available_results, load_result


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
        for page in names or ():
            command.tell(f"{page}: {'refreshed' if refresh_page(Path(page), folder) else 'up to date'}")
    elif names:
        for name in names:
            print_result(load_result(name, folder))
    else:
        _list(folder, command)


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
