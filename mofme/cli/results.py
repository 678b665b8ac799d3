"""`python -m mofme results`: what was measured, and the pages that quote it."""

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Annotated

import typer
from rich import box
from rich.console import Console
from rich.table import Table

from mofme.cli.measuring import Command, print_result, with_exit_codes
from mofme.errors import ResultError
from mofme.measure.pages import refresh_page
from mofme.measure.result import RESULTS, Result, available_results, load_result, save_result

# Where the words of a paper's claims are, by the result they are read off.
JUDGES = {
    "ablation": "mofme:judge_quality",
    "ablation_arms": "mofme:judge_quality",
    "attention_router": "attention_router:judge",
    "bench": "mofme:judge_costs",
    "binary_mnist": "binaryconnect:judge",
    "control": "smose:judge",
    "dense_to_moe": "ladimo:judge",
    "dense_to_moe_100k": "ladimo:judge",
    "llm_robustness": "router_robustness:judge",
    "llm_routing": "carrot:judge",
    "llm_routing_rate": "carrot:judge_rate",
    "mixture_of_routers": "mixture_of_routers:judge",
    "moe_distillation": "moe_distillation:judge",
    "rerouting_pictures": "r2t2:judge_pictures",
    "rerouting_text": "r2t2:judge_text",
    "restorers": "mofme:judge_restorers",
}


def judged(result: Result) -> Result:
    """A result whose verdict is read off its figures anew; that of a room without a paper's claim as it is."""
    if result.room not in JUDGES:
        return result
    module, function = JUDGES[result.room].split(":")
    judge: Callable[[Result], Result] = getattr(import_module(f"mofme.papers.{module}"), function)
    return judge(result)


@with_exit_codes
def results(
    command: Command,
    names: Annotated[
        list[str] | None, typer.Argument(help="Results whose tables to print, or with --quote Markdown pages.")
    ] = None,
    quote: Annotated[
        bool, typer.Option("--quote", help="Write the newest figures into the pages' marked blocks.")
    ] = False,
    judge: Annotated[
        bool, typer.Option("--judge", help="Read the verdicts off the figures anew, without measuring again.")
    ] = False,
    folder: Annotated[Path, typer.Option(help="Folder of the results.")] = RESULTS,
) -> None:
    """List what was measured and its verdicts, print a result's tables, or refresh the pages that quote them."""
    if judge:
        for name in names or available_results(folder):
            result = load_result(name, folder)
            if result.room != name:
                command.fail(f"{name}.json is left out: it tells of {result.room}, whose file it would replace")
                continue
            save_result(judged(result), folder)
    elif quote:
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
