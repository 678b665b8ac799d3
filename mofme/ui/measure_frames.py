"""Labelled frames: what a segmenter sees clean, in synthesized weather, and restored."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import torch

from mofme.errors import MofmeError, PictureError
from mofme.ui.jobs import Engine, Job, without_folders
from mofme.ui.limits import Limits
from mofme.ui.measuring import Case, Measuring, Watched, save_strip
from mofme.vision.evaluation.confusion import mean_iou
from mofme.vision.evaluation.label_sets import LabelSet, load_label_set
from mofme.vision.evaluation.labelled_frames import LabelledFrame, find_labelled
from mofme.vision.evaluation.segmentation import (
    STATES,
    FrameReport,
    counted_classes,
    evaluate_segmentation,
    write_csv,
)
from mofme.vision.evaluation.segmentation_result import as_result
from mofme.vision.evaluation.weathered import synthesized
from mofme.vision.picture.file import read_picture
from mofme.vision.segmenter import Segmenter, load_segmenter
from mofme.vision.weather import WEATHERS

_SEED = 0


def measure_frames(
    engine: Engine, job: Job, model: str | None, folder: Path, report_folder: Path, limits: Limits, label_set: str
) -> Iterator[Measuring]:
    """Measure the frames in `folder/images` by `folder/labels`; `report_folder` gets the CSV and a strip a frame."""
    frames = find_labelled(folder / "images", folder / "labels")
    state = Measuring(len(frames), "mIoU", "%")
    if state.total > limits.batch_pictures:
        raise MofmeError(f"{state.total} frames are more than the limit of {limits.batch_pictures}: upload fewer.")
    restorer, segmenter, labels = Watched(engine.restorer(model), job), load_segmenter(), load_label_set(label_set)
    counted = counted_classes(segmenter, labels)
    state.cases = {weather: [] for weather in WEATHERS}
    reports: list[FrameReport] = []
    yield state
    for frame in frames:
        with engine.turn:
            report = _evaluate(segmenter, restorer, frame, labels, limits.megapixels)
        job.check_cancelled()
        for weather, view in report.views.items():
            strip = report_folder / "pictures" / weather / f"{len(reports) + 1:03d}.jpg"
            save_strip(strip, [torch.cat([view.frames[name], view.maps[name]], dim=1) for name in STATES])
            before, after = (100 * mean_iou(matrix[weather], counted) for matrix in (report.degraded, report.restored))
            state.cases[weather].append(Case(f"{frame.name}, {weather}", before, after, strip))
        if report.error:
            state.errors[frame.name] = report.error
        reports.append(dataclasses.replace(report, views={}))
        state.done += 1
        yield state
    state.result = as_result(reports, labels, counted, f"tab Evaluate, model {model}", [_SEED])
    write_csv(report_folder / "segmentation.csv", reports, labels, counted)
    yield state


def _evaluate(
    segmenter: Segmenter, restorer: Watched, frame: LabelledFrame, labels: LabelSet, megapixels: float
) -> FrameReport:
    try:
        read_picture(frame.frame, megapixels)
    except PictureError as error:
        return FrameReport(frame.name, error=without_folders(str(error)))
    weathers = synthesized(WEATHERS, _SEED)
    (report,) = evaluate_segmentation(segmenter, restorer, [frame], labels, weathers, pictures=1)
    return dataclasses.replace(report, error=without_folders(report.error))
