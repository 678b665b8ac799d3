"""Train the arms or load them, measure them on held-back photographs, and tell what comes of it.

The ablation and the comparison of routers share their arms, so that what one has trained the other finds.
"""

import json
import zlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from mofme.core.moe import moe_layers, parameters
from mofme.core.weights import load_card
from mofme.errors import MofmeError
from mofme.files import atomic_file, write_table
from mofme.measure.pages import as_page
from mofme.measure.result import Result, this_machine
from mofme.papers.mofme import judge_quality
from mofme.papers.mofme.result import (
    ABLATION,
    METRICS,
    ROUTERS,
    UNSURE,
    Comparison,
    ErrorMaps,
    RouterCost,
    calibration_rows,
    difference_rows,
    error_maps,
    plot_calibration,
    plot_quality,
    quality_rows,
    router_cost_rows,
    routers_verdict,
    uncertainty_rows,
)
from mofme.papers.mofme.training import Recipe, name_of, train_or_load
from mofme.vision.benchmark import Arm, title
from mofme.vision.datasets import centre, load_clean
from mofme.vision.evaluation import Scores, measure, to_8_bits
from mofme.vision.metrics import Lpips
from mofme.vision.models import load_net
from mofme.vision.nets.unet import STRIDE
from mofme.vision.restorer import Restorer
from mofme.vision.runtime import in_turn
from mofme.vision.weather import WEATHERS, synthesize

_SIDE = 256
_REPEATS = 9
_WEATHER_SEED = 7
_CLAIM = (
    "Experts that modulate one shared network, weighed by a router that knows its uncertainty, restore 0.1 to 0.2 dB "
    "better than baselines."
)


@dataclass(frozen=True)
class Setting:
    """What the arms are trained and measured on: photographs below `clean`, of those held back the first `limit`.

    `trained` is the folder that keeps the arms.
    """

    clean: Sequence[Path]
    trained: Path
    recipe: Recipe
    seeds: Sequence[int]
    limit: int | None = None
    tell: Callable[[str], None] = print

    def photographs(self) -> tuple[list[Tensor], "list[Sample]"]:
        """To train on, and to measure on. Raises MofmeError where there is none for one of the two."""
        pictures, held_back = (load_clean(self.clean, validation=held) for held in (False, True))
        return pictures, samples(held_back, _WEATHER_SEED, self.limit)

    def arms(self, compared: Comparison, pictures: Sequence[Tensor]) -> Iterator[tuple[int, Arm, Restorer]]:
        """Every arm with every seed; whatever is drawn until the next one is asked for is drawn from that seed."""
        for seed in self.seeds:
            trained = train_or_load(self.trained, list(compared.arms), pictures, self.recipe, seed, self.tell)
            for arm, restorer in trained.items():
                self.tell(f"seed {seed}: measuring {name_of(arm)}")
                with torch.random.fork_rng(devices=[]):
                    torch.manual_seed(seed)  # for the passes of the sampled router
                    yield seed, arm, restorer


class Sample(NamedTuple):
    """One held-back picture (3, H, W) in [0, 1] with one weather on it."""

    weather: str
    weathered: Tensor
    clean: Tensor


