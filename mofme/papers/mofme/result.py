"""From the scores of every arm, seed and picture to tables, plots and verdicts: of the ablation and of the routers.

Axis names: S seeds, W weathers, P pictures.

Whether the routers' uncertainty tells where the restored picture is wrong is measured as for any uncertainty estimate
(Ilg et al. 2018): rank correlation with the error, and sparsification, the error that is left when the most uncertain
part is taken away. The size of the change that the net made to the picture serves as a control: it asks no router.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from scipy.stats import spearmanr
from torch import Tensor
from torch.nn import functional as F

from mofme.measure.result import Figure, Row
from mofme.measure.statistics import FloatArray, bootstrap, students_mean
from mofme.measure.study import intervals, plot
from mofme.papers.mofme.training import Recipe
from mofme.vision.benchmark import Arm, title
from mofme.vision.evaluation import Scores
from mofme.vision.restorer import Restorer
from mofme.vision.weather import WEATHERS

_CELL = 8  # a picture of up to 2,048 pixels has one cell of the uncertainty map for every 8 x 8 pixels
_PARTS = 20
_TAKEN_AWAY = np.linspace(0, 95, _PARTS)  # percent
_GUESSES = {"uncertainty": "the routers' uncertainty", "change": "the size of the change (control)"}
RANKED = "Spearman, parts of a picture"


@dataclass(frozen=True)
class ErrorMaps:
    """One picture in cells of 8 x 8 pixels, each (h * w,): the routers' uncertainty, the change made, and the error.

    Change and error are root mean squares over the cell's pixels and channels, in units of the picture's range.
    """

    uncertainty: FloatArray
    change: FloatArray
    error: FloatArray


def error_maps(restorer: Restorer, weathered: Tensor, clean: Tensor) -> ErrorMaps:
    """Restore `weathered` (3, H, W) and compare with `clean`; sides are multiples of 8, up to 2,048."""
    restoration = restorer(weathered)
    return ErrorMaps(
        restoration.uncertainty.flatten().double().numpy(),
        _per_cell(restoration.image - weathered),
        _per_cell(restoration.image - clean),
    )


def rank_correlation(guess: FloatArray, error: FloatArray) -> float:
    """Spearman's rho; 0 where one of the two is constant, as then it ranks nothing."""
    return float(spearmanr(guess, error).statistic) if np.ptp(guess) and np.ptp(error) else 0.0


