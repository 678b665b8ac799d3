"""`python -m mofme evaluate mixture-of-routers`: mixtures of routers on LoRA experts beside routers of equal size."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mofme.cli.measuring import Command, measures
from mofme.measure.result import Result


@measures("mixture_of_routers.json")
def mixture_of_routers(
    command: Command,
    tables: Annotated[
        list[Path],
        typer.Argument(help="CSV files with text and label, or tables of models' answers, whose task is to be told."),
    ],
    arms: Annotated[Path, typer.Option(file_okay=False, help="Folder for what is finished and not done again.")],
    steps: Annotated[int, typer.Option(min=1, help="Training steps of every arm.")] = 200,
    batch: Annotated[int, typer.Option(min=1, help="Texts a step.")] = 16,
    limit: Annotated[int | None, typer.Option(min=10, help="Texts of each table, drawn at random.")] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Train every arm so many times.")] = 5,
    adapters: Annotated[
        Path | None,
        typer.Option(file_okay=False, help="Folder for the adapters of the first mixture of 2 that is trained."),
    ] = None,
    licence: Annotated[str, typer.Option(help="Licence of these adapters, for their card.")] = "unknown",
) -> Result:
    """Compare mixtures of 2 and of 4 routers with a single router and with wide ones that have as many parameters."""
    import torch

    from mofme.files import CARD_FILE
    from mofme.papers.mixture_of_routers.experiment import Setting, Shipping, as_result, compare

    torch.set_num_threads(1)
    shipping = None if adapters is None else Shipping(adapters, licence)
    measured = compare(tables, Setting(steps, batch, limit=limit), range(seeds), arms, command.tell, shipping)
    if adapters is not None and not (adapters / CARD_FILE).is_file():
        command.tell(
            f"warning: no adapters were written to {adapters}, as the mixtures of 2 in {arms} were trained before: "
            "choose another folder for --arms"
        )
    return as_result(measured, range(seeds), command.line)
