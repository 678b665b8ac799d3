"""`python -m mofme evaluate`: restored pictures against clean ones, as metrics, segmenters and classifiers see them."""

from __future__ import annotations

import dataclasses
import sys
from contextlib import redirect_stdout
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, TextIO

import typer

from mofme.cli.measuring import Command, measures
from mofme.cli.train import check_weathers
from mofme.errors import ModelError, MofmeError, TableError
from mofme.files import DEFAULT_MODEL, without_name
from mofme.measure.result import Result

if TYPE_CHECKING:
    from mofme.vision.datasets import Degrade, PairFiles
    from mofme.vision.evaluation import PairReport
    from mofme.vision.metrics import Lpips
    from mofme.vision.restorer import Restorer

Device = Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")]
LpipsWeights = Annotated[
    Path | None, typer.Option(help="AlexNet's weights for LPIPS (.npz), which else are downloaded.")
]
Pairs = Annotated[
    list[Path] | None, typer.Argument(help="Folders with input/ and target/, or with folders that have (rain/, snow/).")
]
HeldBack = Annotated[
    list[Path] | None,
    typer.Option(
        help="Folder of the photographs a model was trained on, of which those held back are measured in every "
        "weather and as they are; may be given again."
    ),
]
WeatherSeed = Annotated[int, typer.Option(help="Decides the weather on photographs held back.")]
_MODELS = [DEFAULT_MODEL]


@dataclasses.dataclass(frozen=True)
class Weathered:
    """Options of what looks at pictures clean, in bad weather, and restored."""

    degraded: Annotated[
        Path | None,
        typer.Option(help="Folder of the same pictures in bad weather, in place of synthesized.", exists=True),
    ] = None
    weather: Annotated[
        list[str] | None, typer.Option(help="Weather to synthesize; may be given again.", show_default="all four")
    ] = None
    seed: Annotated[int, typer.Option(help="The same seed makes the same weather.")] = 7
    model: Annotated[str, typer.Option(help="Name of a shipped restorer, or folder of one.")] = DEFAULT_MODEL
    device: Device = "auto"

    @property
    def seeds(self) -> list[int]:
        return [] if self.degraded else [self.seed]

    def weathers(self) -> dict[str, Degrade]:
        """What puts clean pictures into bad weather: those of the folder `degraded`, or else synthesized by name."""
        from mofme.vision.datasets import synthesized, taken_from
        from mofme.vision.weather import WEATHERS

        if self.degraded is not None:
            return taken_from(self.degraded)
        names = self.weather or list(WEATHERS)
        check_weathers(names)
        return synthesized(names, self.seed)

    def restorer(self) -> Restorer:
        from mofme.vision.restorer import Restorer

        return Restorer.from_pretrained(self.model, device=self.device)


@measures("restoration.json and restoration.csv")
def restoration(
    command: Command,
    pairs: Pairs = None,
    held_back: HeldBack = None,
    model: Annotated[
        list[str], typer.Option(help="Name of a shipped model, or folder of one; may be given again.")
    ] = _MODELS,
    device: Device = "auto",
    ensemble: Annotated[bool, typer.Option("--ensemble", help="Average with the mirror image.")] = False,
    lpips_weights: LpipsWeights = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first N pairs of each set.")] = None,
    seed: WeatherSeed = 0,
) -> Result:
    """Restore pictures whose clean version is known, and print PSNR, SSIM and LPIPS before and after."""
    from mofme.vision.evaluation import as_result, compare, compared, evaluate, write_csv
    from mofme.vision.restorer import Restorer

    with TemporaryDirectory() as made:
        sets = pair_sets(pairs or [], held_back or [], seed, limit, Path(made))
        restorers = {name: Restorer.from_pretrained(name, device=device) for name in model}
        if len({Path(name).name for name in restorers}) < len(restorers):
            raise MofmeError(f"two of {', '.join(restorers)} have the same name: rename one of the folders")
        lpips = open_lpips(command, lpips_weights)
        by_model: dict[str, dict[str, list[PairReport]]] = {name: {} for name in sets}
        reports: dict[str, list[PairReport]] = {}
        for name, members in sets.items():
            for chosen, restorer in restorers.items():
                restores = partial(restorer, ensemble=ensemble)
                title = f"{name}, {Path(chosen).name}" if len(restorers) > 1 else name
                reports[title] = list(command.track(evaluate(restores, members, lpips), title, len(members)))
                by_model[name][Path(chosen).name] = reports[title]
    for report in (report for rows in reports.values() for report in rows):
        if report.error:
            command.fail(f"{report.name}: {without_name(report.error, report.name)}")
    result = as_result(reports, command.line, [seed] if held_back else [])
    if beside := compare(by_model):
        result = dataclasses.replace(result, rows=[*result.rows, *beside], verdict=compared(beside))
    if ensemble:
        result = dataclasses.replace(result, room="restoration_ensemble")
    if command.out is not None:
        write_csv(command.out / f"{result.room}.csv", reports)
    return result


def pair_sets(
    pairs: list[Path], held_back: list[Path], seed: int, limit: int | None, folder: Path
) -> dict[str, list[PairFiles]]:
    """What those two options name, by the names of the sets; weather is put on photographs below `folder`."""
    from mofme.vision.datasets import find_sets, held_back_sets

    if not pairs and not held_back:
        raise MofmeError("nothing to measure: name a folder of pairs, or photographs with --held-back")
    sets = held_back_sets(held_back, seed, folder, limit) if held_back else {}
    for path in pairs:
        for name, members in find_sets(path).items():
            if name in sets:
                raise MofmeError(f"{path}: another set is called {name} already; rename one of the folders")
            sets[name] = members[:limit]
    return sets


