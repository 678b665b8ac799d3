"""`python -m mofme train`: train a restorer on clean photographs."""

from pathlib import Path
from typing import Annotated

import typer

from mofme.cli.launch import launch


def train(
    clean: Annotated[list[Path], typer.Argument(help="Folders of clean photographs.", exists=True, file_okay=False)],
    out: Annotated[Path, typer.Option(help="Where the model, the log and the state to resume from go.")],
    pairs: Annotated[
        list[Path] | None, typer.Option(help="A folder with input/ and target/; can be given several times.")
    ] = None,
    size: Annotated[str, typer.Option(help="Size of the net: small or base.")] = "small",
    init: Annotated[Path | None, typer.Option(help="A model to start from: a shipped one's name, or a folder.")] = None,
    minutes: Annotated[float, typer.Option(help="How long to train, over all resumed runs together.")] = 60.0,
    batch: Annotated[int, typer.Option(min=1, help="Crops a step, and on each GPU.")] = 8,
    crop: Annotated[int, typer.Option(min=8, help="Side of the first crops in pixels, a multiple of 8.")] = 96,
    learning_rate: Annotated[float, typer.Option(help="Highest learning rate.")] = 1e-3,
    seed: Annotated[int, typer.Option(help="Seed of the weights, the crops and the weather.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    validate_minutes: Annotated[float, typer.Option(help="Minutes between two validations.")] = 10.0,
    sources: Annotated[str, typer.Option(help="The training data and its licences, for the card.")] = "",
    licence: Annotated[str, typer.Option(help="Licence of the weights, for the card.")] = "",
    binary: Annotated[
        bool, typer.Option("--binary", help="Train most weights as single bits; begin with a trained model (--init).")
    ] = False,
) -> None:
    """Train a model; stopped at any time, the same command goes on where it was."""
    from mofme.vision.training import TrainingPlan
    from mofme.vision.training import train as run

    if crop % 8:
        raise typer.BadParameter(f"the crop must be a multiple of 8, got {crop}.")
    plan = TrainingPlan(
        out=out,
        clean=clean,
        pairs=pairs or [],
        size=size,
        init=init,
        minutes=minutes,
        batch=batch,
        crop=crop,
        learning_rate=learning_rate,
        seed=seed,
        validate_minutes=validate_minutes,
        sources=sources,
        licence=licence,
        binary=binary,
    )
    launch(run, plan, device=device)
