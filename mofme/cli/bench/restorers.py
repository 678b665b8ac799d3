"""`python -m mofme bench restorers`: our models, classical filters and others' nets on the same pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import track

from mofme.cli.results import show_result


def restorers(
    pairs: Annotated[
        Path, typer.Argument(help="Folder with input/ and target/, or with folders that have (rain/, snow/).")
    ],
    model: Annotated[
        list[str] | None, typer.Option(help="A model by name or folder; give it again for more. All shipped ones.")
    ] = None,
    onnx: Annotated[
        list[Path] | None,
        typer.Option(help="A restoration net as ONNX file: (1, 3, H, W) in [0, 1] in and out; again for more."),
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first N pairs of each set.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for restorers.json.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON only.")] = False,
) -> None:
    """Compare restorers on the same pictures in one run: PSNR, SSIM, time and peak memory, on the CPU.

    Besides models and ONNX files: median, bilateral and guided filter, non-local means, dark-channel dehazing, CLAHE,
    and doing nothing. Exit code: 0 all is well, 1 some pairs could not be measured, 2 nothing was begun.
    """
    from mofme.errors import MofmeError
    from mofme.measure.result import save_result
    from mofme.vision.evaluation.comparison import as_result, compare, entries, peaks
    from mofme.vision.evaluation.pairs import find_sets
    from mofme.vision.models import available_models

    log = Console(stderr=True, highlight=False, soft_wrap=True)
    names = model or [card.name for card in available_models()]
    try:
        sets = {name: members[:limit] for name, members in find_sets(pairs).items()}
        entered = entries(names, onnx or [])
        trials = list(track(compare(entered, sets), "pictures", total=sum(map(len, sets.values())), console=log))
        for trial in (trial for trial in trials if trial.error):
            log.print(f"{trial.set}, {trial.name}: {trial.error}", style="red", markup=False)
        memory = peaks(track(entered, "memory", console=log), trials)
        result = as_result(trials, entered, memory, _command(pairs, names, onnx or [], limit))
        if out is not None:
            save_result(result, out)
    except MofmeError as error:
        log.print(f"error: {error}", style="red", markup=False)
        raise typer.Exit(2) from None
    show_result(result, as_json)
    if any(trial.error for trial in trials):
        raise typer.Exit(1)


def _command(pairs: Path, model: list[str], onnx: list[Path], limit: int | None) -> str:
    """What was typed, with the folders' names only: where they lie differs from machine to machine."""
    words = ["python -m mofme bench restorers", pairs.resolve().name]
    words += [f"--model {Path(name).name}" for name in model] + [f"--onnx {path.name}" for path in onnx]
    return " ".join(words + [f"--limit {limit}"] * (limit is not None))
