"""Tab Evaluate: pairs of pictures, or labelled frames, in; figures, plots and a report out; and what we measured."""

import dataclasses
import html
import math
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

import gradio as gr
import torch
from torch import Tensor

from mofme.errors import PictureError
from mofme.files import printable, without_name
from mofme.measure.result import Result, save_result
from mofme.ui.chart import bar_plot, scatter_plot
from mofme.ui.figures import gallery, save_picture, thumbnail
from mofme.ui.html import measured_box, result_tables
from mofme.ui.limits import Limits
from mofme.ui.models import Engine, Services
from mofme.ui.runs import Job
from mofme.ui.tabs.batch import gather
from mofme.ui.tabs.restore import model_box
from mofme.ui.uploads import download_button, file_box, folder_in_work, to_download, without_folders
from mofme.ui.work import Endpoint, start_and_cancel, status_box, work
from mofme.vision import evaluation, segmentation_eval
from mofme.vision.archive import extract, pack
from mofme.vision.datasets import find_sets, synthesized
from mofme.vision.label_sets import LabelledFrame, LabelSet, available_label_sets, find_labelled, load_label_set
from mofme.vision.picture.file import READABLE_SUFFIXES, read_picture
from mofme.vision.restorer import Restoration, Restorer
from mofme.vision.segmentation_eval import mean_iou
from mofme.vision.segmenter import Segmenter, load_segmenter
from mofme.vision.weather import WEATHERS

# Rooms whose shipped results this tab shows, by how their names start.
MEASURED = ("ablation", "bench", "classification", "cluster", "restor", "runtimes", "segmentation", "service")
SHOWN = 3  # worst pictures, and best ones
_STRIP_SIDE = 400
_SEED = 0


@dataclass(frozen=True)
class Case:
    """One picture: a score before and after restoring, and the strip of pictures that shows it."""

    name: str
    before: float
    after: float
    strip: Path


