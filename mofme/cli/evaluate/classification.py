"""`python -m mofme evaluate classification`: does a classifier see in restored pictures what it sees in clean ones?"""

from __future__ import annotations

import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import track

from mofme.cli.results import show_result
from mofme.cli.weathers import chosen_weathers

_WEATHERS = ["rain", "snow", "raindrop", "haze"]


def classification(
    pictures: Annotated[
        Path,
        typer.Argument(
            help="Folder of clean photographs. Subfolders named for ImageNet classes (281, n02123045) are labels.",
            exists=True,
            file_okay=False,
        ),
    ],
    classifier: Annotated[
        str, typer.Option(help="efficientnet-lite0 (works offline), or a classifier of torchvision by name.")
    ] = "efficientnet-lite0",
    degraded: Annotated[
        Path | None,
        typer.Option(help="Folder of the same pictures in bad weather; else it is synthesized.", exists=True),
    ] = None,
    weather: Annotated[
        list[str], typer.Option(help="Weather to synthesize; give it again for more.", show_default="all four")
    ] = _WEATHERS,
    seed: Annotated[int, typer.Option(help="Another seed makes other weather; the same makes the same.")] = 7,
    model: Annotated[str, typer.Option(help="Name of a shipped model, or folder of one.")] = "small",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first N photographs.")] = None,
    out: Annotated[
        Path | None, typer.Option(file_okay=False, help="Folder for classification.csv, classification.json.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON only.")] = False,
) -> None:
    """Classify photographs clean, in bad weather and restored; print agreement and confidence, and top-1 and top-5.

    Agreement is with the classifier's own first choice on the clean picture, so any photographs will do.
    Exit code: 0 all is well, 1 some pictures could not be measured, 2 nothing was begun.
    """
    from mofme.errors import MofmeError
    from mofme.measure.result import save_result
    from mofme.vision.classifier import categories, load_classifier
    from mofme.vision.evaluation.classification import as_result, compare, find_photos, write_csv
    from mofme.vision.restorer import Restorer

    log = Console(stderr=True, highlight=False, soft_wrap=True)
    try:
        photos = find_photos(pictures)[:limit]
        weathers = chosen_weathers(weather, seed, degraded)
        restorer = Restorer.from_pretrained(model, device=device)
        with redirect_stdout(sys.stderr):  # torch announces a download on stdout, where the JSON goes
            classify = load_classifier(classifier, str(restorer.device))
        compared = compare(classify, restorer, photos, weathers)
        trials = list(track(compared, "pictures", total=len(photos) * len(weathers), console=log))
        for trial in (trial for trial in trials if trial.error):
            log.print(f"{trial.name}, {trial.weather}: {trial.error}", style="red", markup=False)
        command = _command(pictures, classifier, degraded, weather, seed, model, limit)
        result = as_result(trials, command, [] if degraded else [seed])
        if out is not None:
            write_csv(out / "classification.csv", trials, categories())
            save_result(result, out)
    except (MofmeError, OSError) as error:
        log.print(f"error: {error}", style="red", markup=False)
        raise typer.Exit(2) from None
    show_result(result, as_json)
    if any(trial.error for trial in trials):
        raise typer.Exit(1)


def _command(
    pictures: Path, classifier: str, degraded: Path | None, weather: list[str], seed: int, model: str, limit: int | None
) -> str:
    """What was typed, with the folders' names only: where they lie differs from machine to machine."""
    words = ["python -m mofme evaluate classification", pictures.resolve().name, f"--classifier {classifier}"]
    words += [f"--weather {name}" for name in weather] if weather != _WEATHERS else []
    words += [f"--seed {seed}"] if degraded is None else [f"--degraded {degraded.resolve().name}"]
    words += [f"--model {Path(model).name}"] + [f"--limit {limit}"] * (limit is not None)
    return " ".join(words)
