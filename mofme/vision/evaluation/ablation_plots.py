"""Three plots of the ablation, as PNG. Nothing is in them that is not in the tables."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas

from mofme.files import atomic_file
from mofme.measure.result import Figure, Row
from mofme.vision.benchmark import Cost
from mofme.vision.benchmark_result import TITLES
from mofme.vision.evaluation.ablation_result import MEAN, METRICS
from mofme.vision.evaluation.uncertainty import ErrorMaps, calibration, sparsification


def plot_quality(quality: Sequence[Row], differences: Sequence[Row], path: Path) -> None:
    """Mean PSNR of every arm, and what one gains over another, with the intervals over the seeds."""
    canvas = Canvas(figsize=(11, 4.2), layout="constrained")
    left, right = canvas.subplots(1, 2, width_ratios=(2, 3))
    arms = [row for row in quality if row.table == METRICS["psnr_rgb"]]
    _intervals(left, [row.name for row in arms], [row.figures[MEAN] for row in arms])
    left.set(xlabel="PSNR, dB, mean of the four weathers")
    _intervals(right, [row.name for row in differences], [row.figures["gain, dB (seeds)"] for row in differences])
    right.axvline(0, color="0.6", linewidth=1)
    right.set(xlabel="difference of PSNR, dB")
    _save(canvas, path)


def plot_cost(costs: Sequence[Cost], path: Path) -> None:
    """Parameters and time against the number of experts."""
    canvas = Canvas(figsize=(9, 3.6), layout="constrained")
    left, right = canvas.subplots(1, 2)
    dense, *others = costs
    for kind in dict.fromkeys(cost.arm.feed_forward for cost in others):
        line = [cost for cost in others if cost.arm.feed_forward == kind]
        experts = [cost.arm.num_experts for cost in line]
        left.plot(experts, [cost.parameters / 1e6 for cost in line], "o-", label=TITLES[kind])
        right.plot(experts, [cost.ratio_to(dense) for cost in line], "o-", label=TITLES[kind])
    left.axhline(dense.parameters / 1e6, color="0.6", linestyle=":", label=TITLES["dense"])
    right.axhline(1, color="0.6", linestyle=":", label=TITLES["dense"])
    left.set(yscale="log", ylabel="parameters, million")
    right.set(yscale="log", ylabel="time against dense")
    for axes in (left, right):
        axes.set(xscale="log", xlabel="experts")
        axes.set_xticks(sorted({cost.arm.num_experts for cost in others}), minor=False)
        axes.xaxis.set_major_formatter("{x:.0f}")
        axes.minorticks_off()
    right.legend(fontsize="small")
    _save(canvas, path)


def plot_calibration(maps: Mapping[str, Sequence[Sequence[ErrorMaps]]], path: Path) -> None:
    """Error in the tenths of rising uncertainty; and the error left as the most uncertain parts are taken away."""
    canvas = Canvas(figsize=(9, 3.6), layout="constrained")
    left, right = canvas.subplots(1, 2)
    for name, weathers in maps.items():
        pictures = [one for pictures in weathers for one in pictures]
        left.plot(range(1, 11), [error for _, error in calibration(pictures)], "o-", label=name)
        curves = np.array([sparsification(one.uncertainty, one.error)[0] for one in pictures if one.error.any()])
        shares = np.linspace(0, 95, curves.shape[1])
        right.plot(shares, curves.mean(axis=0), label=name)
    best = np.array([sparsification(one.error, one.error)[1] for one in pictures if one.error.any()])
    change = np.array([sparsification(one.change, one.error)[0] for one in pictures if one.error.any()])
    right.plot(shares, change.mean(axis=0), color="0.4", linestyle="--", label="size of the change (control)")
    right.plot(shares, best.mean(axis=0), color="0.6", linestyle=":", label="by the error itself (best)")
    left.set(xlabel="tenth of all parts, by uncertainty", ylabel="RMS error")
    right.set(xlabel="most uncertain parts taken away, %", ylabel="error left, relative")
    left.set_ylim(bottom=0)
    right.set_ylim(bottom=0)
    left.legend(fontsize="small")
    right.legend(fontsize="small")
    _save(canvas, path)


def _intervals(axes: Axes, names: Sequence[str], figures: Sequence[Figure]) -> None:
    for place, figure in enumerate(figures):
        if figure.low is not None and figure.high is not None:
            axes.plot([figure.low, figure.high], [place, place], color="C0", linewidth=2)
        axes.plot(figure.value, place, "o", color="C0")
    axes.set_yticks(range(len(names)), names, fontsize="small")
    axes.invert_yaxis()
    axes.grid(axis="x", alpha=0.3)


def _save(canvas: Canvas, path: Path) -> None:
    with atomic_file(path) as file:
        canvas.savefig(file, format="png", dpi=110, metadata={"Software": None})