@dataclass
class Measuring:
    """`cases` by set, each a `score` in `unit`, and `errors` by name so far; at the end the result and the report."""

    total: int
    score: str
    unit: str
    cases: dict[str, list[Case]] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)
    done: int = 0
    result: Result | None = None
    archive: Path | None = None

    def plots(self) -> list[str]:
        """Means of each set, and every picture, as SVG."""
        means = {
            name: (fmean(case.before for case in cases), fmean(case.after for case in cases))
            for name, cases in self.cases.items()
            if cases
        }
        dots = {name: [(case.name, case.before, case.after) for case in self.cases[name]] for name in means}
        title = f"{self.score}, {self.unit}"
        return [bar_plot(f"Mean {title}", means), scatter_plot(f"{title}, every picture", dots)]

    def worst(self) -> list[tuple[str, str]]:
        """Strips and captions of the pictures that lost most, or gained least."""
        ranked = self._ranked()
        return ranked[: min(SHOWN, (len(ranked) + 1) // 2)]

    def best(self) -> list[tuple[str, str]]:
        """Strips and captions of the pictures that gained most, other than the worst."""
        ranked = self._ranked()
        return ranked[: -SHOWN - 1 : -1][: len(ranked) // 2]

    def _ranked(self) -> list[tuple[str, str]]:
        cases = [case for some in self.cases.values() for case in some]
        cases.sort(key=lambda case: case.after - case.before)
        return [(str(case.strip), f"{case.name} · {case.after - case.before:+.1f} {self.unit}") for case in cases]


class Watched:
    """A restorer that can be stopped, and remembers what it restored last."""

    def __init__(self, restorer: Restorer, job: Job) -> None:
        self._restorer, self._job = restorer, job
        self.last = torch.empty(0)

    def __call__(self, image: Tensor, /) -> Restoration:
        self._job.check()
        restored = self._restorer(image, on_progress=lambda _: self._job.check())
        self.last = restored.image
        return restored


def save_strip(path: Path, pictures: Sequence[Tensor]) -> None:
    """Write pictures (3, H, W) of equal size side by side, small."""
    path.parent.mkdir(parents=True, exist_ok=True)
    save_picture(torch.cat([thumbnail(picture, _STRIP_SIDE) for picture in pictures], dim=2), path)


def measure(
    engine: Engine,
    job: Job,
    degraded: Sequence[Path],
    clean: Sequence[Path],
    model: str | None,
    label_set: str,
    limits: Limits,
) -> Iterator[Measuring]:
    """Measure what was uploaded, yielding after each picture; what cannot be measured, or not in time, is reported.

    `degraded` is one ZIP, with `input/` and `target/` or with `images/` and `labels/`; or pictures, whose clean
    versions by name are in `clean`. Raises MofmeError for nothing to measure or too much, Cancelled if stopped.
    """
    with folder_in_work() as folder:
        source, report = folder / "source", folder / "report"
        report.mkdir()
        try:
            root, refused = _unpack(degraded, clean, source)
            if (root / "images").is_dir() and (root / "labels").is_dir():
                steps = measure_frames(engine, job, model, root, report, limits, label_set)
            else:
                steps = measure_pairs(engine, job, model, root, report, limits)
            for state in steps:
                state.errors |= refused
                if state.result is not None:
                    for number, plot in enumerate(state.plots(), 1):
                        (report / f"plot-{number}.svg").write_text(plot, encoding="utf-8")
                    save_result(state.result, report)
                    pack(report, folder / "evaluation.zip")
                    state.archive = folder / "evaluation.zip"
                yield state
        finally:
            shutil.rmtree(source, ignore_errors=True)


def _unpack(degraded: Sequence[Path], clean: Sequence[Path], folder: Path) -> tuple[Path, dict[str, str]]:
    """The folder that holds the pairs or the labelled frames, and what cannot be used."""
    archives = [path for path in degraded if path.suffix.lower() == ".zip"]
    if archives and not clean and len(degraded) == 1:
        root = folder / archives[0].stem
        extract(archives[0], root)
        while len(inner := list(root.iterdir())) == 1 and inner[0].is_dir() and inner[0].name != "input":
            root = inner[0]  # many archives hold one folder that holds everything
        return root, {}
    if archives or not degraded or not clean:
        raise PictureError(
            "Choose the pictures in bad weather and their clean versions, or one ZIP with input/ and target/, "
            "or with images/ and labels/."
        )
    refused = [
        *gather(degraded, folder / "pairs" / "input", READABLE_SUFFIXES),
        *gather(clean, folder / "pairs" / "target", READABLE_SUFFIXES),
    ]
    return folder / "pairs", {report.file: report.error or report.note for report in refused}


def measure_pairs(
    engine: Engine, job: Job, model: str | None, folder: Path, report_folder: Path, limits: Limits
) -> Iterator[Measuring]:
    """Measure the sets of pairs in `folder`; `report_folder` gets the CSV and a strip a picture."""
    sets = find_sets(folder)
    state = Measuring(sum(map(len, sets.values())), "PSNR", "dB")
    limits.check_batch(state.total, "pairs")
    restorer = Watched(engine.restorer(model), job)
    reports: dict[str, list[evaluation.PairReport]] = {}
    yield state
    for name, pairs in sets.items():
        state.cases[name], reports[name] = [], []
        measured = evaluation.evaluate(restorer, pairs, max_megapixels=limits.megapixels)
        for pair in pairs:
            with engine.turn(job.check_cancelled):
                report = next(measured)
            job.check_cancelled()
            report = dataclasses.replace(report, error=without_folders(report.error))
            reports[name].append(report)
            if report.error:
                state.errors[pair.name] = report.error
            else:
                strip = report_folder / "pictures" / name / f"{len(reports[name]):03d}.jpg"
                # What was just measured kept to the limit already.
                first, truth = (read_picture(path, math.inf).rgb for path in (pair.input, pair.target or pair.input))
                save_strip(strip, [first, restorer.last, truth])
                before, after = (scores.psnr_rgb if scores else 0.0 for scores in (report.input, report.restored))
                title = f"{name}: {pair.name}" if len(sets) > 1 else pair.name
                state.cases[name].append(Case(title, before, after, strip))
            state.done += 1
            yield state
    state.result = evaluation.as_result(reports, f"tab Evaluate, model {model}")
    evaluation.write_csv(report_folder / "restoration.csv", reports)
    yield state


def measure_frames(
    engine: Engine, job: Job, model: str | None, folder: Path, report_folder: Path, limits: Limits, label_set: str
) -> Iterator[Measuring]:
    """Measure the frames in `folder/images` by `folder/labels`; `report_folder` gets the CSV and a strip a frame."""
    frames = find_labelled(folder / "images", folder / "labels")
    state = Measuring(len(frames), "mIoU", "%")
    limits.check_batch(state.total, "frames")
    restorer, segmenter, labels = Watched(engine.restorer(model), job), load_segmenter(), load_label_set(label_set)
    counted = segmentation_eval.counted_classes(segmenter, labels)
    state.cases = {weather: [] for weather in WEATHERS}
    reports: list[segmentation_eval.FrameReport] = []
    yield state
    for frame in frames:
        with engine.turn(job.check_cancelled):
            report = _evaluate(segmenter, restorer, frame, labels, limits.megapixels)
        job.check_cancelled()
        for weather, view in report.views.items():
            strip = report_folder / "pictures" / weather / f"{len(reports) + 1:03d}.jpg"
            save_strip(
                strip, [torch.cat([view.frames[name], view.maps[name]], dim=1) for name in segmentation_eval.STATES]
            )
            before, after = (100 * mean_iou(matrix[weather], counted) for matrix in (report.degraded, report.restored))
            if not math.isnan(before + after):  # of a frame without a class that the segmenter knows
                state.cases[weather].append(Case(f"{frame.name}, {weather}", before, after, strip))
        if report.error:
            state.errors[frame.name] = report.error
        reports.append(dataclasses.replace(report, views={}))
        state.done += 1
        yield state
    state.result = segmentation_eval.as_result(reports, labels, counted, f"tab Evaluate, model {model}", [_SEED])
    segmentation_eval.write_csv(report_folder / "segmentation.csv", reports, labels, counted)
    yield state


def _evaluate(
    segmenter: Segmenter, restorer: Watched, frame: LabelledFrame, labels: LabelSet, megapixels: float
) -> segmentation_eval.FrameReport:
    try:
        read_picture(frame.frame, megapixels)
    except PictureError as error:
        return segmentation_eval.FrameReport(frame.name, error=without_folders(str(error)))
    weathers = synthesized(WEATHERS, _SEED)
    (report,) = segmentation_eval.evaluate_segmentation(segmenter, restorer, [frame], labels, weathers, pictures=1)
    return dataclasses.replace(report, error=without_folders(report.error))


def build(services: Services) -> None:
    """Draw the tab and connect it."""
    limits = services.limits
    with gr.Row():
        with gr.Column(scale=4, min_width=320):
            degraded = file_box(
                file_count="multiple", label="Pictures in bad weather, or one ZIP", height=150, elem_id="degraded"
            )
            clean = file_box(file_count="multiple", label="The same pictures, clean", height=150, elem_id="clean")
            gr.Markdown(
                "Pictures are matched by name. A ZIP holds `input/` and `target/`; or, to see what restoring does for "
                f"segmentation, `images/` and `labels/`. Up to {limits.batch_pictures} pictures of "
                f"{limits.megapixels:g} megapixels.",
                elem_classes="note",
            )
            buttons = start_and_cancel("Measure", "measure")
            with gr.Accordion("Options", open=False):
                model = model_box(services.engine.models)
                label_set = gr.Dropdown(
                    available_label_sets(), value="camvid", label="Label set", info="What the labels mean."
                )
        with gr.Column(scale=6, min_width=320):
            status = status_box("How much closer to the truth the restored pictures come appears here.")
            archive = download_button("Download the report", "evaluation")
            plots = gr.HTML(padding=False, elem_classes="plots")
            tables = gr.HTML(padding=False)
            worst_title = gr.Markdown("## Worst pictures: before, after, truth", visible=False)
            worst = gallery("strips", 1, object_fit="contain", elem_id="worst")
            best_title = gr.Markdown("## Best pictures: before, after, truth", visible=False)
            best = gallery("strips", 1, object_fit="contain", elem_id="best")
    measured_box(*MEASURED, elem_id="measured")

    def measure_uploads(
        job: Job, degraded: list[str] | None, clean: list[str] | None, model: str | None, label_set: str
    ) -> Iterator[Measuring]:
        first, second = ([Path(path) for path in paths or ()] for paths in (degraded, clean))
        yield from measure(services.engine, job, first, second, model, label_set, limits)

    work(
        measure_uploads,
        [degraded, clean, model, label_set],
        {
            status: _words,
            archive: lambda state: to_download(state.archive),
            plots: lambda state: "".join(state.plots()) if state.result else "",
            tables: lambda state: result_tables(state.result) if state.result else "",
            worst_title: lambda state: gr.Markdown(visible=state.result is not None),
            worst: lambda state: state.worst() if state.result else [],
            best_title: lambda state: gr.Markdown(visible=bool(state.result and state.best())),
            best: lambda state: state.best() if state.result else [],
        },
        buttons,
        status,
        limits.batch_seconds,
        Endpoint(
            "evaluate",
            "Measure pairs, loose or zipped, or labelled frames in a ZIP. Returns a report and the result.",
            {"report": gr.File, "result": gr.JSON},
            _for_programs,
            streams=True,
        ),
    )


def _words(state: Measuring) -> str:
    """How far it is, what came of it, and what could not be measured (HTML)."""
    words = f"{'Done' if state.result else 'Working'}: {state.done} of {state.total} pictures"
    told = (f"{printable(name)}: {without_name(error, name)}" for name, error in state.errors.items())
    failed = "".join(f"<li>{html.escape(line)}</li>" for line in told)
    verdict = f"<p><b>{html.escape(state.result.verdict)}</b></p>" if state.result else ""
    problems = f"<p>Could not be measured:</p><ul class='problem'>{failed}</ul>" if failed else ""
    return f"<p>{words}</p><progress value='{state.done}' max='{state.total}'></progress>{verdict}{problems}"


def _for_programs(state: Measuring) -> tuple[str | None, dict[str, Any]]:
    result = asdict(state.result) if state.result else {}
    return str(state.archive) if state.archive else None, {"result": result, "errors": state.errors}
