"""How much closer to the clean picture a restorer brings pictures taken in bad weather."""

import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mofme.errors import MofmeError
from mofme.files import write_table
from mofme.measure.result import Figure, Result, Row, this_machine
from mofme.measure.statistics import FloatArray, bootstrap
from mofme.vision.datasets import PairFiles
from mofme.vision.metrics import Lpips, psnr, rgb_to_y, ssim
from mofme.vision.restorer import Restoration

PSNR_CAP = 100.0  # dB given to equal pictures, so that a mean exists
# What is measured: `Restorer`, or anything that restores one picture (3, H, W) in [0, 1].
Restores = Callable[[Tensor], Restoration]


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
HARM_TABLE = "Pictures that came out worse than they came in"
_TOGETHER = "all pictures"
_KEPT_WELL = 40.0  # dB to itself: the eye sees no change in a picture that keeps as much
_KEPT_WHOLLY = 60.0  # dB for a clean picture that keeps more or all: else the mean would tell of these alone


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
        before, after = (getattr(scores, metric, None) for scores in (self.input, self.restored))
        return None if before is None or after is None else after - before


def evaluate(
    restorer: Restores, pairs: Iterable[PairFiles], lpips: Lpips | None = None, max_megapixels: float = 100
) -> Iterator[PairReport]:
    """Restore and measure pair by pair. A pair that cannot be measured is reported with its error."""
    for pair in pairs:
        try:
            weathered, clean = pair.read(max_megapixels)
            restoration = restorer(weathered)
            before, after = (measure(image, clean, lpips) for image in (weathered, to_8_bits(restoration.image)))
            yield PairReport(pair.name, clean.shape[2], clean.shape[1], restoration.seconds, before, after)
        except (MofmeError, ValueError) as error:
            yield PairReport(pair.name, error=str(error))


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
    """The measured result of some sets of pairs: a table a metric, a row a set, before, after and gain; and how many
    pictures lost.

    A set whose inputs equal their targets shows how much of a clean photograph is kept. Raises MofmeError if no pair
    could be measured.
    """
    measured = {name: some for name, told in sets.items() if (some := [report for report in told if report.restored])}
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
    rows += [Row(HARM_TABLE, name, _harm(reports)) for name, reports in measured.items() if name not in clean]
    kept = {
        name: [min(one.restored.psnr_rgb, _KEPT_WHOLLY) for one in measured[name] if one.restored] for name in clean
    }
    for name, decibels in kept.items():
        figures = {
            "pictures": Figure(len(decibels)),
            "PSNR, dB": bootstrap(np.array(decibels)),
            "worst, dB": Figure(min(decibels)),
            f"below {_KEPT_WELL:.0f} dB": Figure(sum(value < _KEPT_WELL for value in decibels)),
            "SSIM": means["ssim_rgb", name]["restored"],
        }
        rows.append(Row("Clean photographs, compared with themselves", name, figures))
    for name, reports in measured.items():
        seconds = statistics.fmean(report.seconds for report in reports)
        rows.append(Row("Time", name, {"pictures": Figure(len(reports)), "seconds a picture": Figure(seconds)}))
    gains = {row.name: row.figures["gain"] for row in rows if row.table == TABLES["psnr_rgb"]}
    return Result(
        room="restoration",
        paper="MoFME, arXiv 2312.16610",
        claim="Experts as modulations restore pictures 0.1 to 0.2 dB better than the baselines.",
        verdict=_verdict(gains, kept),
        command=command,
        rows=rows,
        seeds=seeds,
        interval="95 % bootstrap over the pictures",
        machine=this_machine(torch.get_num_threads()),
    )


def _means(reports: Sequence[PairReport], metric: str) -> dict[str, Figure]:
    """Means, with intervals, of pairs that were measured."""
    before, after = (
        np.array([getattr(getattr(report, state), metric) for report in reports]) for state in ("input", "restored")
    )
    return {"input": bootstrap(before), "restored": bootstrap(after), "gain": bootstrap(after - before)}


def _harm(reports: Sequence[PairReport]) -> dict[str, Figure]:
    gains = [gain for report in reports if (gain := report.gain("psnr_rgb")) is not None]
    return {
        "pictures": Figure(len(gains)),
        "worse": Figure(sum(gain < 0 for gain in gains)),
        "by more than 1 dB": Figure(sum(gain < -1 for gain in gains)),
        "least gain, dB": Figure(min(gains)),
    }


def compare(sets: Mapping[str, Mapping[str, Sequence[PairReport]]]) -> list[Row]:
    """Of sets of pairs, each measured with the same models: PSNR of each model less that of the first, dB.

    A row a model, a column a set and one of all pictures; intervals are of pairs: the same pictures by both.
    """
    first, *others = next(iter(sets.values()))
    rows = []
    for other in others:
        differences = {name: _differences(models[other], models[first]) for name, models in sets.items()}
        differences = {name: values for name, values in differences.items() if len(values)}
        together = {**differences, _TOGETHER: np.concatenate([*differences.values(), np.empty(0)])}
        rows.append(
            Row(f"PSNR beside {first}, dB", other, {name: bootstrap(x) for name, x in together.items() if len(x)})
        )
    return rows


def compared(rows: Sequence[Row]) -> str:
    """One sentence of what `compare` found, on all pictures."""
    found = [f"{row.name} {row.figures[_TOGETHER].text(signed=True, digits=2)}" for row in rows if row.figures]
    return f"{rows[0].table}, on {_TOGETHER}: {', '.join(found)}."


def _differences(reports: Sequence[PairReport], others: Sequence[PairReport]) -> FloatArray:
    pairs = zip(reports, others, strict=True)
    return np.array(
        [one.restored.psnr_rgb - other.restored.psnr_rgb for one, other in pairs if one.restored and other.restored]
    )


def _verdict(gains: Mapping[str, Figure], clean: Mapping[str, Sequence[float]]) -> str:
    """One sentence: which sets gain, which lose, and which may do either, by the intervals of their gains."""
    words = {1: "closer to the truth", -1: "further from it", 0: "neither for sure", None: "one picture only"}
    groups: dict[int | None, list[str]] = {side: [] for side in words}
    for name, gain in gains.items():
        groups[None if gain.low is None else gain.side()].append(f"{name} ({gain.value:+.2f} dB)")
    parts = [f"{words[side]}: {', '.join(told)}" for side, told in groups.items() if told]
    parts += [
        f"{name} keep {statistics.fmean(kept):.1f} dB to themselves, the worst {min(kept):.1f} dB"
        for name, kept in clean.items()
    ]
    return "; ".join([parts[0][:1].upper() + parts[0][1:], *parts[1:]]) + "."


def write_csv(path: Path, sets: Mapping[str, Sequence[PairReport]]) -> None:
    """One row a pair; the file appears whole or not at all."""
    columns = [f"{column}_{metric}" for metric in METRICS for column in ("input", "restored", "gain")]
    lines: list[list[object]] = [["set", "name", "width", "height", "seconds", *columns, "error"]]
    for name, reports in sets.items():
        for report in reports:
            numbers: list[float | None] = []
            for metric in METRICS:
                numbers += [getattr(scores, metric, None) for scores in (report.input, report.restored)]
                numbers.append(report.gain(metric))
            told = ["" if number is None else f"{number:.6g}" for number in numbers]
            lines.append([name, report.name, report.width, report.height, f"{report.seconds:.4g}", *told, report.error])
    write_table(path, lines)


def to_8_bits(image: Tensor) -> Tensor:
    """A picture of any shape as it would be saved: what the user gets is what is measured."""
    return (image.clamp(0, 1) * 255).round() / 255
