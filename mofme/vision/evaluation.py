"""How much closer to the clean picture a restorer brings pictures taken in bad weather."""

import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from mofme.errors import MofmeError
from mofme.files import write_table
from mofme.measure.result import Figure, Result, Row, this_machine
from mofme.measure.statistics import bootstrap
from mofme.vision.datasets import PairFiles
from mofme.vision.metrics import Lpips, psnr, rgb_to_y, ssim

PSNR_CAP = 100.0  # dB given to equal pictures, so that a mean exists


class Restored(Protocol):
    @property
    def image(self) -> Tensor: ...
    @property
    def seconds(self) -> float: ...


class Restores(Protocol):
    """What is measured: `Restorer`, or anything that restores one picture (3, H, W) in [0, 1]."""

    def __call__(self, image: Tensor, /) -> Restored: ...


@dataclass(frozen=True)
class Scores:
    """One picture against its target; PSNR in dB. `lpips` is None where it was not measured."""

    psnr_rgb: float
    ssim_rgb: float
    psnr_y: float
    ssim_y: float
    lpips: float | None = None


METRICS = tuple(field.name for field in fields(Scores))
TABLES = {
    "psnr_rgb": "PSNR, dB",
    "psnr_y": "PSNR of luma, dB",
    "ssim_rgb": "SSIM",
    "ssim_y": "SSIM of luma",
    "lpips": "LPIPS, lower is better",
}
CLEAN_TABLE = "Clean photographs, compared with themselves"
TIME_TABLE = "Time"
_KEPT_WELL = 40.0  # dB to itself: the eye sees no change in a picture that keeps as much


@dataclass(frozen=True)
class PairReport:
    """One pair: scores of the untouched input and of the restored picture, or why there are none."""

    name: str
    width: int = 0
    height: int = 0
    seconds: float = 0.0
    input: Scores | None = None
    restored: Scores | None = None
    error: str = ""

    def gain(self, metric: str) -> float | None:
        """Restored minus input, in the metric's own unit (for LPIPS less is better); None if not measured."""
        if self.input is None or self.restored is None:
            return None
        before, after = getattr(self.input, metric), getattr(self.restored, metric)
        return None if before is None or after is None else after - before


def evaluate(
    restorer: Restores, pairs: Iterable[PairFiles], lpips: Lpips | None = None, max_megapixels: float = 100
) -> Iterator[PairReport]:
    """Restore and measure pair by pair. A pair that cannot be measured is reported with its error."""
    for pair in pairs:
        try:
            yield _evaluate_pair(restorer, pair, lpips, max_megapixels)
        except (MofmeError, ValueError) as error:
            yield PairReport(pair.name, error=str(error))


def _evaluate_pair(restorer: Restores, pair: PairFiles, lpips: Lpips | None, max_megapixels: float) -> PairReport:
    weathered, clean = pair.read(max_megapixels)
    restoration = restorer(weathered)
    return PairReport(
        pair.name,
        width=clean.shape[2],
        height=clean.shape[1],
        seconds=restoration.seconds,
        input=measure(weathered, clean, lpips),
        restored=measure(to_8_bits(restoration.image), clean, lpips),
    )


@torch.inference_mode()
def measure(image: Tensor, target: Tensor, lpips: Lpips | None = None) -> Scores:
    """Scores of one picture (3, H, W) against its target. ValueError under 11 pixels a side (LPIPS: 32)."""
    a, b = image.cpu()[None], target.cpu()[None]
    a_luma, b_luma = rgb_to_y(a), rgb_to_y(b)
    return Scores(
        psnr_rgb=min(psnr(a, b).item(), PSNR_CAP),
        ssim_rgb=ssim(a, b).item(),
        psnr_y=min(psnr(a_luma, b_luma).item(), PSNR_CAP),
        ssim_y=ssim(a_luma, b_luma).item(),
        lpips=None if lpips is None else lpips(a, b).item(),
    )


