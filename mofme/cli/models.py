"""`python -m mofme models`: the models that are shipped, and what is known about them."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mofme.cli.measuring import Command, with_exit_codes

if TYPE_CHECKING:
    from mofme.core.weights import ModelCard


@with_exit_codes
def models(
    command: Command,
    as_json: Annotated[bool, typer.Option("--json", help="Print the whole cards as one JSON document.")] = False,
) -> None:
    """List the shipped models with size, training, validation figures and licence."""
    from rich.console import Console
    from rich.table import Table

    from mofme.vision.restorer import available_models

    cards = available_models()
    if as_json:
        typer.echo(json.dumps([asdict(card) for card in cards], indent=2))
        return
    if not cards:
        command.tell("No models are here yet: make one with `python -m mofme train`.")
        return
    table = Table(box=None, show_header=False, padding=(0, 2, 1, 0))
    table.add_column(no_wrap=True, style="bold")
    for card in cards:
        table.add_row(card.name, "\n".join(filter(None, [_size(card), _validation(card), card.licence])))
    Console(highlight=False, markup=False).print(table)


def _size(card: "ModelCard") -> str:
    from mofme.files import model_folder
    from mofme.vision.models import weights_bytes

    hours = sum(run.get("hours", 0) for run in card.training.get("runs", ()))
    size = f"{card.parameters / 1e6:.2f} M parameters, {weights_bytes(model_folder(card.name)) / 1e6:.1f} MB"
    return f"{card.net}, {size}" + (f", trained for {60 * hours:.0f} min" if hours else "")


def _validation(card: "ModelCard") -> str:
    figures: Mapping[str, Any] = card.metrics.get("validation", {})
    each = [
        f"{name} {figure['input']:.1f} -> {figure['restored']:.1f}"
        if isinstance(figure, Mapping)
        else f"{name.replace('_', ' ')} {figure:.1f}"
        for name, figure in figures.items()
    ]
    return f"PSNR, dB: {', '.join(each)}" if each else ""
