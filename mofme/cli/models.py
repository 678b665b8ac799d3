"""`python -m mofme models`, those that are shipped and what is known about them; `export`, one for other programs."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mofme.cli.measuring import Command, with_exit_codes
from mofme.errors import ModelError
from mofme.files import DEFAULT_MODEL

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
        name = f"{card.name}\n(the default)" if card.name == DEFAULT_MODEL else card.name
        table.add_row(name, "\n".join(filter(None, [_size(card), _validation(card), card.licence])))
    Console(highlight=False, markup=False).print(table)


@with_exit_codes
def export(
    command: Command,
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A shipped model, or a folder from `train`.")],
    output: Annotated[
        Path,
        typer.Argument(
            metavar="OUT", help="The file to write; for OpenVINO NAME.xml, beside which NAME.bin is.", dir_okay=False
        ),
    ],
    format: Annotated[str, typer.Option(help="onnx, openvino or torchscript.")] = "onnx",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a file that exists.")] = False,
) -> None:
    """Write a restorer as one file for other programs, once it is checked to restore the same."""
    from mofme.vision.export import export_net

    files = [output, output.with_suffix(".bin")] if format == "openvino" else [output]
    for file in files:
        if file.exists() and not overwrite:
            raise ModelError(f"{file}: exists already; give another name or --overwrite.")
    difference = export_net(model, output, format)
    size = sum(file.stat().st_size for file in files) / 1e6
    command.tell(f"{output}: {size:.1f} MB; real pixels differ by at most {255 * difference:.4f} of 255 levels")


def _size(card: "ModelCard") -> str:
    from mofme.files import model_folder
    from mofme.vision.models import weights_bytes

    hours = sum(run.get("hours", run.get("minutes", 0) / 60) for run in card.training.get("runs", ()))
    size = f"{card.parameters / 1e6:.2f} M parameters, {weights_bytes(model_folder(card.name)) / 1e6:.1f} MB"
    return f"{card.net}, {size}" + (f", trained for {60 * hours:.0f} min" if hours else "")


def _validation(card: "ModelCard") -> str:
    figures: Mapping[str, Any] = card.metrics.get("validation") or card.metrics.get("held_back", {})
    each = [
        f"{name} {figure['input']:.1f} -> {figure['restored']:.1f}"
        if isinstance(figure, Mapping)
        else f"{name.replace('_', ' ')} {figure:.1f}"
        for name, figure in figures.items()
    ]
    return f"PSNR, dB: {', '.join(each)}" if each else ""