def sparsification(guess: FloatArray, error: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Mean error of what is left after taking away the 0, 5, ... 95 % of largest `guess`; and the same by the error
    itself, which is the best there is. Both are relative to the mean of all.
    """
    kept = [max(1, len(error) - round(len(error) * part / _PARTS)) for part in range(_PARTS)]

    def curve(order: FloatArray) -> FloatArray:
        # Of equal guesses none comes first: each gets the mean error of its equals.
        _, rank, count = np.unique(order, return_inverse=True, return_counts=True)
        mean = np.bincount(rank, weights=error) / count
        total = np.cumsum(np.repeat(mean, count))
        return np.array([total[left - 1] / left for left in kept]) / error.mean()

    return curve(guess), curve(error)


def ause(guess: FloatArray, error: FloatArray) -> float:
    """Area between the two curves of `sparsification`, as a share of what a random order leaves: 0 ranks perfectly,
    1 no better than chance, above 1 worse.
    """
    if not np.ptp(error):
        return 1.0
    curve, best = sparsification(guess, error)
    return float((curve - best).mean() / (1 - best).mean())


def calibration(maps: Sequence[Sequence[ErrorMaps]], bins: int = 10) -> list[tuple[float, float]]:
    """All cells of all pictures of all weathers in `bins` equally filled bins of rising uncertainty: mean uncertainty,
    root mean square error of each.
    """
    pictures = list(chain.from_iterable(maps))
    uncertainty, error = (np.concatenate([getattr(one, of) for one in pictures]) for of in ("uncertainty", "error"))
    order = np.argsort(uncertainty, kind="stable")
    return [
        (float(uncertainty[part].mean()), float(np.sqrt(np.square(error[part]).mean())))
        for part in np.array_split(order, bins)
    ]


def uncertainty_rows(name: str, maps: Sequence[Sequence[ErrorMaps]]) -> list[Row]:
    """How well the routers' uncertainty ranks errors, beside the control; `maps` holds the pictures of each weather."""
    rows = []
    for guess, title_of_guess in _GUESSES.items():
        within, areas = (
            np.mean([[measure(getattr(one, guess), one.error) for one in pictures] for pictures in maps], axis=0)
            for measure in (rank_correlation, ause)
        )
        means = [[getattr(one, guess).mean() for one in pictures] for pictures in maps]
        errors = [[np.sqrt(np.square(one.error).mean()) for one in pictures] for pictures in maps]
        between = [rank_correlation(np.array(mean), np.array(error)) for mean, error in zip(means, errors, strict=True)]
        figures = {
            RANKED: bootstrap(within),
            "AUSE (0 best, 1 chance)": bootstrap(areas),
            "Spearman, pictures of a weather": Figure(float(np.mean(between))),
        }
        rows.append(Row("uncertainty", f"{title_of_guess}, {name}", figures))
    return rows


def calibration_rows(name: str, maps: Sequence[Sequence[ErrorMaps]]) -> list[Row]:
    """Mean uncertainty and error of the tenths of all parts of all pictures."""
    return [
        Row(f"calibration: {name}", f"tenth {number}", {"uncertainty": Figure(mean), "RMS error": Figure(error)})
        for number, (mean, error) in enumerate(calibration(maps), start=1)
    ]


def plot_calibration(maps: Mapping[str, Sequence[Sequence[ErrorMaps]]], path: Path) -> None:
    """Error in the tenths of rising uncertainty; and the error left as the most uncertain parts are taken away."""
    with plot(path, 9, 3.6, columns=(1, 1)) as (left, right):
        for name, weathers in maps.items():
            left.plot(range(1, 11), [error for _, error in calibration(weathers)], "o-", label=name)
            right.plot(_TAKEN_AWAY, _left(weathers, "uncertainty"), label=name)
        right.plot(_TAKEN_AWAY, _left(weathers, "change"), color="0.4", linestyle="--", label=_GUESSES["change"])
        right.plot(
            _TAKEN_AWAY, _left(weathers, "error"), color="0.6", linestyle=":", label="by the error itself (best)"
        )
        left.set(xlabel="tenth of all parts, by uncertainty", ylabel="RMS error")
        right.set(xlabel="most uncertain parts taken away, %", ylabel="error left, relative")
        for axes in (left, right):
            axes.set_ylim(bottom=0)
            axes.legend(fontsize="small")


def _left(maps: Sequence[Sequence[ErrorMaps]], guess: str) -> FloatArray:
    """The mean curve of `sparsification` over the pictures with an error."""
    pictures = [one for one in chain.from_iterable(maps) if one.error.any()]
    curve: FloatArray = np.mean([sparsification(getattr(one, guess), one.error)[0] for one in pictures], axis=0)
    return curve


def _per_cell(difference: Tensor) -> FloatArray:
    squared = F.avg_pool2d(difference.float().square().mean(dim=0, keepdim=True), _CELL)
    cells: FloatArray = torch.sqrt(squared).flatten().double().numpy()
    return cells


METRICS: Mapping[str, str] = {"psnr_rgb": "PSNR, dB", "ssim_rgb": "SSIM", "lpips": "LPIPS"}
MEAN = "mean"
OVER_SEEDS = "gain, dB (seeds)"


@dataclass(frozen=True)
class Comparison:
    """Arms by their titles, and pairs of which it is told what the first gains over the second."""

    arms: Mapping[Arm, str]
    pairs: Sequence[tuple[Arm, Arm]]
    metrics: Sequence[str] = tuple(METRICS)


_DENSE, _MOE, _LINEAR = Arm("dense", 1), Arm("moe", 16), Arm("mofme-linear", 16)
_SAMPLED, _CLOSED, _GENERATED = Arm("mofme-sampled", 16), Arm("mofme", 16), Arm("generated", 16)
_ATTENTION, _MIXTURE = Arm("mofme-attention", 16), Arm("mofme-mixture", 16)
_FEW, _MANY = Arm("mofme", 4), Arm("mofme", 64)
UNSURE = (_CLOSED, _SAMPLED)  # the arms whose uncertainty is looked at
# 16 experts for every kind; fewer and more for the one that the paper is about. What the paper claims comes first, then
# what each part of MoFME adds.
ABLATION = Comparison(
    {arm: title(arm) for arm in (_DENSE, _MOE, _LINEAR, _SAMPLED, _CLOSED, _GENERATED, _FEW, _MANY)},
    [
        (_CLOSED, _MOE),
        (_SAMPLED, _MOE),
        (_LINEAR, _MOE),
        (_GENERATED, _MOE),
        (_GENERATED, _CLOSED),
        (_CLOSED, _DENSE),
        (_MOE, _DENSE),
        (_CLOSED, _LINEAR),
        (_SAMPLED, _LINEAR),
        (_CLOSED, _SAMPLED),
        (_MANY, _CLOSED),
        (_CLOSED, _FEW),
    ],
)
_OTHERS = (_SAMPLED, _CLOSED, _ATTENTION, _MIXTURE)
ROUTERS = Comparison(
    {
        _LINEAR: "linear",
        _SAMPLED: "uncertainty-aware, sampled",
        _CLOSED: "uncertainty-aware, closed form",
        _ATTENTION: "attention",
        _MIXTURE: "mixture of two",
    },
    [*((arm, _LINEAR) for arm in _OTHERS), *((arm, _CLOSED) for arm in _OTHERS if arm != _CLOSED)],
    ["psnr_rgb"],
)


# Scores of each arm: for each seed those of all samples, in the order of the weathers and then of the pictures.
Measured = Mapping[Arm, Sequence[Sequence[Scores]]]


@dataclass(frozen=True)
class RouterCost:
    """Parameters of a net and of its routers alone, and the CPU time of one picture in every repeat."""

    parameters: int
    router_parameters: int
    milliseconds: FloatArray


def values(seeds: Sequence[Sequence[Scores]], metric: str) -> FloatArray:
    """(S, W, P), NaN where the metric was not measured."""
    rows = [[getattr(score, metric) for score in seed] for seed in seeds]
    return np.asarray(rows, dtype=float).reshape(len(rows), len(WEATHERS), -1)


def quality_rows(compared: Comparison, measured: Measured) -> list[Row]:
    """A table a metric: each arm on each weather; the interval is over the seeds."""
    rows = []
    for metric in compared.metrics:
        for arm, seeds in measured.items():
            values_SWP = values(seeds, metric)
            if not np.isnan(values_SWP).any():
                columns = {**dict(zip(WEATHERS, values_SWP.mean(axis=2).T, strict=True)), MEAN: values_SWP.mean((1, 2))}
                figures = {name: students_mean(values_S) for name, values_S in columns.items()}
                rows.append(Row(METRICS[metric], compared.arms[arm], figures))
    return rows


def gain(first: Sequence[Sequence[Scores]], second: Sequence[Sequence[Scores]]) -> dict[str, Figure]:
    """PSNR of the first minus the second: over seeds, over pictures, and the share of pictures that are better."""
    gain_SWP = values(first, "psnr_rgb") - values(second, "psnr_rgb")
    return {
        OVER_SEEDS: students_mean(gain_SWP.mean(axis=(1, 2))),
        "gain, dB (pictures)": bootstrap(gain_SWP.mean(axis=(0, 1))),
        "better pictures, %": Figure(float(100 * (gain_SWP.mean(axis=0) > 0).mean())),
    }


def difference_rows(compared: Comparison, measured: Measured) -> list[Row]:
    """What one arm gains over another on the same pictures and seeds, where both were measured."""
    names = compared.arms
    return [
        Row("differences", f"{names[first]} minus {names[second]}", gain(measured[first], measured[second]))
        for first, second in compared.pairs
        if measured.keys() >= {first, second}
    ]


def router_cost_rows(costs: Mapping[Arm, RouterCost]) -> list[Row]:
    linear = costs[_LINEAR].milliseconds
    return [
        Row(
            "cost",
            ROUTERS.arms[arm],
            {
                "parameters": Figure(cost.parameters),
                "of these in routers": Figure(cost.router_parameters),
                "CPU time of a picture, ms": bootstrap(cost.milliseconds, np.median),
                "time against linear": bootstrap(cost.milliseconds / linear, np.median),
            },
        )
        for arm, cost in costs.items()
    ]


def routers_verdict(measured: Measured, costs: Mapping[Arm, RouterCost], recipe: Recipe, pictures: int) -> str:
    """What each router gains over the linear one; `pictures` were measured in each weather."""
    gained = {arm: gain(measured[arm], measured[_LINEAR])[OVER_SEEDS] for arm in _OTHERS}
    said = ", ".join(f"{ROUTERS.arms[arm]} {figure.text(signed=True, digits=2)}" for arm, figure in gained.items())
    best = max(gained, key=lambda arm: gained[arm].value)
    time = float(np.median(costs[best].milliseconds / costs[_LINEAR].milliseconds))
    certain = sum(figure.side() > 0 for figure in gained.values())
    conclusion = (
        f"{ROUTERS.arms[best]} has the highest mean, at {time:.2f} times the linear router's CPU time"
        if gained[best].value > 0
        else "none has a higher mean than the linear router"
    )
    linear_SWP = values(measured[_LINEAR], "psnr_rgb")
    return (
        f"Against the linear router's {linear_SWP.mean():.2f} dB after {recipe.steps} steps, the mean "
        f"of {len(linear_SWP)} seeds and of four weathers on {pictures} held-back photographs, the "
        f"others gain, in dB: {said}; {conclusion}, and {f'{certain} of {len(gained)}' if certain else 'none'} gains "
        "beyond the noise of the seeds."
    )


def plot_quality(quality: Sequence[Row], differences: Sequence[Row], path: Path) -> None:
    """Mean PSNR of every arm, and what one gains over another, with the intervals over the seeds."""
    with plot(path, 11, 4.2, columns=(2, 3)) as (left, right):
        intervals(left, {row.name: row.figures[MEAN] for row in quality if row.table == METRICS["psnr_rgb"]})
        left.set(xlabel="PSNR, dB, mean of the four weathers")
        intervals(right, {row.name: row.figures[OVER_SEEDS] for row in differences})
        right.axvline(0, color="0.6", linewidth=1)
        right.set(xlabel="difference of PSNR, dB")
