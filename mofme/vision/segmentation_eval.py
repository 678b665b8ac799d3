"""Does a segmenter see in restored frames what it sees in clean ones?

A confusion matrix is (C, C + 1) int64: row the true class, column the predicted one, the last column for predictions
that are none of the classes. Matrices of several frames add up; they may carry leading axes.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from mofme.errors import MofmeError, PictureError
from mofme.files import write_table
from mofme.measure.result import Figure, Result, Row, this_machine
from mofme.measure.statistics import percentiles
from mofme.vision.datasets import Degrade
from mofme.vision.evaluation import Restores, to_8_bits
from mofme.vision.label_sets import IGNORE, LabelledFrame, LabelSet, read_labelled
from mofme.vision.picture.decode import Picture
from mofme.vision.picture.file import write_picture
from mofme.vision.segmenter import Segmenter

STATES = ("clean", "degraded", "restored")
TABLE = "mIoU, %"
ALL = "mean of the weathers"
WON_BACK = "loss won back, %"


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
    place, classes = segmenter.label_set.mapped_onto(label_set), len(label_set.classes)
    for frame in frames:
        try:
            clean, labels = read_labelled(frame, label_set)
            if not (labels != IGNORE).any():
                raise PictureError(f"{frame.labels}: not a pixel of it is of a class of {label_set.name}")
            clean_map = place[segmenter(clean)]
            degraded, restored, views = {}, {}, {}
            for weather, degrade in weathers.items():
                weathered = to_8_bits(degrade(clean, Path(frame.name).with_suffix("").as_posix()))
                shown = {"clean": clean, "degraded": weathered, "restored": to_8_bits(restorer(weathered).image)}
                maps = {"clean": clean_map, **{state: place[segmenter(shown[state])] for state in STATES[1:]}}
                degraded[weather], restored[weather] = (confusion(maps[one], labels, classes) for one in STATES[1:])
                if pictures > 0:
                    views[weather] = View(shown, {state: label_set.paint(map_) for state, map_ in maps.items()})
            pictures -= 1
            yield FrameReport(frame.name, confusion(clean_map, labels, classes), degraded, restored, views)
        except (MofmeError, ValueError) as error:
            yield FrameReport(frame.name, error=str(error))


def counted_classes(segmenter: Segmenter, label_set: LabelSet) -> Tensor:
    """Which classes of `label_set` the segmenter can answer with, (C,) bool: the mean is over these."""
    counted = torch.zeros(len(label_set.classes) + 1, dtype=torch.bool)
    counted[segmenter.label_set.mapped_onto(label_set)] = True
    return counted[:-1]


def write_csv(path: Path, reports: Sequence[FrameReport], label_set: LabelSet, counted: Tensor) -> None:
    """One row a frame and weather: mIoU and each class's IoU in the three states; empty for a class without pixels."""
    names = ["mIoU", *label_set.classes]
    lines = [["frame", "weather", *(f"{state} {name}" for name in names for state in STATES), "error"]]
    for report in reports:
        if report.clean is None:
            lines.append([report.name, "", *[""] * (len(names) * len(STATES)), report.error])
            continue
        for weather, degraded in report.degraded.items():
            matrices = torch.stack([report.clean, degraded, report.restored[weather]])
            columns = torch.cat([mean_ious(matrices, counted)[:, None], iou(matrices)], dim=1)
            cells = ["" if value != value else f"{value:.6g}" for value in columns.T.flatten().tolist()]
            lines.append([report.name, weather, *cells, ""])
    write_table(path, lines)


def write_views(folder: Path, report: FrameReport) -> None:
    """A picture `NAME_WEATHER.png` for each view."""
    for weather, view in report.views.items():
        path = folder / f"{Path(report.name).with_suffix('')}_{weather}.png"
        write_picture(path, view.sheet(), Picture(view.sheet()), "png")


def confusion(predicted: Tensor, labels: Tensor, classes: int) -> Tensor:
    """Of one frame: `predicted` (H, W) in 0..classes, where `classes` means none; `labels` (H, W), with IGNORE."""
    judged = labels != IGNORE
    cells = labels[judged].long() * (classes + 1) + predicted[judged].long()
    return torch.bincount(cells, minlength=classes * (classes + 1)).view(classes, classes + 1)


def iou(matrix: Tensor) -> Tensor:
    """Intersection over union (..., C) of each class; NaN for one that is neither there nor predicted."""
    matrix = matrix.double()
    hits = matrix[..., :-1].diagonal(dim1=-2, dim2=-1)
    return hits / (matrix.sum(dim=-1) + matrix[..., :-1].sum(dim=-2) - hits)


def mean_iou(matrix: Tensor, counted: Tensor | None = None) -> float:
    """Mean over the classes that occur in the labels (of `counted` (C,) bool, if given); NaN if none does."""
    return mean_ious(matrix[None], counted).item()


def mean_ious(matrices: Tensor, counted: Tensor | None = None) -> Tensor:
    """`mean_iou` of each of (..., C, C + 1) matrices."""
    occurs = matrices.sum(dim=-1) > 0
    if counted is not None:
        occurs = occurs & counted
    return iou(matrices).where(occurs, torch.nan).nanmean(dim=-1)


