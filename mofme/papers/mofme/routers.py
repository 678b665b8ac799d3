"""Five routers in the restorer: same backbone, experts, pictures, weather, steps and seeds; only the router differs.

The arms are those of the ablation, in the same folders, so that what one command has trained the other finds.
"""

import json
import time
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

from mofme.core.moe import moe_layers, parameters
from mofme.core.weights import load_card
from mofme.files import atomic_file
from mofme.papers.mofme.ablation import Recipe, Sample, name_of, samples, score, train_or_load
from mofme.papers.mofme.ablation_result import Measured
from mofme.papers.mofme.routers_result import ROUTERS, Comparison, Cost
from mofme.vision.benchmark import Arm
from mofme.vision.datasets import load_clean
from mofme.vision.evaluation.restoration import Scores
from mofme.vision.restorer import Restorer
from mofme.vision.weather import WEATHERS

_WEATHER_SEED = 7
_REPEATS = 9


def compare_routers(
    clean: Sequence[Path],
    trained: Path,
    recipe: Recipe,
    seeds: Iterable[int],
    limit: int | None = None,
    report: Callable[[str], None] = print,
) -> Comparison:
    """Train what is not in `trained`, and measure every router with every seed on held-back photographs.

    Raises MofmeError where `clean` holds no photograph to train on, or none to hold back.
    """
    pictures, held_back = load_clean(clean, validation=False), load_clean(clean, validation=True)
    chosen = samples(held_back, _WEATHER_SEED, limit)
    scores: dict[Arm, list[list[Scores]]] = {arm: [] for arm in ROUTERS}
    for seed in seeds:
        restorers = train_or_load(trained, list(ROUTERS), pictures, recipe, seed, report)
        for arm, restorer in restorers.items():
            report(f"seed {seed}: measuring {name_of(arm)}")
            scores[arm].append(_scored(trained / f"seed-{seed}" / name_of(arm), restorer, chosen, seed))
    return Comparison(
        [Measured(arm, rows) for arm, rows in scores.items()],
        _costs(restorers, chosen[0]),
        recipe,
        len(chosen) // len(WEATHERS),
    )


def _scored(folder: Path, restorer: Restorer, chosen: Sequence[Sample], seed: int) -> list[Scores]:
    """Measured once for the same weights and samples, and kept beside the weights."""
    shown = zlib.crc32(b"".join(sample.weathered.numpy().tobytes() for sample in chosen))
    path = folder / f"scores-{shown:08x}-{load_card(folder).sha256[:8]}.json"
    if not path.is_file():
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)  # for the passes of the sampled router
            text = json.dumps([asdict(one) for one in score(restorer, chosen, None)])
        with atomic_file(path, "w") as file:
            file.write(text)
    return [Scores(**one) for one in json.loads(path.read_text(encoding="utf-8"))]


def _costs(restorers: Mapping[Arm, Restorer], sample: Sample) -> dict[Arm, Cost]:
    """CPU time of one picture, in turn, so that whatever else the machine does hits all alike; one round warms up."""
    taken: dict[Arm, list[float]] = {arm: [] for arm in restorers}
    for _ in range(_REPEATS + 1):
        for arm, restorer in restorers.items():
            began = time.process_time()
            restorer(sample.weathered)
            taken[arm].append(1000 * (time.process_time() - began))
    costs = {}
    for arm, restorer in restorers.items():
        routers = sum(parameters(layer.router) for layer in moe_layers(restorer.net).values())
        costs[arm] = Cost(parameters(restorer.net), routers, np.array(taken[arm][1:]))
    return costs
