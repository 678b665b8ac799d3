"""`python -m mofme evaluate segmentation`: does a segmenter see in restored frames what it sees in clean ones?"""

from __future__ import annotations

import dataclasses
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


def segmentation(
    frames: Annotated[Path, typer.Argument(help="Folder of clean frames.", exists=True, file_okay=False)],
    labels: Annotated[
        Path, typer.Argument(help="Folder of label pictures of the same names.", exists=True, file_okay=False)
    ],
    segmenter: Annotated[
        str,
        typer.Option(help="The shipped one, a folder of one, an ONNX file, or a model of torchvision by name."),
    ] = "segmenter",
    label_set: Annotated[
        str, typer.Option(help="What the labels mean: camvid, cityscapes, cityscapes_ids, ade20k, voc, or a JSON file.")
    ] = "camvid",
    segmenter_labels: Annotated[
        str | None,
        typer.Option(help="What the segmenter answers, if it is an ONNX file (camvid) or torchvision's (voc)."),
    ] = None,
    normalisation: Annotated[
        str, typer.Option(help="What an ONNX file takes: imagenet, symmetric (-1 to 1) or none (0 to 1).")
    ] = "imagenet",
    degraded: Annotated[
        Path | None,
        typer.Option(help="Folder of the same frames in bad weather; else it is synthesized.", exists=True),
    ] = None,
    weather: Annotated[
        list[str], typer.Option(help="Weather to synthesize; give it again for more.", show_default="all four")
    ] = _WEATHERS,
    seed: Annotated[int, typer.Option(help="Another seed makes other weather; the same makes the same.")] = 7,
    model: Annotated[str, typer.Option(help="Name of a shipped restorer, or folder of one.")] = "small",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first N frames.")] = None,
    out: Annotated[
        Path | None,
        typer.Option(file_okay=False, help="Folder for segmentation.csv, segmentation.json and the pictures."),
    ] = None,
    pictures: Annotated[int, typer.Option(min=0, help="Frames to show side by side, below --out.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON only.")] = False,
) -> None:
    """Segment frames clean, in bad weather and restored; print mIoU, each class's IoU, and the share won back.

    Exit code: 0 all is well, 1 some frames could not be measured, 2 nothing was begun.
    """
    from mofme.errors import MofmeError
    from mofme.measure.result import save_result
    from mofme.vision.evaluation.label_sets import load_label_set
    from mofme.vision.evaluation.labelled_frames import find_labelled
    from mofme.vision.evaluation.segmentation import counted_classes, evaluate_segmentation, write_csv, write_views
    from mofme.vision.evaluation.segmentation_result import as_result
    from mofme.vision.restorer import Restorer
    from mofme.vision.segmenter import load_segmenter

    log = Console(stderr=True, highlight=False, soft_wrap=True)
    if pictures and out is None:
        raise typer.BadParameter("--pictures needs --out, the folder they go to.")
    try:
        found = find_labelled(frames, labels)[:limit]
        meaning = load_label_set(label_set)
        weathers = chosen_weathers(weather, seed, degraded)
        restorer = Restorer.from_pretrained(model, device=device)
        with redirect_stdout(sys.stderr):  # torch announces a download on stdout, where the JSON goes
            segment = load_segmenter(segmenter, segmenter_labels, normalisation, str(restorer.device))
        counted = counted_classes(segment, meaning)
        reports = []
        steps = evaluate_segmentation(segment, restorer, found, meaning, weathers, pictures)
        for report in track(steps, "frames", total=len(found), console=log):
            if out is not None:
                write_views(out / "pictures", report)
            reports.append(dataclasses.replace(report, views={}))
        for report in (report for report in reports if report.error):
            log.print(f"{report.name}: {report.error}", style="red", markup=False)
        words = _command(frames, labels, segmenter, label_set, segmenter_labels, degraded, weather, seed, model, limit)
        result = as_result(reports, meaning, counted, words, [] if degraded else [seed])
        if out is not None:
            write_csv(out / "segmentation.csv", reports, meaning, counted)
            save_result(result, out)
    except (MofmeError, OSError) as error:
        log.print(f"error: {error}", style="red", markup=False)
        raise typer.Exit(2) from None
    show_result(result, as_json)
    if any(report.error for report in reports):
        raise typer.Exit(1)


def _command(
    frames: Path,
    labels: Path,
    segmenter: str,
    label_set: str,
    segmenter_labels: str | None,
    degraded: Path | None,
    weather: list[str],
    seed: int,
    model: str,
    limit: int | None,
) -> str:
    """What was typed, with the folders' names only: where they lie differs from machine to machine."""
    words = ["python -m mofme evaluate segmentation", *(_last_two(path) for path in (frames, labels))]
    words += [f"--segmenter {Path(segmenter).name}", f"--label-set {Path(label_set).name}"]
    words += [f"--segmenter-labels {Path(segmenter_labels).name}"] if segmenter_labels else []
    words += [f"--weather {name}" for name in weather] if weather != _WEATHERS else []
    words += [f"--seed {seed}"] if degraded is None else [f"--degraded {degraded.resolve().name}"]
    words += [f"--model {Path(model).name}"] + [f"--limit {limit}"] * (limit is not None)
    return " ".join(words)


def _last_two(path: Path) -> str:
    return "/".join(path.resolve().parts[-2:])
