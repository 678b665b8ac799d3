"""`python -m mofme binary`: nets whose weights are one bit."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True, help="Nets whose weights are one bit (BinaryConnect).")

Digits = Annotated[Path, typer.Argument(help="MNIST: an .npz of train_x, train_y, test_x and test_y.")]
Runs = Annotated[Path, typer.Option(help="Folder of the runs, one for each arm and seed.")]


@app.command()
def train(
    digits: Digits,
    runs: Runs,
    arm: Annotated[
        list[str] | None, typer.Option(help="deterministic, stochastic, float or dropout; may be given again.")
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Train each arm so many times.")] = 3,
    epochs: Annotated[
        int, typer.Option(min=1, help="Passes over the digits; the learning rate falls over them.")
    ] = 100,
    batch: Annotated[int, typer.Option(min=2, help="Digits a step.")] = 200,
    learning_rate: Annotated[float, typer.Option(help="Learning rate at the start.")] = 3e-3,
    width: Annotated[int, typer.Option(min=1, help="Units of each of the three hidden layers.")] = 1024,
) -> None:
    """Train the paper's net for digits; stopped at any time, the same command does what is missing."""
    import torch

    from mofme.errors import MofmeError
    from mofme.vision.digits.data import load_mnist
    from mofme.vision.digits.net import ARMS
    from mofme.vision.digits.training import Plan
    from mofme.vision.digits.training import train as run

    torch.set_num_threads(1)
    try:
        mnist = load_mnist(digits)
        for seed in range(seeds):
            for name in arm or ARMS:
                plan = Plan(name, seed, epochs, batch, learning_rate, width=width)
                run(plan, mnist, runs, report=lambda line: typer.echo(line, err=True))
    except MofmeError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from None
