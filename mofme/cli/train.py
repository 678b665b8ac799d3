"""`python -m mofme train`: train a restorer on clean photographs."""

from pathlib import Path
from typing import Annotated

import typer

from mofme.cli.launch import launch


def train(
    clean: Annotated[list[Path], typer.Argument(help="Folders of clean photographs.", exists=True, file_okay=False)],
    out: Annotated[Path, typer.Option(help="Where the model, the log and the state to resume from go.")],
    pairs: Annotated[
        list[str] | None,
        typer.Option(help="FOLDER=SHARE: with input/ and target/, and its share of the scenes; can be given again."),
    ] = None,
    haze: Annotated[
        list[str] | None,
        typer.Option(help="FOLDER=SHARE: with clear/ and trans/, the share of the light that haze lets through."),
    ] = None,
    rain_layers: Annotated[
        list[str] | None,
        typer.Option(help="FOLDER=SHARE: pairs whose rain is put on the clean photographs."),
    ] = None,
    identity: Annotated[
        float, typer.Option(min=0, max=0.9, help="Share of scenes in which nothing is to be done.")
    ] = 0.1,
    judge: Annotated[
        list[Path] | None, typer.Option(help="A folder of pairs to measure on at each validation, never trained on.")
    ] = None,
    size: Annotated[str, typer.Option(help="Size of the net: small or base.")] = "small",
    init: Annotated[Path | None, typer.Option(help="A model to start from: a shipped one's name, or a folder.")] = None,
    minutes: Annotated[float, typer.Option(help="How long to train, over all resumed runs together.")] = 60.0,
    batch: Annotated[int, typer.Option(min=1, help="Crops a step, and on each GPU.")] = 8,
    crop: Annotated[int, typer.Option(min=8, help="Side of the first crops in pixels, a multiple of 8.")] = 128,
    canvas: Annotated[int, typer.Option(min=64, help="About the side of the scenes that crops are cut from.")] = 320,
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
        pairs=_shares(pairs),
        haze=_shares(haze),
        rain_layers=_shares(rain_layers),
        identity=identity,
        judges=judge or (),
        size=size,
        init=init,
        minutes=minutes,
        batch=batch,
        crop=crop,
        canvas=canvas,
        learning_rate=learning_rate,
        seed=seed,
        validate_minutes=validate_minutes,
        sources=sources,
        licence=licence,
        binary=binary,
    )
    launch(run, plan, device=device)


def _shares(options: list[str] | None) -> dict[Path, float]:
    """`FOLDER=SHARE`, or `FOLDER` alone for a tenth of the scenes."""
    shares = {}
    for option in options or []:
        folder, _, share = option.rpartition("=")
        try:
            path, value = (Path(folder), float(share)) if folder else (Path(option), 0.1)
        except ValueError:
            raise typer.BadParameter(f"{option}: the share after = must be a number between 0 and 1.") from None
        shares[path] = value
    return shares
