"""`python -m mofme route "some prompt"`: which model to ask, and what is expected of the others."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

if TYPE_CHECKING:
    from mofme.language.llm_routing.trained_router import Routed


def prompt(
    prompt: Annotated[str, typer.Argument(help="The prompt, in quotes.")],
    budget: Annotated[
        float | None, typer.Option(min=0, help="Dollars for this prompt: the best model that costs no more.")
    ] = None,
    cost_weight: Annotated[
        float | None, typer.Option(min=0, max=1, help="0: quality alone counts; 1: cost alone.")
    ] = None,
    quality: Annotated[
        float | None, typer.Option(min=0, max=1, help="The cheapest model expected to be this good.")
    ] = None,
    router: Annotated[str, typer.Option(help="Name of a shipped router, or folder of one that `train` wrote.")] = (
        "router"
    ),
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON only.")] = False,
) -> None:
    """Choose a model for a prompt by one of --budget, --cost-weight and --quality; by none, the best is chosen."""
    from mofme.errors import MofmeError
    from mofme.language.llm_routing.trained_router import TrainedRouter

    log = Console(stderr=True, highlight=False, soft_wrap=True)
    if sum(given is not None for given in (budget, cost_weight, quality)) > 1:
        raise typer.BadParameter("give one of --budget, --cost-weight and --quality")
    if not prompt.strip():
        raise typer.BadParameter("the prompt is blank")
    try:
        routed = TrainedRouter.from_pretrained(router).route(
            prompt, cost_weight=cost_weight, budget=budget, quality=quality
        )
    except MofmeError as error:
        log.print(f"error: {error}", style="red", markup=False)
        raise typer.Exit(2) from None
    if as_json:
        import json

        typer.echo(json.dumps(routed.as_json(), indent=1))
    else:
        _show(routed)


def _show(routed: Routed) -> None:
    from rich.table import Table

    table = Table("model", "expected quality", "expected cost, $", box=None)
    for index in (-routed.quality_M).argsort():
        name = routed.models[index]
        chosen = "bold green" if name == routed.model else None
        table.add_row(name, f"{routed.quality_M[index]:.3f}", f"{routed.cost_M[index]:.6f}", style=chosen)
    console = Console(highlight=False)
    console.print(f"ask {routed.model}", markup=False)
    console.print(table)
