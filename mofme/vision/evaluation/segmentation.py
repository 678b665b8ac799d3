"""Does a segmenter see in restored frames what it sees in clean ones?

For whoever shows it, frame by frame:

    frames = find_labelled(folder_of_frames, folder_of_labels)
    reports = []
    segmenter, label_set = load_segmenter(), load_label_set("camvid")
    weathers = synthesized(WEATHERS, seed)      # weathered.py; or taken_from(folder)
    for report in evaluate_segmentation(segmenter, restorer, frames, label_set, weathers, pictures=3):
        reports.append(report)      # progress: len(reports) of len(frames); report.error; report.views to look at
    counted = counted_classes(segmenter, label_set)
    result = as_result(reports, label_set, counted, command)        # segmentation_result.py: tables and verdict

The iterator works as it is read: to stop, stop reading.
"""

import csv
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from mofme.errors import MofmeError, PictureError
from mofme.files import atomic_file
from mofme.vision.evaluation.confusion import confusion, iou, mean_iou
from mofme.vision.evaluation.label_sets import IGNORE, LabelSet
from mofme.vision.evaluation.labelled_frames import LabelledFrame, read_labelled
from mofme.vision.evaluation.restoration import Restores, to_8_bits
from mofme.vision.evaluation.weathered import Degrade
from mofme.vision.picture.decode import Picture
from mofme.vision.picture.file import write_picture
from mofme.vision.segmenter import Segmenter

STATES = ("clean", "degraded", "restored")


@dataclass(frozen=True, eq=False)
class View:
    """A frame in one weather, by state: the pictures (3, H, W) in [0, 1], and what the segmenter saw, painted."""

    frames: Mapping[str, Tensor]
    maps: Mapping[str, Tensor]

    def sheet(self) -> Tensor:
        """Frames above maps, clean, degraded and restored from left to right: (3, 2H, 3W)."""
        rows = (torch.cat([row[state] for state in STATES], dim=2) for row in (self.frames, self.maps))
        return torch.cat(list(rows), dim=1)


@dataclass(frozen=True, eq=False)
class FrameReport:
    """One frame: confusion matrices (C, C + 1) against its labels, clean and by weather; or why there are none."""

    name: str
    clean: Tensor | None = None
    degraded: Mapping[str, Tensor] = field(default_factory=dict)
    restored: Mapping[str, Tensor] = field(default_factory=dict)
    views: Mapping[str, View] = field(default_factory=dict)
    error: str = ""


def evaluate_segmentation(
    segmenter: Segmenter,
    restorer: Restores,
    frames: Iterable[LabelledFrame],
    label_set: LabelSet,
    weathers: Mapping[str, Degrade],
    pictures: int = 0,
) -> Iterator[FrameReport]:
    """Segment each frame clean, in every weather, and restored. A frame that cannot be used is reported with its error.

    `label_set` is that of the labels, onto which the segmenter's classes are mapped. The first `pictures` frames that
    can be used carry views. Raises MofmeError if no class can be mapped.
    """
    place = segmenter.label_set.mapped_onto(label_set)
    shown = 0
    for frame in frames:
        try:
            report = _evaluate_frame(segmenter, place, restorer, frame, label_set, weathers, shown < pictures)
            shown += 1
            yield report
        except (MofmeError, ValueError) as error:
            yield FrameReport(frame.name, error=str(error))


def counted_classes(segmenter: Segmenter, label_set: LabelSet) -> Tensor:
    """Which classes of `label_set` the segmenter can answer with, (C,) bool: the mean is over these."""
    counted = torch.zeros(len(label_set.classes) + 1, dtype=torch.bool)
    counted[segmenter.label_set.mapped_onto(label_set)] = True
    return counted[:-1]


def write_csv(path: Path, reports: Sequence[FrameReport], label_set: LabelSet, counted: Tensor) -> None:
    """One row a frame and weather: mIoU and each class's IoU in the three states; empty for a class without pixels."""
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    names = ["mIoU", *label_set.classes]
    writer.writerow(["frame", "weather", *(f"{state} {name}" for name in names for state in STATES), "error"])
    for report in reports:
        if report.clean is None:
            writer.writerow([report.name, "", *[""] * (len(names) * len(STATES)), report.error])
        for weather, degraded in report.degraded.items():
            matrices = [matrix for matrix in (report.clean, degraded, report.restored[weather]) if matrix is not None]
            columns = [torch.cat([torch.tensor([mean_iou(matrix, counted)]), iou(matrix)]) for matrix in matrices]
            cells = [
                "" if value != value else f"{value:.6g}" for value in torch.stack(columns, dim=1).flatten().tolist()
            ]
            writer.writerow([report.name, weather, *cells, ""])
    with atomic_file(path, "w", errors="backslashreplace") as file:  # a name on disk may be any bytes
        file.write(text.getvalue())


def write_views(folder: Path, report: FrameReport) -> None:
    """A picture `NAME_WEATHER.png` for each view."""
    for weather, view in report.views.items():
        path = folder / f"{Path(report.name).with_suffix('')}_{weather}.png"
        write_picture(path, view.sheet(), Picture(view.sheet()), "png")


def _evaluate_frame(
    segmenter: Segmenter,
    place: Tensor,
    restorer: Restores,
    frame: LabelledFrame,
    label_set: LabelSet,
    weathers: Mapping[str, Degrade],
    with_views: bool,
) -> FrameReport:
    clean, labels = read_labelled(frame, label_set)
    if not (labels != IGNORE).any():
        raise PictureError(f"{frame.labels}: not a pixel of it is of a class of {label_set.name}")
    classes = len(label_set.classes)
    clean_map = place[segmenter(clean)]
    degraded, restored, views = {}, {}, {}
    for weather, degrade in weathers.items():
        weathered = to_8_bits(degrade(clean, Path(frame.name).with_suffix("").as_posix()))
        frames = {"clean": clean, "degraded": weathered, "restored": to_8_bits(restorer(weathered).image)}
        maps = {"clean": clean_map, **{state: place[segmenter(frames[state])] for state in STATES[1:]}}
        degraded[weather] = confusion(maps["degraded"], labels, classes)
        restored[weather] = confusion(maps["restored"], labels, classes)
        if with_views:
            painted = {state: label_set.paint(map_) for state, map_ in maps.items()}
            views[weather] = View(frames, painted)
    return FrameReport(frame.name, confusion(clean_map, labels, classes), degraded, restored, views)
