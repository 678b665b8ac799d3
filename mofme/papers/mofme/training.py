"""Dense, conventional mixture and MoFME with five routers: the same backbone, pictures, weather, steps and seeds.

All arms of a seed are trained in step with each other: every batch is made once and shown to each of them.
"""

import zlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from mofme.core.moe import observe_routing
from mofme.core.training import Run, cosine
from mofme.core.weights import ModelCard, load_card, save_model
from mofme.errors import ModelError
from mofme.files import CARD_FILE
from mofme.vision.benchmark import TINY, Arm, build
from mofme.vision.datasets import clean_crops
from mofme.vision.metrics import objective, rmse_loss
from mofme.vision.models import load_net
from mofme.vision.restorer import Restorer
from mofme.vision.weather import random_weathers, synthesize


def name_of(arm: Arm) -> str:
    """For files: `mofme-16`."""
    return arm.feed_forward if arm.feed_forward == "dense" else f"{arm.feed_forward}-{arm.num_experts}"


@dataclass(frozen=True)
class Recipe:
    """How every arm is trained. `crop` is the side of a training crop in pixels."""

    steps: int = 2000
    batch: int = 8
    crop: int = 64
    learning_rate: float = 2e-3


def train_or_load(
    folder: Path,
    arms: Sequence[Arm],
    pictures: Sequence[Tensor],
    recipe: Recipe,
    seed: int,
    report: Callable[[str], None],
) -> dict[Arm, Restorer]:
    """The arms of one seed, loaded from `folder` where they were trained, else trained and saved.

    Raises ModelError, before any training, for an arm that was trained by another recipe or on other photographs.
    """
    shown = _shown(pictures)
    paths = {arm: folder / f"seed-{seed}" / name_of(arm) for arm in arms}
    if missing := [arm for arm in arms if not _is_trained(paths[arm], recipe, shown)]:
        for arm, net in train_arms(missing, pictures, recipe, seed, report).items():
            card = ModelCard(
                name=f"{name_of(arm)}-seed-{seed}",
                net="restoration",
                arguments={**TINY, **arm._asdict()},
                licence="that of the training photographs",
                training={**asdict(recipe), "seed": seed, "photographs": shown},
            )
            save_model(paths[arm], card, net.state_dict())
    return {arm: Restorer(load_net(str(path))[0], name_of(arm)) for arm, path in paths.items()}


def train_arms(
    arms: Sequence[Arm], pictures: Sequence[Tensor], recipe: Recipe, seed: int, report: Callable[[str], None]
) -> dict[Arm, nn.Module]:
    """Train all arms on the same batches; returns the moving averages of their weights.

    In float32: the shapes inside a conventional mixture change at every step, and bf16 kernels are compiled for each.
    """
    runs = [_begin(arm, recipe, seed) for arm in arms]
    generator = torch.Generator().manual_seed(seed)
    cleans = clean_crops(pictures, recipe.crop, recipe.batch, generator)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # for the passes of the sampled router
        for step, *_ in zip(*runs, strict=True):
            clean = next(cleans)
            weathered = synthesize(clean, random_weathers(recipe.batch, generator), generator)
            losses = []
            for run in runs:
                with observe_routing(run.net) as routing:
                    output = run.net(weathered.image)
                losses.append(run.learn(objective(output, clean, weathered.labels, routing, rmse_loss)))
            if (step + 1) % 100 == 0:
                shown = "  ".join(f"{name_of(arm)} {loss:.3f}" for arm, loss in zip(arms, losses, strict=True))
                report(f"seed {seed}, step {step + 1} of {recipe.steps}: {shown}")
    return {arm: run.trained for arm, run in zip(arms, runs, strict=True)}


def _begin(arm: Arm, recipe: Recipe, seed: int) -> Run:
    net = build("tiny-x4", arm, seed).train()
    optimizer = torch.optim.AdamW(
        net.parameters(), recipe.learning_rate, betas=(0.9, 0.99), weight_decay=1e-4, fused=True
    )
    return Run(
        net,
        optimizer,
        steps=recipe.steps,
        schedule=cosine(floor=0.01),
        warm_up=100,
        clip=1.0,
        average=AveragedModel(net, multi_avg_fn=get_ema_multi_avg_fn(0.995)),
    )


def _shown(pictures: Sequence[Tensor]) -> int:
    """A number that other photographs hardly share."""
    number = 0
    for picture in pictures:  # not joined: together they are as large as all photographs
        number = zlib.crc32(picture.contiguous().numpy().tobytes(), number)
    return number


def _is_trained(path: Path, recipe: Recipe, shown: int) -> bool:
    if not (path / CARD_FILE).is_file():
        return False
    trained = load_card(path).training
    # Older cards do not tell of photographs.
    wanted = asdict(recipe) | ({"photographs": shown} if "photographs" in trained else {})
    if differing := [f"{name} {trained.get(name)}" for name, value in wanted.items() if trained.get(name) != value]:
        raise ModelError(
            f"{path} was trained with {', '.join(differing)}: name another folder for the arms, or train so"
        )
    return True
