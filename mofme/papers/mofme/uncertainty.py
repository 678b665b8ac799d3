"""Does the routers' uncertainty tell where, and in which pictures, the restored picture is wrong?

Measured as for any uncertainty estimate (Ilg et al. 2018): rank correlation with the error, and sparsification, the
error that is left when the most uncertain part is taken away. The size of the change that the net made to the picture
serves as a control: it costs nothing and asks no router.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from scipy.stats import spearmanr
from torch import Tensor
from torch.nn import functional as F

from mofme.measure.result import Figure, Row
from mofme.measure.statistics import FloatArray, bootstrap
from mofme.measure.study import plot
from mofme.vision.restorer import Restorer

_CELL = 8  # a picture of up to 2,048 pixels has one cell of the uncertainty map for every 8 x 8 pixels
_PARTS = 20
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
    if np.ptp(guess) == 0 or np.ptp(error) == 0:
        return 0.0
    return float(spearmanr(guess, error).statistic)


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
    if not error.any() or np.ptp(error) == 0:
        return 1.0
    curve, best = sparsification(guess, error)
    return float((curve - best).mean() / (1 - best).mean())


def calibration(maps: Sequence[ErrorMaps], bins: int = 10) -> list[tuple[float, float]]:
    """All cells of all pictures in `bins` equally filled bins of rising uncertainty: mean uncertainty, root mean
    square error of each.
    """
    uncertainty = np.concatenate([one.uncertainty for one in maps])
    error = np.concatenate([one.error for one in maps])
    order = np.argsort(uncertainty, kind="stable")
    return [
        (float(uncertainty[part].mean()), float(np.sqrt(np.square(error[part]).mean())))
        for part in np.array_split(order, bins)
    ]


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
                    RANKED: bootstrap(np.array(within).mean(axis=0)),
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


def _per_cell(difference: Tensor) -> FloatArray:
    squared = F.avg_pool2d(difference.float().square().mean(dim=0, keepdim=True), _CELL)
    cells: FloatArray = torch.sqrt(squared).flatten().double().numpy()
    return cells
