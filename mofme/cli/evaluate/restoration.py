"""`python -m mofme evaluate restoration`: how close restored pictures come to clean ones."""

from __future__ import annotations

import sys
from contextlib import redirect_stdout
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import track

from mofme.cli.results import show_result

if TYPE_CHECKING:
    from mofme.vision.evaluation.pairs import Pair
    from mofme.vision.evaluation.restoration import PairReport
    from mofme.vision.metrics import Lpips


def restoration(
    pairs: Annotated[
        list[Path] | None,
        typer.Argument(help="Folders with input/ and target/, or with folders that have (rain/, snow/)."),
    ] = None,
    held_back: Annotated[
        list[Path] | None,
        typer.Option(
            help="Folder of the photographs a model was trained on: those that training held back are measured in "
            "every weather, and as they are; give it again for more."
        ),
    ] = None,
    model: Annotated[
        list[str], typer.Option(help="Name of a shipped model, or folder of one; give it again for more.")
    ] = ["small"],  # noqa: B006 - typer copies it
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    ensemble: Annotated[bool, typer.Option("--ensemble", help="Average 4 mirrored views, as `restore` can.")] = False,
    out: Annotated[
        Path | None, typer.Option(file_okay=False, help="Folder for restoration.csv and restoration.json.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON only.")] = False,
    lpips_weights: Annotated[
        Path | None, typer.Option(help="AlexNet's weights for LPIPS (.npz); without it they are downloaded.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first N pairs of each set.")] = None,
    seed: Annotated[int, typer.Option(help="Decides the weather on photographs held back.")] = 0,
) -> None:
    """Restore pictures whose clean version is known; print PSNR, SSIM and LPIPS before and after.

    Exit code: 0 all is well, 1 some pairs could not be measured, 2 nothing was begun.
    """
    from mofme.errors import MofmeError
    from mofme.measure.result import save_result
    from mofme.vision.evaluation.restoration import as_result, evaluate, write_csv
    from mofme.vision.restorer import Restorer

    log = Console(stderr=True, highlight=False, soft_wrap=True)
    try:
        with TemporaryDirectory() as made:
            sets = _sets(pairs or [], held_back or [], seed, limit, Path(made))
            restorers = {name: Restorer.from_pretrained(name, device=device) for name in model}
            if len({Path(name).name for name in restorers}) < len(restorers):
                raise MofmeError(f"two of {', '.join(restorers)} have the same name: rename one of the folders")
            lpips = open_lpips(lpips_weights, log)
            reports: dict[str, list[PairReport]] = {}
            for name, members in sets.items():
                for chosen, restorer in restorers.items():
                    restores = partial(restorer, ensemble=ensemble)
                    title = f"{name}, {Path(chosen).name}" if len(restorers) > 1 else name
                    results = evaluate(restores, members, lpips)
                    reports[title] = list(track(results, title, total=len(members), console=log))
        command = _command(pairs, held_back, model, ensemble, limit, seed)
        result = as_result(reports, command, [seed] if held_back else [])
        if ensemble:
            result = replace(result, room="restoration_ensemble")
        if out is not None:
            write_csv(out / f"{result.room}.csv", reports)
            save_result(result, out)
    except (MofmeError, OSError) as error:
        log.print(f"error: {error}", style="red", markup=False)
        raise typer.Exit(2) from None
    failed = [report for rows in reports.values() for report in rows if report.error]
    for report in failed:
        log.print(f"{report.name}: {report.error}", style="red", markup=False)
    show_result(result, as_json)
    if failed:
        raise typer.Exit(1)


def _sets(
    pairs: list[Path], held_back: list[Path], seed: int, limit: int | None, folder: Path
) -> dict[str, list[Pair]]:
    from mofme.errors import MofmeError
    from mofme.vision.evaluation.pairs import find_sets
    from mofme.vision.evaluation.weathered import held_back_sets

    if not pairs and not held_back:
        raise MofmeError("nothing to measure: name a folder of pairs, or photographs with --held-back")
    sets = held_back_sets(held_back, seed, folder, limit) if held_back else {}
    for path in pairs:
        for name, members in find_sets(path).items():
            if name in sets:
                raise MofmeError(f"{path}: another set is called {name} already; rename one of the folders")
            sets[name] = members[:limit]
    return sets


def _command(
    pairs: list[Path] | None,
    held_back: list[Path] | None,
    model: list[str],
    ensemble: bool,
    limit: int | None,
    seed: int,
) -> str:
    """What was typed, with the folders' names only: where they lie differs from machine to machine."""
    words = ["python -m mofme evaluate restoration", *(path.resolve().name for path in pairs or ())]
    words += [f"--held-back {path.resolve().name}" for path in held_back or ()]
    words += [f"--model {Path(name).name}" for name in model]
    words += ["--ensemble"] * ensemble
    words += [f"--limit {limit}"] * (limit is not None) + [f"--seed {seed}"] * bool(held_back)
    return " ".join(words)


def open_lpips(weights: Path | None, log: Console) -> Lpips | None:
    """LPIPS with the weights of that file, or downloaded ones; None, and a line, where neither is to be had."""
    from mofme.errors import ModelError
    from mofme.vision.metrics import Lpips

    try:
        with redirect_stdout(sys.stderr):  # torch announces a download on stdout, where the JSON goes
            return Lpips(weights)
    except ModelError as error:
        if weights is not None:
            raise
        log.print(f"LPIPS is left out. {error} with --lpips-weights.", markup=False)
        return None
