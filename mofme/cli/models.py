"""`python -m mofme models`: the models that are shipped, and what is known about them."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from mofme.core.weights import ModelCard


def models(
    as_json: Annotated[bool, typer.Option("--json", help="Print the whole cards as one JSON document.")] = False,
) -> None:
    """List the shipped models: size, training, validation figures, licence."""
    from rich.console import Console
    from rich.table import Table

    from mofme.errors import ModelError
    from mofme.vision.restorer import available_models

    console = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)
    try:
        cards = available_models()
    except ModelError as error:
        console.print(str(error))
        raise typer.Exit(1) from error
    if as_json:
        print(json.dumps([asdict(card) for card in cards], indent=2))
        return
    if not cards:
        console.print("No models are here yet: make one with `python -m mofme train`.")
        return
    table = Table("name", "net", "parameters", "size", "training", "validation (PSNR, dB)", "licence")
    for card in cards:
        table.add_row(
            card.name,
            card.net,
            f"{card.parameters / 1e6:.2f} M",
            _size(card),
            _training(card),
            _validation(card),
            card.licence,
        )
    Console(highlight=False, markup=False).print(table)


def _size(card: "ModelCard") -> str:
    from mofme.files import model_folder
    from mofme.vision.models import weights_bytes

    return f"{weights_bytes(model_folder(card.name)) / 1e6:.1f} MB"


def _training(card: "ModelCard") -> str:
    hours = sum(run.get("hours", 0) for run in card.training.get("runs", ()))
    return f"{60 * hours:.0f} min" if hours else ""


def _validation(card: "ModelCard") -> str:
    figures: Mapping[str, Any] = card.metrics.get("validation", {})
    lines = [
        f"{name} {figure['input']:.1f} -> {figure['restored']:.1f}"
        if isinstance(figure, Mapping)
        else f"{name.replace('_', ' ')} {figure:.1f}"
        for name, figure in figures.items()
    ]
    return "\n".join(lines)