def run_ablation(
    setting: Setting, command: str, lpips: Lpips | None = None, names: Collection[str] = (), out: Path | None = None
) -> Result:
    """The result of all arms, or of those `names`, as `mofme-16`.

    The folder `out` gets a page, a table of all scores, and two plots, by the name of the result. Raises MofmeError for
    a name that no arm has, and where there is no photograph to train on, or none to hold back.
    """
    arms = {arm: told for arm, told in ABLATION.arms.items() if not names or name_of(arm) in names}
    if unknown := set(names) - set(map(name_of, arms)):
        known = ", ".join(map(name_of, ABLATION.arms))
        raise MofmeError(f"no arm is called {', '.join(sorted(unknown))}: choose from {known}")
    pictures, chosen = setting.photographs()
    scores: dict[Arm, list[list[Scores]]] = {arm: [] for arm in arms}
    maps: dict[str, list[list[ErrorMaps]]] = {title(arm): [[] for _ in WEATHERS] for arm in UNSURE if arm in arms}
    for _, arm, restorer in setting.arms(replace(ABLATION, arms=arms), pictures):
        scores[arm].append(list(score(restorer, chosen, lpips)))
        if arm in UNSURE:
            _add_maps(maps[title(arm)], restorer, chosen)
    # The shipped model comes last, with its control.
    maps["small"] = [[] for _ in WEATHERS]
    _add_maps(maps["small"], Restorer(load_net("small")[0], "small"), chosen)
    quality, differences = quality_rows(ABLATION, scores), difference_rows(ABLATION, scores)
    result = Result(
        room="ablation" if len(scores) == len(ABLATION.arms) else "ablation_arms",
        paper="MoFME, arXiv 2312.16610",
        claim=_CLAIM,
        verdict="",
        command=command,
        seeds=setting.seeds,
        interval="95 %; Student's over the seeds, bootstrap over pictures",
        machine=this_machine(torch.get_num_threads()),
        rows=[
            *quality,
            *differences,
            *(row for name, rows in maps.items() for row in uncertainty_rows(name, rows)),
            *(row for name, rows in maps.items() for row in calibration_rows(name, rows)),
        ],
    )
    result = judge_quality(result)
    if out is not None:
        with atomic_file(out / f"{result.room}.md", "w") as file:
            file.write(as_page(result))
        write_table(out / f"{result.room}.csv", _lines(scores, len(chosen) // len(WEATHERS), setting.seeds))
        plot_quality(quality, differences, out / f"{result.room}-quality.png")
        plot_calibration(maps, out / f"{result.room}-uncertainty.png")
    return result


def _lines(scores: Mapping[Arm, list[list[Scores]]], pictures: int, seeds: Sequence[int]) -> Iterator[list[object]]:
    yield ["arm", "experts", "seed", "weather", "picture", *METRICS]
    for arm, rows in scores.items():
        for seed, of_seed in zip(seeds, rows, strict=True):
            for index, one in enumerate(of_seed):
                numbers = [getattr(one, metric) for metric in METRICS]
                shown = ["" if number is None else f"{number:.6g}" for number in numbers]
                weather, picture = divmod(index, pictures)
                yield [*arm, seed, WEATHERS[weather], picture, *shown]


def compare_routers(setting: Setting, command: str, plotted: Path | None = None) -> Result:
    """The arms of the ablation that differ in nothing but the router; `plotted` is the file of a plot.

    Raises MofmeError as `run_ablation`.
    """
    pictures, chosen = setting.photographs()
    scores: dict[Arm, list[list[Scores]]] = {arm: [] for arm in ROUTERS.arms}
    restorers = {}
    for seed, arm, restorer in setting.arms(ROUTERS, pictures):
        folder = setting.trained / f"seed-{seed}" / name_of(arm)
        scores[arm].append(_kept_scores(folder, restorer, chosen))
        restorers[arm] = restorer
    costs = _router_costs(restorers, chosen[0])
    quality, differences = quality_rows(ROUTERS, scores), difference_rows(ROUTERS, scores)
    if plotted is not None:
        plot_quality(quality, differences, plotted)
    return Result(
        room="routers",
        paper="MoFME, Mixture of Routers, Yuan 2.0-M32 (arXiv 2312.16610, 2503.23362, 2405.17976)",
        claim="Each of the three papers finds its router better than a linear one: by 0.1 to 0.2 dB in restoration, by "
        "about 1 % on average, by 0.008 nats",
        verdict=routers_verdict(scores, costs, setting.recipe, len(chosen) // len(WEATHERS)),
        command=command,
        rows=[*quality, *differences, *router_cost_rows(costs)],
        seeds=setting.seeds,
        interval="95 %; Student's over the seeds, bootstrap over pictures, bootstrap of the median over the repeats "
        "for times",
        machine=this_machine(torch.get_num_threads()),
    )


def samples(pictures: Sequence[Tensor], seed: int, limit: int | None = None) -> list[Sample]:
    """Centre crops of held-back uint8 photographs, at most 256 pixels a side, each with each of the four weathers."""
    cleans = [
        centre(picture, *(min(_SIDE, side // STRIDE * STRIDE) for side in picture.shape[-2:]))
        for picture in pictures[:limit]
    ]
    generator = torch.Generator().manual_seed(seed)
    return [
        Sample(weather, synthesize(clean[None], [weather], generator).image[0], clean)
        for weather in WEATHERS
        for clean in cleans
    ]


def score(restorer: Restorer, chosen: Sequence[Sample], lpips: Lpips | None) -> Iterator[Scores]:
    """Every sample restored and measured, as it would be saved in 8 bits."""
    for sample in chosen:
        yield measure(to_8_bits(restorer(sample.weathered).image), sample.clean, lpips)


def _kept_scores(folder: Path, restorer: Restorer, chosen: Sequence[Sample]) -> list[Scores]:
    """Measured once for the same weights and samples, and kept beside the weights."""
    shown = zlib.crc32(b"".join(sample.weathered.numpy().tobytes() for sample in chosen))
    path = folder / f"scores-{shown:08x}-{load_card(folder).sha256[:8]}.json"
    if not path.is_file():
        measured = [asdict(one) for one in score(restorer, chosen, None)]
        with atomic_file(path, "w") as file:
            json.dump(measured, file)
    return [Scores(**one) for one in json.loads(path.read_text(encoding="utf-8"))]


def _add_maps(maps: list[list[ErrorMaps]], restorer: Restorer, chosen: Sequence[Sample]) -> None:
    for sample in chosen:
        maps[WEATHERS.index(sample.weather)].append(error_maps(restorer, sample.weathered, sample.clean))


def _router_costs(restorers: Mapping[Arm, Restorer], sample: Sample) -> dict[Arm, RouterCost]:
    """With the CPU time of one picture."""
    costs = {}
    for arm, seconds in in_turn(restorers, sample.weathered, _REPEATS).items():
        net = restorers[arm].net
        routers = sum(parameters(layer.router) for layer in moe_layers(net).values())
        costs[arm] = RouterCost(parameters(net), routers, 1000 * np.array(seconds))
    return costs