def as_result(sets: Mapping[str, Sequence[PairReport]], command: str, seeds: Sequence[int] = ()) -> Result:
    """The measured result of some sets of pairs: a table a metric, a row a set, before, after and gain.

    A set whose inputs equal their targets shows how much of a clean photograph is kept. Raises MofmeError if no pair
    could be measured.
    """
    measured = {name: [report for report in reports if report.restored] for name, reports in sets.items()}
    measured = {name: reports for name, reports in measured.items() if reports}
    if not measured:
        errors = [report.error for reports in sets.values() for report in reports]
        raise MofmeError(f"no pair could be measured: {'; '.join(errors[:3])}")
    means = {
        (metric, name): _means(reports, metric)
        for metric in TABLES
        for name, reports in measured.items()
        if None not in [report.gain(metric) for report in reports]
    }
    clean = [name for name in measured if means["psnr_rgb", name]["input"].value == PSNR_CAP]
    rows = [Row(TABLES[metric], name, figures) for (metric, name), figures in means.items() if name not in clean]
    for name in clean:
        psnr_rgb, ssim_rgb = (means[metric, name]["restored"] for metric in ("psnr_rgb", "ssim_rgb"))
        rows.append(Row(CLEAN_TABLE, name, _kept(_decibels(measured[name]), psnr_rgb, ssim_rgb)))
    for name, reports in measured.items():
        seconds = statistics.fmean(report.seconds for report in reports)
        rows.append(Row(TIME_TABLE, name, {"pictures": Figure(len(reports)), "seconds a picture": Figure(seconds)}))
    gains = {row.name: row.figures["gain"] for row in rows if row.table == TABLES["psnr_rgb"]}
    return Result(
        room="restoration",
        paper="MoFME, arXiv 2312.16610",
        claim="Experts as modulations restore pictures 0.1 to 0.2 dB better than the baselines.",
        verdict=_verdict(gains, {name: _decibels(measured[name]) for name in clean}),
        command=command,
        rows=rows,
        seeds=seeds,
        interval="95 % bootstrap over the pictures",
        machine=this_machine(torch.get_num_threads()),
    )


def _means(reports: Sequence[PairReport], metric: str) -> dict[str, Figure]:
    """Means, with intervals, of pairs that were measured."""
    values = {
        "input": [getattr(report.input, metric) for report in reports],
        "restored": [getattr(report.restored, metric) for report in reports],
        "gain": [report.gain(metric) for report in reports],
    }
    return {column: bootstrap(np.array(numbers)) for column, numbers in values.items()}


def _kept(decibels: Sequence[float], psnr_rgb: Figure, ssim_rgb: Figure) -> dict[str, Figure]:
    return {
        "pictures": Figure(len(decibels)),
        "PSNR, dB": psnr_rgb,
        "worst, dB": Figure(min(decibels)),
        f"below {_KEPT_WELL:.0f} dB": Figure(sum(value < _KEPT_WELL for value in decibels)),
        "SSIM": ssim_rgb,
    }


def _decibels(reports: Sequence[PairReport]) -> list[float]:
    return [report.restored.psnr_rgb for report in reports if report.restored]


def _verdict(gains: Mapping[str, Figure], clean: Mapping[str, Sequence[float]]) -> str:
    """One sentence: which sets gain, which lose, and which may do either, by the intervals of their gains."""
    groups: dict[str, list[str]] = {
        words: [] for words in ("closer to the truth", "further from it", "neither for sure", "one picture only")
    }
    for name, gain in gains.items():
        sure = {1: "closer to the truth", 0: "neither for sure", -1: "further from it"}[gain.side()]
        groups["one picture only" if gain.low is None else sure].append(name)
    parts = [
        f"{words}: " + ", ".join(f"{name} ({gains[name].value:+.2f} dB)" for name in names)
        for words, names in groups.items()
        if names
    ]
    parts += [
        f"{name} keep {statistics.fmean(kept):.1f} dB to themselves, the worst {min(kept):.1f} dB"
        for name, kept in clean.items()
    ]
    sentence = "; ".join(parts)
    return f"{sentence[0].upper()}{sentence[1:]}."


def write_csv(path: Path, sets: Mapping[str, Sequence[PairReport]]) -> None:
    """One row a pair; the file appears whole or not at all."""
    columns = [f"{column}_{metric}" for metric in METRICS for column in ("input", "restored", "gain")]
    lines: list[list[object]] = [["set", "name", "width", "height", "seconds", *columns, "error"]]
    for name, reports in sets.items():
        for report in reports:
            numbers = [
                "" if number is None else f"{number:.6g}"
                for metric in METRICS
                for number in (
                    getattr(report.input, metric, None),
                    getattr(report.restored, metric, None),
                    report.gain(metric),
                )
            ]
            seconds = f"{report.seconds:.4g}"
            lines.append([name, report.name, report.width, report.height, seconds, *numbers, report.error])
    write_table(path, lines)


def to_8_bits(image: Tensor) -> Tensor:
    """A picture of any shape as it would be saved: what the user gets is what is measured."""
    return (image.clamp(0, 1) * 255).round() / 255
