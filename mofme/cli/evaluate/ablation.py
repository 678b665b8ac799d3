"""`python -m mofme evaluate ablation`: what experts and their routers do for the picture, at equal training."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def ablation(
    clean: Annotated[list[Path], typer.Argument(help="Folders of clean photographs; 1 in 20 is held back to measure.")],
    out: Annotated[
        Path, typer.Option(file_okay=False, help="Folder for ablation.json, ablation.md, ablation.csv and the plots.")
    ],
    arms: Annotated[
        Path,
        typer.Option(file_okay=False, help="Folder for the trained arms; those found in it are not trained again."),
    ],
    seeds: Annotated[int, typer.Option(min=1, help="Train every arm this many times.")] = 3,
    steps: Annotated[int, typer.Option(min=1, help="Training steps of every arm.")] = 2000,
    limit: Annotated[int | None, typer.Option(min=1, help="Measure on the first N held-back photographs.")] = None,
    lpips_weights: Annotated[
        Path | None, typer.Option(help="AlexNet's weights for LPIPS (.npz); without it they are downloaded.")
    ] = None,
) -> None:
    """Train dense, conventional mixture and MoFME with three routers alike, and compare quality and cost.

    Stopped and started again with the same folders, it goes on after the last seed that was finished.
    """
    from rich.console import Console

    from mofme.cli.evaluate.restoration import open_lpips
    from mofme.errors import MofmeError
    from mofme.vision.evaluation.ablation import Recipe
    from mofme.vision.evaluation.ablation_report import run_ablation

    log = Console(stderr=True, highlight=False, soft_wrap=True)
    try:
        lpips = open_lpips(lpips_weights, log)
        recipe = Recipe(steps=steps)
        result = run_ablation(clean, out, arms, recipe, range(seeds), lpips, limit, report=log.print)
    except (MofmeError, OSError) as error:
        log.print(f"error: {error}", style="red", markup=False)
        raise typer.Exit(2) from None
    typer.echo(result.verdict)
    typer.echo((out / "ablation.md").read_text(encoding="utf-8"))
