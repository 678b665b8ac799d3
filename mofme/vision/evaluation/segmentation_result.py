"""What the frames of a segmentation measurement come to: mIoU in each state, and the share of its loss won back."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mofme.errors import MofmeError
from mofme.measure.result import Figure, Result, Row, this_machine
from mofme.measure.statistics import percentiles
from mofme.vision.evaluation.confusion import iou, mean_ious
from mofme.vision.evaluation.label_sets import LabelSet
from mofme.vision.evaluation.segmentation import STATES, FrameReport

TABLE = "mIoU, %"
ALL = "mean of the weathers"
WON_BACK = "loss won back, %"
_RESAMPLES = 2000
_AT_A_TIME = 100  # so that sets of many classes fit into memory


@dataclass(frozen=True, eq=False)
class Summary:
    """One weather: mIoU by state, shares of 1 with intervals, and `iou` (C,) by state, NaN for a class without pixels.

    The matrices of all frames are added up before an IoU is computed, as is usual. `won_back` is
    (restored - degraded) / (clean - degraded); None where the weather costs nothing beyond chance.
    """

    miou: Mapping[str, Figure]
    gain: Figure
    won_back: Figure | None
    iou: Mapping[str, Tensor]


def summarize(reports: Sequence[FrameReport], counted: Tensor) -> tuple[dict[str, Summary], Figure | None]:
    """The weathers' summaries, and the mean share won back over those weathers that cost something.

    `counted` (C,) bool are the classes to judge; intervals are 95 %, over frames drawn anew. Raises MofmeError if no
    frame could be measured, or if the labels show none of these classes.
    """
    measured = [report for report in reports if report.clean is not None]
    if not measured:
        raise MofmeError(f"no frame could be measured: {'; '.join(report.error for report in reports[:3])}")
    if not any((report.clean.sum(dim=-1) > 0)[counted].any() for report in measured if report.clean is not None):
        raise MofmeError("the labels show no class that the segmenter knows: choose another segmenter, or label set")
    summaries, shares = {}, []
    for weather in measured[0].degraded:
        states = [(report.clean, report.degraded[weather], report.restored[weather]) for report in measured]
        matrices = torch.stack([torch.stack([m for m in frame if m is not None]) for frame in states]).double()
        drawn = _drawn_mious(matrices, counted)
        clean, degraded, restored = drawn.unbind(dim=1)
        share = (restored - degraded) / (clean - degraded)
        cost = _figure(clean - degraded)
        costs = (cost.value if cost.low is None else cost.low) > 0
        shares += [share] * costs
        summaries[weather] = Summary(
            miou={state: _figure(values) for state, values in zip(STATES, drawn.unbind(dim=1), strict=True)},
            gain=_figure(restored - degraded),
            won_back=_figure(share) if costs else None,
            iou=dict(zip(STATES, iou(matrices.sum(dim=0)).unbind(), strict=True)),
        )
    return summaries, _figure(torch.stack(shares).mean(dim=0)) if shares else None


def as_result(
    reports: Sequence[FrameReport], label_set: LabelSet, counted: Tensor, command: str, seeds: Sequence[int] = ()
) -> Result:
    """The measurement in the schema of all rooms. Raises MofmeError if no frame could be measured."""
    summaries, mean = summarize(reports, counted)
    rows = []
    for weather, summary in summaries.items():
        figures = {state: summary.miou[state].percent() for state in STATES}
        if summary.won_back is not None:
            figures[WON_BACK] = summary.won_back.percent()
        rows.append(Row(TABLE, weather, figures))
    if mean is not None and len(summaries) > 1:
        rows.append(Row(TABLE, ALL, {WON_BACK: mean.percent()}))
    for weather, summary in summaries.items():
        for index, name in enumerate(label_set.classes):
            values = {state: summary.iou[state][index].item() for state in STATES}
            if counted[index] and all(value == value for value in values.values()):
                figures = {state: Figure(100 * value) for state, value in values.items()}
                rows.append(Row(f"IoU of the classes, %: {weather}", name, figures))
    frames = sum(report.clean is not None for report in reports)
    rows.append(Row("Frames", "measured", {"frames": Figure(frames), "failed": Figure(len(reports) - frames)}))
    return Result(
        room="segmentation",
        paper="MoFME, arXiv 2312.16610",
        claim="Restored pictures serve downstream segmentation in bad weather.",
        verdict=_verdict(summaries, mean, frames),
        command=command,
        rows=rows,
        seeds=seeds,
        interval="95 % bootstrap over the frames",
        machine=this_machine(torch.get_num_threads()),
    )


def _verdict(summaries: Mapping[str, Summary], mean: Figure | None, frames: int) -> str:
    if mean is None:
        return f"On {frames} frames the weather costs the segmenter nothing beyond chance."
    shares = ", ".join(
        f"{weather} {summary.won_back.percent().text()} %" if summary.won_back else f"{weather} costs nothing"
        for weather, summary in summaries.items()
    )
    worse = [weather for weather, summary in summaries.items() if summary.gain.value < 0]
    below = f"below the degraded frames in {', '.join(worse)}" if worse else "never below the degraded frames"
    return (
        f"Restoring wins back {mean.percent().text()} % of the mIoU that weather costs, {below} "
        f"({shares}; {frames} frames)."
    )


def _drawn_mious(matrices: Tensor, counted: Tensor) -> Tensor:
    """mIoU of matrices (N, 3, C, C + 1) added up: of all frames first, then of frames drawn anew, (1 + draws, 3).

    Of one frame there is nothing to draw.
    """
    count = len(matrices)
    generator = torch.Generator().manual_seed(0)  # the same frames for every weather
    drawn = torch.randint(count, (_RESAMPLES if count > 1 else 0, count), generator=generator)
    times = torch.cat(
        [torch.ones(1, count), torch.zeros(len(drawn), count).scatter_add_(1, drawn, torch.ones(drawn.shape))]
    )
    return torch.cat(
        [
            mean_ious(torch.tensordot(some.double(), matrices, dims=1).flatten(0, 1), counted).unflatten(
                0, (-1, len(STATES))
            )
            for some in times.split(_AT_A_TIME)
        ]
    )


def _figure(values: Tensor) -> Figure:
    """The first value, and the interval of the others, if any; a share of nothing is left out."""
    value, drawn_B = values[0].item(), values[1:].numpy()
    return Figure(value, *percentiles(drawn_B)) if len(drawn_B) else Figure(value)
