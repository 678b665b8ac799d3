"""From the scores of every arm, seed and picture to the tables and the verdict of the ablation."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mofme.measure.result import Figure, Row
from mofme.measure.statistics import FloatArray, bootstrap, students_mean
from mofme.papers.mofme.uncertainty import ErrorMaps, ause, calibration, rank_correlation
from mofme.vision.benchmark import Arm, title
from mofme.vision.evaluation.restoration import Scores
from mofme.vision.weather import WEATHERS

METRICS: Mapping[str, str] = {"psnr_rgb": "PSNR, dB", "ssim_rgb": "SSIM", "lpips": "LPIPS"}
MEAN = "mean"
_GUESSES = {"uncertainty": "the routers' uncertainty", "change": "the size of the change (control)"}
_WITHIN = "Spearman, parts of a picture"


@dataclass(frozen=True)
class Measured:
    """Scores of one arm: for each seed those of all samples, in the order of the weathers and then of the pictures."""

    arm: Arm
    scores: Sequence[Sequence[Scores]]

    def values(self, metric: str) -> FloatArray | None:
        """(seeds, weathers, pictures), or None where the metric was not measured."""
        rows = [[getattr(score, metric) for score in seed] for seed in self.scores]
        if any(value is None for row in rows for value in row):
            return None
        return np.asarray(rows, dtype=float).reshape(len(rows), len(WEATHERS), -1)


# What the paper claims, and what each part of MoFME adds: the first minus the second, where both were measured.
COMPARISONS: Sequence[tuple[Arm, Arm]] = (
    (Arm("mofme", 16), Arm("moe", 16)),
    (Arm("mofme-sampled", 16), Arm("moe", 16)),
    (Arm("mofme-linear", 16), Arm("moe", 16)),
    (Arm("mofme", 16), Arm("dense", 1)),
    (Arm("moe", 16), Arm("dense", 1)),
    (Arm("mofme", 16), Arm("mofme-linear", 16)),
    (Arm("mofme-sampled", 16), Arm("mofme-linear", 16)),
    (Arm("mofme", 16), Arm("mofme-sampled", 16)),
    (Arm("mofme", 64), Arm("mofme", 16)),
    (Arm("mofme", 16), Arm("mofme", 4)),
)


def quality_rows(measured: Sequence[Measured]) -> list[Row]:
    """A table a metric: each arm on each weather; the interval is over the seeds."""
    rows = []
    for metric, table in METRICS.items():
        for one in measured:
            values_SWP = one.values(metric)
            if values_SWP is not None:
                columns = {**dict(zip(WEATHERS, values_SWP.mean(axis=2).T, strict=True)), MEAN: values_SWP.mean((1, 2))}
                rows.append(Row(table, title(one.arm), {name: students_mean(seeds) for name, seeds in columns.items()}))
    return rows


def difference_rows(measured: Sequence[Measured]) -> list[Row]:
    """What one arm gains over another on the same pictures and seeds, in dB of PSNR; the interval is over the seeds."""
    by_arm = {one.arm: one for one in measured}
    rows = []
    for first, second in COMPARISONS:
        if first in by_arm and second in by_arm:
            name = f"{title(first)} minus {title(second)}"
            rows.append(Row("differences", name, difference(by_arm[first], by_arm[second])))
    return rows


def difference(first: Measured, second: Measured) -> dict[str, Figure]:
    """PSNR of the first minus the second: over seeds, over pictures, and the share of pictures that are better."""
    a, b = first.values("psnr_rgb"), second.values("psnr_rgb")
    if a is None or b is None:
        raise ValueError("PSNR is always measured")
    gain_SWP = a - b
    return {
        "gain, dB (seeds)": students_mean(gain_SWP.mean(axis=(1, 2))),
        "gain, dB (pictures)": bootstrap(gain_SWP.mean(axis=(0, 1))),
        "better pictures, %": Figure(float(100 * (gain_SWP.mean(axis=0) > 0).mean())),
    }


def uncertainty_rows(name: str, maps: Sequence[Sequence[ErrorMaps]]) -> list[Row]:
    """How well the routers' uncertainty ranks errors, beside the control; `maps` holds the pictures of each weather."""
    rows = []
    for guess, title_of_guess in _GUESSES.items():
        within = [[rank_correlation(getattr(m, guess), m.error) for m in pictures] for pictures in maps]
        areas = [[ause(getattr(m, guess), m.error) for m in pictures] for pictures in maps]
        between = [
            rank_correlation(
                np.array([getattr(m, guess).mean() for m in pictures]),
                np.array([np.sqrt(np.square(m.error).mean()) for m in pictures]),
            )
            for pictures in maps
        ]
        rows.append(
            Row(
                "uncertainty",
                f"{title_of_guess}, {name}",
                {
                    _WITHIN: bootstrap(np.array(within).mean(axis=0)),
                    "AUSE (0 best, 1 chance)": bootstrap(np.array(areas).mean(axis=0)),
                    "Spearman, pictures of a weather": Figure(float(np.mean(between))),
                },
            )
        )
    return rows


def calibration_rows(name: str, maps: Sequence[Sequence[ErrorMaps]]) -> list[Row]:
    """Mean uncertainty and error of the tenths of all parts of all pictures."""
    tenths = calibration([one for pictures in maps for one in pictures])
    return [
        Row(f"calibration: {name}", f"tenth {number}", {"uncertainty": Figure(mean), "RMS error": Figure(error)})
        for number, (mean, error) in enumerate(tenths, start=1)
    ]


def verdict(
    differences: Sequence[Row], saved: Mapping[int, Mapping[str, Figure]], uncertainty: Sequence[Row] = ()
) -> str:
    """What is saved, whether the differences are beyond the noise of the seeds, and what the uncertainty ranks."""
    by_name = {row.name: row.figures["gain, dB (seeds)"] for row in differences}

    def said(first: Arm, second: Arm) -> str:
        figure = by_name.get(f"{title(first)} minus {title(second)}")
        if figure is None:
            return "not measured"
        certainty = "with one seed" if figure.low is None else f"{figure.noise()} of the seeds"
        return f"{figure.text(signed=True, digits=2)} dB, {certainty}"

    savings = ", ".join(
        f"{figures['parameters saved, %'].value:.0f} and {figures['time saved, %'].value:.0f} % with {experts}"
        for experts, figures in saved.items()
    )
    return (
        (f"Of parameters and of time MoFME saves, by number of experts, {savings}. " if savings else "")
        + "With 16 experts its PSNR differs from the conventional mixture's by "
        + f"{said(Arm('mofme', 16), Arm('moe', 16))}, and the uncertainty-aware router's from a linear router's by "
        + f"{said(Arm('mofme', 16), Arm('mofme-linear', 16))}."
        + "".join(f" {_ranking(row)}" for row in uncertainty)
    )


def _ranking(row: Row) -> str:
    figure = row.figures[_WITHIN]
    if figure.low is None:
        return f"Of the parts of a picture, {row.name} ranks the errors by {figure.value:+.2f} (Spearman, one picture)."
    than = {1: "better than", 0: "no better than", -1: "worse than"}[figure.side()]
    spearman = figure.text(signed=True, digits=2).replace(" (", ", ")
    return f"Of the parts of a picture, {row.name} ranks the errors {than} chance (Spearman {spearman}."
