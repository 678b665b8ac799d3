"""`python -m mofme binary`: nets whose weights are one bit (BinaryConnect)."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mofme.cli.measuring import Command, measures, with_exit_codes
from mofme.files import without_name
from mofme.measure.result import Result

Digits = Annotated[Path, typer.Argument(help="MNIST as an .npz of train_x, train_y, test_x and test_y.")]
Runs = Annotated[Path, typer.Option(file_okay=False, help="Folder of the runs, one for each arm and seed.")]


@with_exit_codes
def train(
    command: Command,
    digits: Digits,
    runs: Runs,
    arm: Annotated[
        list[str] | None, typer.Option(help="deterministic, stochastic, float or dropout; may be given again.")
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Train each arm so many times.")] = 3,
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the digits, while the learning rate falls.")] = 100,
    batch: Annotated[int, typer.Option(min=2, help="Digits a step.")] = 200,
    learning_rate: Annotated[float, typer.Option(help="Learning rate at the start.")] = 3e-3,
    width: Annotated[int, typer.Option(min=1, help="Units of each of the three hidden layers.")] = 1024,
) -> None:
    """Train the paper's net for digits, or what of it is still missing."""
    import torch

    from mofme.papers.binaryconnect.net import ARMS, load_mnist
    from mofme.papers.binaryconnect.training import Plan
    from mofme.papers.binaryconnect.training import train as learn

    torch.set_num_threads(1)
    mnist = load_mnist(digits)
    plans = [
        Plan(name, seed, epochs, batch, learning_rate, width=width) for seed in range(seeds) for name in arm or ARMS
    ]
    for plan in plans:
        learn(plan, mnist, runs, report=command.tell)


@measures("binary_mnist.json")
def evaluate(
    command: Command,
    digits: Digits,
    runs: Runs,
    nets: Annotated[int, typer.Option(min=1, help="Nets drawn for an ensemble.")] = 10,
    repeats: Annotated[int, typer.Option(min=2, help="Repeats of each timing.")] = 50,
) -> Result:
    """Measure the test error of every complete run under the paper's test-time options, its size on disk and time."""
    import torch

    from mofme.papers.binaryconnect.experiment import as_result
    from mofme.papers.binaryconnect.experiment import evaluate as measure
    from mofme.papers.binaryconnect.net import load_mnist

    torch.set_num_threads(1)
    return as_result(measure(runs, load_mnist(digits), nets, repeats, command.tell), command.line)


@with_exit_codes
def pack(
    command: Command,
    digits: Digits,
    run: Annotated[Path, typer.Argument(help="Folder of one run, finished or not.")],
    out: Annotated[Path, typer.Option(file_okay=False, help="Where the net and its card go.")],
    licence: Annotated[str, typer.Option(help="Licence of the weights, for the card.")] = "",
) -> None:
    """Write a trained net as it is used, with signs in single bits and real weights in half precision."""
    from mofme.papers.binaryconnect.net import load_mnist
    from mofme.papers.binaryconnect.training import pack_run

    card = pack_run(run, load_mnist(digits), out, licence)
    typer.echo(f"{out}: {card.parameters} numbers, test error {card.metrics['test error, %']:.2f} %")


@measures("binary_restorer.json")
def restorer(
    command: Command,
    photographs: Annotated[
        list[Path], typer.Argument(help="Folders that both models were trained on, to measure what was held back.")
    ],
    model: Annotated[str, typer.Option(help="A model with binary weights, by name or folder.")] = "small-binary",
    against: Annotated[str, typer.Option(help="The same net with real weights.")] = "small",
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first N photographs of each folder.")] = None,
    seed: Annotated[int, typer.Option(help="Decides the weather on the photographs.")] = 0,
) -> Result:
    """Measure a restorer with binary weights beside one with real weights, in turn on photographs held back."""
    from tempfile import TemporaryDirectory

    from mofme.papers.binaryconnect.restorer_experiment import as_result, entries, two_models
    from mofme.vision.comparison import compare
    from mofme.vision.datasets import held_back_sets

    both = two_models(model, against)
    with TemporaryDirectory() as made:
        sets = held_back_sets(photographs, seed, Path(made), limit)
        trials = list(command.track(compare(entries(both), sets), "photographs", sum(map(len, sets.values()))))
    for trial in trials:
        if trial.error:
            command.fail(f"{trial.set}, {trial.name}: {without_name(trial.error, trial.name)}")
    return as_result(trials, both, command.line, seed)
