"""`python -m mofme evaluate routers`: five routers in the restorer, at equal training."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def routers(
    clean: Annotated[list[Path], typer.Argument(help="Folders of clean photographs; 1 in 20 is held back to measure.")],
    arms: Annotated[
        Path, typer.Option(file_okay=False, help="Folder for the trained arms, shared with `evaluate ablation`.")
    ],
    seeds: Annotated[int, typer.Option(min=1, help="Train every router this many times.")] = 3,
    steps: Annotated[int, typer.Option(min=1, help="Training steps of every arm.")] = 2000,
    limit: Annotated[int | None, typer.Option(min=1, help="Measure on the first N held-back photographs.")] = None,
    out: Annotated[Path | None, typer.Option(file_okay=False, help="Folder for routers.json and its plot.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON only.")] = False,
) -> None:
    """Train the same small restorer with a linear, two uncertainty-aware, an attention router and a mixture of routers.

    Stopped and started again with the same folders, it goes on after the last seed that was finished. Exit code: 0 all
    is well, 2 nothing was measured.
    """
    import torch
    from rich.console import Console

    from mofme.cli.results import show_result
    from mofme.errors import MofmeError
    from mofme.measure.result import save_result
    from mofme.vision.evaluation.ablation import Recipe
    from mofme.vision.evaluation.ablation_plots import plot_quality
    from mofme.vision.evaluation.routers import compare_routers
    from mofme.vision.evaluation.routers_result import as_result, difference_rows, quality_rows

    log = Console(stderr=True, highlight=False, soft_wrap=True)
    torch.set_num_threads(1)
    try:
        found = compare_routers(
            clean, arms, Recipe(steps=steps), range(seeds), limit, lambda line: log.print(line, markup=False)
        )
        words = [f"python -m mofme evaluate routers {' '.join(folder.resolve().name for folder in clean)}"]
        words += [f"--arms {arms.resolve().name} --seeds {seeds} --steps {steps}"]
        words += [f"--limit {limit}"] * (limit is not None)
        result = as_result(found, range(seeds), " ".join(words))
        if out is not None:
            save_result(result, out)
            plot_quality(quality_rows(found), difference_rows(found), out / "routers-quality.png")
    except (MofmeError, OSError) as error:
        log.print(f"error: {error}", style="red", markup=False)
        raise typer.Exit(2) from None
    show_result(result, as_json)
