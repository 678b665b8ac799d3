"""Three plots of the ablation, as PNG. Nothing is in them that is not in the tables."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from mofme.measure.plots import intervals, plot
from mofme.measure.result import Row
from mofme.papers.mofme.ablation_result import MEAN, METRICS
from mofme.papers.mofme.uncertainty import ErrorMaps, calibration, sparsification
from mofme.vision.benchmark import TITLES, Cost


def plot_quality(quality: Sequence[Row], differences: Sequence[Row], path: Path) -> None:
    """Mean PSNR of every arm, and what one gains over another, with the intervals over the seeds."""
    with plot(path, 11, 4.2, columns=(2, 3)) as (left, right):
        intervals(left, {row.name: row.figures[MEAN] for row in quality if row.table == METRICS["psnr_rgb"]})
        left.set(xlabel="PSNR, dB, mean of the four weathers")
        intervals(right, {row.name: row.figures["gain, dB (seeds)"] for row in differences})
        right.axvline(0, color="0.6", linewidth=1)
        right.set(xlabel="difference of PSNR, dB")


def plot_cost(costs: Sequence[Cost], path: Path) -> None:
    """Parameters and time against the number of experts."""
    dense, *others = costs
    with plot(path, 9, 3.6, columns=(1, 1)) as (left, right):
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


def plot_calibration(maps: Mapping[str, Sequence[Sequence[ErrorMaps]]], path: Path) -> None:
    """Error in the tenths of rising uncertainty; and the error left as the most uncertain parts are taken away."""
    with plot(path, 9, 3.6, columns=(1, 1)) as (left, right):
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
        for axes in (left, right):
            axes.set_ylim(bottom=0)
            axes.legend(fontsize="small")
