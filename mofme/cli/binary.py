"""`python -m mofme binary`: nets whose weights are one bit."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from mofme.measure.result import Result

app = typer.Typer(no_args_is_help=True, help="Nets whose weights are one bit (BinaryConnect).")

Digits = Annotated[Path, typer.Argument(help="MNIST: an .npz of train_x, train_y, test_x and test_y.")]
Runs = Annotated[Path, typer.Option(file_okay=False, help="Folder of the runs, one for each arm and seed.")]


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

    from mofme.vision.digits.data import load_mnist
    from mofme.vision.digits.net import ARMS
    from mofme.vision.digits.training import Plan
    from mofme.vision.digits.training import train as run

    torch.set_num_threads(1)
    with _ending_with(1):
        mnist = load_mnist(digits)
        names = arm or ARMS
        plans = [Plan(name, seed, epochs, batch, learning_rate, width=width) for seed in range(seeds) for name in names]
        for plan in plans:
            run(plan, mnist, runs, report=lambda line: typer.echo(line, err=True))


@app.command()
def evaluate(
    digits: Digits,
    runs: Runs,
    nets: Annotated[int, typer.Option(min=1, help="Nets drawn for an ensemble.")] = 10,
    repeats: Annotated[int, typer.Option(min=2, help="Repeats of each timing.")] = 50,
    out: Annotated[Path | None, typer.Option(file_okay=False, help="Folder for binary_mnist.json.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON only.")] = False,
) -> None:
    """Test error of every complete run under the paper's test-time options, size on disk, time.

    Exit code: 0 all is well, 2 nothing was measured.
    """
    import torch

    from mofme.cli.results import show_result
    from mofme.vision.digits.data import load_mnist
    from mofme.vision.digits.evaluation import evaluate as run
    from mofme.vision.digits.evaluation_result import as_result

    torch.set_num_threads(1)
    with _ending_with(2):
        evaluation = run(runs, load_mnist(digits), nets, repeats, lambda line: typer.echo(line, err=True))
        words = f"python -m mofme binary evaluate {digits.name} --runs {runs.name} --nets {nets} --repeats {repeats}"
        result = as_result(evaluation, words)
        _save(result, out)
    show_result(result, as_json)


@app.command()
def pack(
    digits: Digits,
    run: Annotated[Path, typer.Argument(help="Folder of one run; what it has learned so far is taken.")],
    out: Annotated[Path, typer.Option(file_okay=False, help="Where the net and its card go.")],
    licence: Annotated[str, typer.Option(help="Licence of the weights, for the card.")] = "",
) -> None:
    """Write a trained net as it is used: signs in single bits, real weights in half precision."""
    from mofme.vision.digits.data import load_mnist
    from mofme.vision.digits.shipped import pack_run

    with _ending_with(1):
        card = pack_run(run, load_mnist(digits), out, licence)
    typer.echo(f"{out}: {card.parameters} numbers, test error {card.metrics['test error, %']:.2f} %")


@app.command()
def restorer(
    photographs: Annotated[
        list[Path], typer.Argument(help="Folders that both models were trained on: what training held back is used.")
    ],
    model: Annotated[str, typer.Option(help="A model with binary weights, by name or folder.")] = "small-binary",
    against: Annotated[str, typer.Option(help="The same net with real weights.")] = "small",
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first N photographs of each folder.")] = None,
    seed: Annotated[int, typer.Option(help="Decides the weather on the photographs.")] = 0,
    out: Annotated[Path | None, typer.Option(file_okay=False, help="Folder for binary_restorer.json.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON only.")] = False,
) -> None:
    """Measure a restorer with binary weights beside one with real weights: PSNR in every weather, size, time.

    On photographs that training held back, the two in turn on each. Exit code: 0 all is well, 1 some photographs could
    not be measured, 2 nothing was begun.
    """
    from tempfile import TemporaryDirectory

    from rich.console import Console
    from rich.progress import track

    from mofme.cli.results import show_result
    from mofme.vision.evaluation.binary_restorer import as_result, entries, two_models
    from mofme.vision.evaluation.comparison import compare
    from mofme.vision.evaluation.weathered import held_back_sets

    log = Console(stderr=True, highlight=False, soft_wrap=True)
    words = ["python -m mofme binary restorer", *(path.resolve().name for path in photographs)]
    words += [f"--model {Path(model).name} --against {Path(against).name}"]
    words += [f"--limit {limit}"] * (limit is not None) + [f"--seed {seed}"]
    with _ending_with(2):
        both = two_models(model, against)
        with TemporaryDirectory() as made:
            sets = held_back_sets(photographs, seed, Path(made), limit)
            count = sum(map(len, sets.values()))
            trials = list(track(compare(entries(both), sets), "photographs", total=count, console=log))
        for trial in (trial for trial in trials if trial.error):
            log.print(f"{trial.set}, {trial.name}: {trial.error}", style="red", markup=False)
        result = as_result(trials, both, " ".join(words), seed)
        _save(result, out)
    show_result(result, as_json)
    if any(trial.error for trial in trials):
        raise typer.Exit(1)


@contextmanager
def _ending_with(code: int) -> Iterator[None]:
    """Says what a user can mend in a sentence, and ends with this exit code."""
    from mofme.errors import MofmeError

    try:
        yield
    except (MofmeError, OSError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(code) from None


def _save(result: Result, out: Path | None) -> None:
    from mofme.measure.result import save_result

    if out is not None:
        save_result(result, out)
