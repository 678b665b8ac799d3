"""The whole ablation: train or load, measure, and write tables and plots."""

import csv
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from mofme.files import atomic_file
from mofme.measure.pages import as_page
from mofme.measure.result import Result, this_machine
from mofme.papers.mofme.ablation import (
    ARMS,
    COST_ARMS,
    Recipe,
    Sample,
    name_of,
    samples,
    score,
    train_or_load,
)
from mofme.papers.mofme.ablation_plots import plot_calibration, plot_cost, plot_quality
from mofme.papers.mofme.ablation_result import (
    METRICS,
    Measured,
    calibration_rows,
    difference_rows,
    quality_rows,
    uncertainty_rows,
    verdict,
)
from mofme.papers.mofme.uncertainty import ErrorMaps, error_maps
from mofme.vision.benchmark import Arm, Cost, cost_rows, measure, precision, saved_rows, savings, title
from mofme.vision.datasets import load_clean
from mofme.vision.evaluation.restoration import Scores
from mofme.vision.metrics import Lpips
from mofme.vision.models import load_net
from mofme.vision.restorer import Restorer
from mofme.vision.weather import WEATHERS

_BACKBONE = "tiny-x4"
_REPEATS = 9
_WEATHER_SEED = 7
_UNSURE = (Arm("mofme", 16), Arm("mofme-sampled", 16))
_CLAIM = (
    "Experts as modulations of one shared network need over 72 % fewer parameters and 39 % less inference time than a "
    "conventional mixture, and a router that knows its uncertainty weighs them better: +0.1 to +0.2 dB over baselines."
)


@dataclass(frozen=True)
class Ablation:
    """What was measured: every arm's scores, costs, and the error maps of those that tell how unsure they are."""

    seeds: Sequence[int]
    pictures: int  # in each weather
    measured: Sequence[Measured]
    costs: Sequence[Cost]
    unsure: Mapping[str, list[list[ErrorMaps]]]  # by weather


def run_ablation(
    clean: Sequence[Path],
    trained: Path,
    recipe: Recipe,
    seeds: Iterable[int],
    lpips: Lpips | None = None,
    limit: int | None = None,
    report: Callable[[str], None] = print,
) -> Ablation:
    """Train the arms, or load them from `trained`, where they are kept, and measure them.

    Raises MofmeError where `clean` holds no photograph to train on, or none to hold back.
    """
    seeds = list(seeds)
    pictures, held_back = load_clean(clean, validation=False), load_clean(clean, validation=True)
    chosen = samples(held_back, _WEATHER_SEED, limit)
    scores: dict[Arm, list[list[Scores]]] = {arm: [] for arm in ARMS}
    maps: dict[Arm, list[list[ErrorMaps]]] = {arm: [[] for _ in WEATHERS] for arm in _UNSURE}
    for seed in seeds:
        restorers = train_or_load(trained, ARMS, pictures, recipe, seed, report)
        for arm, restorer in restorers.items():
            report(f"seed {seed}: measuring {name_of(arm)}")
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)  # for the passes of the sampled router
                scores[arm].append(list(score(restorer, chosen, lpips)))
                if arm in _UNSURE:
                    _add_maps(maps[arm], restorer, chosen)
    shipped: list[list[ErrorMaps]] = [[] for _ in WEATHERS]
    _add_maps(shipped, Restorer(load_net("small")[0], "small"), chosen)
    report("measuring time and memory")
    costs = measure(_BACKBONE, 256, COST_ARMS, _REPEATS)
    # The shipped model comes last, with its control.
    unsure = {title(arm): rows for arm, rows in maps.items()} | {"small": shipped}
    measured = [Measured(arm, rows) for arm, rows in scores.items()]
    return Ablation(seeds, len(chosen) // len(WEATHERS), measured, costs, unsure)


def as_result(ablation: Ablation, command: str) -> Result:
    """The result that `command` has measured."""
    differences = difference_rows(ablation.measured)
    ranking = [row for name, rows in ablation.unsure.items() for row in uncertainty_rows(name, rows)]
    return Result(
        room="ablation",
        paper="MoFME, arXiv 2312.16610",
        claim=_CLAIM,
        verdict=verdict(differences, savings(ablation.costs), ranking[-2:]),
        command=command,
        seeds=ablation.seeds,
        interval="95 %; Student's over the seeds, bootstrap over pictures, of the median over the repeats for times",
        machine=this_machine(torch.get_num_threads(), precision()),
        rows=[
            *quality_rows(ablation.measured),
            *differences,
            *cost_rows(_BACKBONE, ablation.costs),
            *saved_rows(_BACKBONE, ablation.costs),
            *ranking,
            *(row for name, rows in ablation.unsure.items() for row in calibration_rows(name, rows)),
        ],
    )


def write_report(ablation: Ablation, result: Result, folder: Path) -> None:
    """Write `ablation.md`, `ablation.csv` and three plots."""
    _write(folder / "ablation.md", as_page(result))
    _write(folder / "ablation.csv", _as_csv(ablation))
    quality, differences = quality_rows(ablation.measured), difference_rows(ablation.measured)
    plot_quality(quality, differences, folder / "ablation-quality.png")
    plot_cost(ablation.costs, folder / "ablation-cost.png")
    plot_calibration(ablation.unsure, folder / "ablation-uncertainty.png")


def _add_maps(maps: list[list[ErrorMaps]], restorer: Restorer, chosen: Sequence[Sample]) -> None:
    for sample in chosen:
        maps[WEATHERS.index(sample.weather)].append(error_maps(restorer, sample.weathered, sample.clean))


def _as_csv(ablation: Ablation) -> str:
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(["arm", "experts", "seed", "weather", "picture", *METRICS])
    for one in ablation.measured:
        for seed, scores in zip(ablation.seeds, one.scores, strict=True):
            for index, score_of in enumerate(scores):
                numbers = [getattr(score_of, metric) for metric in METRICS]
                shown = ["" if number is None else f"{number:.6g}" for number in numbers]
                weather, picture = divmod(index, ablation.pictures)
                arm = [one.arm.feed_forward, one.arm.num_experts]
                writer.writerow([*arm, seed, WEATHERS[weather], picture, *shown])
    return text.getvalue()


def _write(path: Path, text: str) -> None:
    with atomic_file(path, "w") as file:
        file.write(text)