def open_lpips(command: Command, weights: Path | None) -> Lpips | None:
    """LPIPS with the weights of that file, or downloaded ones; None, and a line, where neither is to be had."""
    from mofme.vision.metrics import Lpips

    try:
        with _downloads_told():
            return Lpips(weights)
    except ModelError as error:
        if weights is not None:
            raise
        command.tell(f"LPIPS is left out. {error} with --lpips-weights.")
        return None


@measures(
    "segmentation, or of a video held out segmentation_held_out, as .json and .csv, and the pictures",
    around=("frames", "labels"),
)
def segmentation(
    command: Command,
    *,
    frames: Annotated[Path, typer.Argument(help="Folder of clean frames.", exists=True, file_okay=False)],
    labels: Annotated[
        Path, typer.Argument(help="Folder of label pictures of the same names.", exists=True, file_okay=False)
    ],
    segmenter: Annotated[
        str, typer.Option(help="The shipped one, a folder of one, an ONNX file, or a model of torchvision by name.")
    ] = "segmenter",
    label_set: Annotated[
        str, typer.Option(help="camvid, cityscapes, cityscapes_ids, ade20k, voc, or a JSON file of what labels mean.")
    ] = "camvid",
    segmenter_labels: Annotated[
        str | None,
        typer.Option(help="What the segmenter answers, if it is an ONNX file (camvid) or torchvision's (voc)."),
    ] = None,
    normalisation: Annotated[
        str, typer.Option(help="What an ONNX file takes, imagenet, symmetric (-1 to 1) or none (0 to 1).")
    ] = "imagenet",
    weathered: Weathered,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first N frames.")] = None,
    video: Annotated[
        str, typer.Option(help="Only frames of this video, what stands before the first _ of their names.")
    ] = "",
    block: Annotated[
        int, typer.Option(min=1, help="Neighbouring frames that intervals keep together, as in a video.")
    ] = 1,
    pictures: Annotated[int, typer.Option(min=0, help="Frames to show side by side, below --out.")] = 0,
) -> Result:
    """Segment frames clean, in bad weather and restored, and print the IoUs and how much of them is won back."""
    from mofme.vision.label_sets import find_labelled, load_label_set, video_of
    from mofme.vision.segmentation_eval import as_result, counted_classes, evaluate_segmentation, write_csv, write_views
    from mofme.vision.segmenter import load_segmenter

    if pictures and command.out is None:
        raise typer.BadParameter("--pictures needs --out, the folder they go to.")
    found = [frame for frame in find_labelled(frames, labels) if video in ("", video_of(frame))][:limit]
    if not found:
        raise TableError(f"{frames} has no frame of a video {video!r}: names begin with the video's, and _ behind it")
    meaning = load_label_set(label_set)
    weathers, restorer = weathered.weathers(), weathered.restorer()
    with _downloads_told():
        segment = load_segmenter(segmenter, segmenter_labels, normalisation, str(restorer.device))
    counted = counted_classes(segment, meaning)
    reports = []
    steps = evaluate_segmentation(segment, restorer, found, meaning, weathers, pictures)
    for report in command.track(steps, "frames", len(found)):
        if command.out is not None:
            write_views(command.out / "pictures", report)
        if report.error:
            command.fail(f"{report.name}: {without_name(report.error, report.name)}")
        reports.append(dataclasses.replace(report, views={}))
    held_out = video if video in segment.left_out else ""
    result = as_result(reports, meaning, counted, command.line, weathered.seeds, block, held_out)
    if command.out is not None:
        write_csv(command.out / f"{result.room}.csv", reports, meaning, counted)
    return result


@measures("classification.json and classification.csv")
def classification(
    command: Command,
    *,
    pictures: Annotated[
        Path,
        typer.Argument(
            help="Folder of clean photographs, labelled by subfolders named for ImageNet classes (281, n02123045).",
            exists=True,
            file_okay=False,
        ),
    ],
    classifier: Annotated[
        str, typer.Option(help="efficientnet-lite0 (works offline), or a classifier of torchvision by name.")
    ] = "efficientnet-lite0",
    weathered: Weathered,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first N photographs.")] = None,
) -> Result:
    """Classify photographs clean, in bad weather and restored, and print how far the answers agree."""
    from mofme.vision.classification_eval import as_result, categories, compare, find_photos, load_classifier, write_csv

    photos = find_photos(pictures)[:limit]
    weathers, restorer = weathered.weathers(), weathered.restorer()
    with _downloads_told():
        classify = load_classifier(classifier, str(restorer.device))
    compared = compare(classify, restorer, photos, weathers)
    trials = list(command.track(compared, "pictures", len(photos) * len(weathers)))
    for trial in trials:
        if trial.error:
            command.fail(f"{trial.name}, {trial.weather}: {without_name(trial.error, trial.name)}")
    result = as_result(trials, command.line, weathered.seeds)
    if command.out is not None:
        write_csv(command.out / "classification.csv", trials, categories())
    return result


def _downloads_told() -> redirect_stdout[TextIO]:
    """torch announces a download on standard output, where the JSON goes."""
    return redirect_stdout(sys.stderr)
