"""`python -m mofme route train`: learn a router from a table of models' answers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console


def train(
    table: Annotated[
        Path, typer.Argument(help="CSV, Parquet or JSON, or a folder, of prompts with each model's quality and cost.")
    ],
    out: Annotated[Path, typer.Option(file_okay=False, help="Folder for the router.")],
    estimator: Annotated[str, typer.Option(help="ensemble, knn, linear or network.")] = "ensemble",
    seed: Annotated[int, typer.Option(help="The same seed trains the same router.")] = 0,
    prices: Annotated[
        Path | None, typer.Option(help="JSON of dollars per million tokens; else those that came with the table.")
    ] = None,
    repair: Annotated[bool, typer.Option(help="Leave out rows that cannot be used, and say which.")] = False,
    licence: Annotated[str, typer.Option(help="Licence of the table, for the card.")] = "unknown",
) -> None:
    """Train a router and write it with its card: no prompt is kept in it, only numbers.

    Exit code: 0 all is well, 2 nothing was written.
    """
    from mofme.errors import MofmeError
    from mofme.language.llm_routing.loaders import load_table
    from mofme.language.llm_routing.prices import Prices
    from mofme.language.llm_routing.router_training import train_router

    log = Console(stderr=True, highlight=False, soft_wrap=True)

    def report(message: str) -> None:
        log.print(message, markup=False)

    try:
        loaded = load_table(table, repair, prices=Prices.load(prices) if prices else None)
        for sentence in loaded.repairs:
            report(sentence)
        card = train_router(loaded, out, estimator, seed, licence, report)
    except (MofmeError, OSError) as error:
        log.print(f"error: {error}", style="red", markup=False)
        raise typer.Exit(2) from None
    for name, figure in card.metrics.items():
        report(f"{name}: {figure}")
    report(f"{out}: {card.parameters:,} numbers")