def as_result(
    reports: Sequence[FrameReport],
    label_set: LabelSet,
    counted: Tensor,
    command: str,
    seeds: Sequence[int] = (),
    block: int = 1,
    held_out: str = "",
) -> Result:
    """The measurement in the schema of all rooms, in one of its own for a video that is `held_out` of the segmenter's
    training.

    The matrices of all frames are added up before an IoU is computed, as is usual. `counted` (C,) bool are the classes
    to judge; intervals are 95 %, over frames drawn anew, `block` neighbours at a time, for those of a video hardly
    differ. What is won back is (restored - degraded) / (clean - degraded), in weathers that cost something beyond
    chance. Raises MofmeError if no frame could be measured, or if the labels show none of these classes.
    """
    measured = [(report.clean, report) for report in reports if report.clean is not None]
    if not measured:
        raise MofmeError(f"no frame could be measured: {'; '.join(report.error for report in reports[:3])}")
    if not any(clean.sum(dim=-1)[counted].any() for clean, _ in measured):
        raise MofmeError("the labels show no class that the segmenter knows: choose another segmenter, or label set")
    rows, classes, shares, gains = [], [], [], {}
    for weather in measured[0][1].degraded:
        states = [torch.stack([clean, one.degraded[weather], one.restored[weather]]) for clean, one in measured]
        matrices = torch.stack(states).double()
        drawn = _drawn_mious(matrices, counted, block).unbind(dim=1)
        clean, degraded, restored = drawn
        figures = {state: _figure(values).percent() for state, values in zip(STATES, drawn, strict=True)}
        gains[weather] = _figure(restored - degraded)
        cost = _figure(clean - degraded)
        if (cost.value if cost.low is None else cost.low) > 0:
            shares.append((restored - degraded) / (clean - degraded))
            figures[WON_BACK] = _figure(shares[-1]).percent()
        rows.append(Row(TABLE, weather, figures))
        for name, known, ious in zip(label_set.classes, counted, iou(matrices.sum(dim=0)).T.tolist(), strict=True):
            if known and not any(map(math.isnan, ious)):
                percent = {state: Figure(100 * value) for state, value in zip(STATES, ious, strict=True)}
                classes.append(Row(f"IoU of the classes, %: {weather}", name, percent))
    won = {row.name: row.figures.get(WON_BACK) for row in rows}
    mean = _figure(torch.stack(shares).mean(dim=0)).percent() if shares else None
    if mean is not None and len(rows) > 1:
        rows.append(Row(TABLE, ALL, {WON_BACK: mean}))
    counts = {"frames": Figure(len(measured)), "failed": Figure(len(reports) - len(measured))}
    told = _verdict(won, gains, mean, len(measured))
    return Result(
        room="segmentation_held_out" if held_out else "segmentation",
        paper="MoFME, arXiv 2312.16610",
        claim="Restored pictures serve downstream segmentation in bad weather.",
        verdict=told + f" The segmenter saw nothing of their video, {held_out}." * bool(held_out),
        command=command,
        rows=[*rows, *classes, Row("Frames", "measured", counts)],
        seeds=seeds,
        interval="95 % bootstrap over the frames" if block == 1 else f"95 % bootstrap over blocks of {block} frames",
        machine=this_machine(torch.get_num_threads()),
    )


def _verdict(won: Mapping[str, Figure | None], gains: Mapping[str, Figure], mean: Figure | None, frames: int) -> str:
    if mean is None:
        return f"On {frames} frames the weather costs the segmenter nothing beyond chance."
    shares = ", ".join(f"{name} {share.text()} %" if share else f"{name} costs nothing" for name, share in won.items())
    beside = "; ".join(
        f"{words} the degraded frames in {', '.join(at)}"
        for words, side in (("below", -1), ("neither for sure above nor below", 0))
        if (at := [weather for weather, gain in gains.items() if gain.side() == side])
    )
    return (
        f"Restoring wins back {mean.text()} % of the mIoU that weather costs, "
        f"{beside or 'never below the degraded frames'} ({shares}; {frames} frames)."
    )


def _drawn_mious(matrices: Tensor, counted: Tensor, block: int) -> Tensor:
    """mIoU of matrices (N, 3, C, C + 1) added up: of all frames first, then of blocks drawn anew, (1 + draws, 3).

    Of one block there is nothing to draw.
    """
    owner_N = torch.arange(len(matrices)) // block
    count = int(owner_N[-1]) + 1
    generator = torch.Generator().manual_seed(0)  # the same frames for every weather
    drawn = torch.randint(count, (2000 if count > 1 else 0, count), generator=generator)
    chosen = torch.zeros(len(drawn), count).scatter_add_(1, drawn, torch.ones(drawn.shape))
    times = torch.cat([torch.ones(1, count), chosen])[:, owner_N].double()
    # Some at a time, so that sets of many classes fit into memory.
    return torch.cat([mean_ious(torch.tensordot(some, matrices, dims=1), counted) for some in times.split(100)])


def _figure(values: Tensor) -> Figure:
    """The first value, and the interval of the others, if any; a share of nothing is left out."""
    value, drawn_B = values[0].item(), values[1:].numpy()
    return Figure(value, *percentiles(drawn_B)) if len(drawn_B) else Figure(value)
