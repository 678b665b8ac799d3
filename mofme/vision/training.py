"""Training a restorer: clean photographs in, weather synthesized on the device, weights and a card out.

The schedule runs over time, not steps: a run takes the minutes it is given, on whatever machine, and what a killed run
had done since its last checkpoint is all that is lost.
"""

import csv
import io
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast, set_seed
from torch import Tensor
from torch.optim.swa_utils import AveragedModel

from mofme.core.binary import binarise, binary_layers, clip_weights
from mofme.core.moe import observe_routing
from mofme.core.precision import bf16_pays
from mofme.core.training import load_checkpoint, save_checkpoint
from mofme.core.weights import ModelCard, load_card, save_packed
from mofme.errors import ModelError, MofmeError
from mofme.files import atomic_file
from mofme.vision.datasets import load_clean, load_haze, load_pair_sets, load_pairs
from mofme.vision.models import BINARY_RATE, SIZES, build_net, load_net, stays_real
from mofme.vision.nets.unet import RestorationNet
from mofme.vision.objective import objective
from mofme.vision.scenes import Batch, Dice, Source, batches, hazed, paired, rained_on, synthesized, untouched
from mofme.vision.validation import ValidationReport, judge, validate, validation_pairs

_WARMUP_STEPS = 300
_LARGE_CROPS_FROM = 0.65
_EMA_DECAY = 0.999

_Tensors = tuple[Tensor, ...] | list[Tensor]


@dataclass(frozen=True)
class TrainingPlan:
    """What to train, on what, for how long. `crop` is the side of the first crops, in pixels; later ones are larger.

    `pairs`, `haze` and `rain_layers` are folders, each with its share of the scenes; `identity` is that of scenes with
    nothing to do, and synthesized weather has the rest. Weather is put on canvases of about `canvas` x `canvas` pixels,
    of which `crops_each` crops are taken. `judges` are folders of pairs that are never trained on: the gain on them is
    told with each validation.

    `binary` gives most layers weights of one bit, after they are filled from `init`: a trained net to start from.
    """

    out: Path
    clean: Sequence[Path]
    pairs: Mapping[Path, float] = field(default_factory=dict)
    haze: Mapping[Path, float] = field(default_factory=dict)
    rain_layers: Mapping[Path, float] = field(default_factory=dict)
    identity: float = 0.1
    judges: Sequence[Path] = ()
    size: str = "small"
    init: Path | None = None
    minutes: float = 60.0
    batch: int = 8
    crop: int = 128
    canvas: int = 320
    crops_each: int = 6
    learning_rate: float = 1e-3
    seed: int = 0
    validate_minutes: float = 10.0
    save_seconds: float = 120.0
    sources: str = ""
    licence: str = ""
    binary: bool = False


@dataclass
class _Progress:
    steps: int = 0
    seconds: float = 0.0
    pictures: int = 0
    last_save: float = 0.0
    last_validation: float = 0.0
    curve: list[dict[str, float]] = field(default_factory=list)


def train(plan: TrainingPlan, report: Callable[[str], None] = print, device: str = "auto") -> ModelCard:
    """Train until `plan.minutes` are used up, over all resumed runs together; returns the card of the saved model.

    Everything goes to `plan.out`: `model.safetensors` and `card.json` (the moving average of the weights),
    `state.pt` to resume from, `curve.csv` and `validation.png`. `device` is auto, cpu or cuda. Raises MofmeError for
    unusable pictures or weights, for a device that is not there, and if there is a model without a state: it would be
    replaced.
    """
    if device not in ("auto", "cpu", "cuda") or (device == "cuda" and not torch.cuda.is_available()):
        raise MofmeError(f"there is no device {device} to train on: choose auto, cpu or, with a GPU, cuda")
    target = torch.device("cuda" if device != "cpu" and torch.cuda.is_available() else "cpu")
    accelerator = Accelerator(cpu=target.type == "cpu", mixed_precision="bf16" if bf16_pays(target) else "no")
    set_seed(plan.seed + accelerator.process_index)
    if not accelerator.is_main_process:
        report = _keep_quiet
    plan.out.mkdir(parents=True, exist_ok=True)

    net = build_net(plan.size)
    history: list[dict[str, object]] = []
    if plan.init is not None:
        start, card = load_net(str(plan.init))
        _fill(net, start.state_dict(), plan.init)
        history = list(card.training.get("runs", []))
    arguments = dict(SIZES[plan.size])
    if plan.binary:
        arguments["binary"] = binarise(net, keep=stays_real)
    net = net.to(accelerator.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    average = AveragedModel(net, multi_avg_fn=_moving_average)
    binary = [layer.weight for _, layer in binary_layers(net)]
    groups, factors = _groups(net, binary)
    optimizer = torch.optim.AdamW(groups, lr=plan.learning_rate, betas=(0.9, 0.99), weight_decay=1e-4, fused=True)
    model, optimizer = accelerator.prepare(net, optimizer)

    progress = _Progress()
    state_file = plan.out / "state.pt"
    generator = torch.Generator(accelerator.device)
    if state := load_checkpoint(state_file, accelerator.device):
        _fill(net, state["net"], state_file)
        average.load_state_dict(state["average"])
        optimizer.load_state_dict(state["optimizer"])
        progress = _Progress(**state["progress"])
        report(f"resumed at step {progress.steps}, {progress.seconds / 60:.1f} of {plan.minutes:g} minutes")
    # A resumed run goes on with new pictures instead of repeating those of its first minutes.
    generator.manual_seed(plan.seed + 7919 * accelerator.process_index + progress.steps)
    supply = _supply(plan, _sources(plan, accelerator.device), generator, progress)
    check = validation_pairs(load_clean(plan.clean, validation=True), seed=0)
    judges = load_pair_sets(plan.judges)

    def conclude() -> None:
        shown = validate(average.module, check, accelerator.device)
        judged = judge(cast(RestorationNet, average.module), judges, accelerator.device)
        _write_log(plan, progress, shown, judged)
        run = {
            **{name: getattr(plan, name) for name in ("minutes", "batch", "crop", "canvas", "learning_rate", "seed")},
            **({"processes": accelerator.num_processes} if accelerator.num_processes > 1 else {}),
            "steps": progress.steps,
            "hours": round(progress.seconds / 3600, 3),
            "pictures": progress.pictures,
            "device": accelerator.device.type,
            **({"binary": True} if plan.binary else {}),
        }
        card = ModelCard(
            name=f"{plan.size}-binary" if plan.binary else plan.size,
            net="restoration",
            arguments=arguments,
            licence=plan.licence,
            training={"data": plan.sources, "runs": [*history, run], "curve": progress.curve},
            metrics={"validation": shown.figures(), **({"judged_gain": judged} if judged else {})},
        )
        report(shown.line())
        if judged:
            report("never trained on, gain in dB: " + "  ".join(f"{name} {gain:+.2f}" for name, gain in judged.items()))
        save_packed(plan.out, card, average.module)

    clock = time.monotonic()
    while progress.seconds < 60 * plan.minutes:
        fraction = progress.seconds / (60 * plan.minutes)
        for group, factor in zip(optimizer.param_groups, factors, strict=True):
            group["lr"] = factor * plan.learning_rate * _schedule(fraction, progress.steps)
        batch = next(supply)
        with accelerator.autocast(), observe_routing(model) as routing:
            context = net.encode_context(batch.thumbnails) * batch.informed[:, None, None]
            output = model(batch.weathered.contiguous(memory_format=torch.channels_last), context)
        loss = objective(output, batch.clean, batch.labels, routing)
        accelerator.backward(loss)
        norm = accelerator.clip_grad_norm_(model.parameters(), 1.0)
        if norm is None or torch.isfinite(norm):
            optimizer.step()
            clip_weights(binary)
            average.update_parameters(net)
        optimizer.zero_grad()

        now = time.monotonic()
        elapsed, clock = now - clock, now
        if accelerator.num_processes > 1:  # one clock for all, or some would stop while others wait for them
            elapsed = broadcast(torch.tensor(elapsed, device=accelerator.device)).item()
        progress.seconds += elapsed
        progress.steps += 1
        progress.pictures += len(batch.clean) * accelerator.num_processes
        if progress.steps % 100 == 0 or progress.steps == 20:
            rate = progress.steps / progress.seconds
            left = plan.minutes - progress.seconds / 60
            report(f"step {progress.steps}  loss {loss.item():.4f}  {rate:.2f} steps/s  {left:.1f} minutes left")
        if accelerator.is_main_process and progress.seconds - progress.last_save > plan.save_seconds:
            progress.last_save = progress.seconds
            if progress.seconds - progress.last_validation > 60 * plan.validate_minutes:
                progress.last_validation = progress.seconds
                conclude()
            _save(state_file, net, average, optimizer, progress)
            clock = time.monotonic()
    if accelerator.is_main_process:
        conclude()
        _save(state_file, net, average, optimizer, progress)
    accelerator.wait_for_everyone()
    return load_card(plan.out)


def _groups(net: RestorationNet, binary: list[Tensor]) -> tuple[list[dict[str, Any]], list[float]]:
    """The optimizer's groups of parameters, and what the learning rate of each is multiplied by.

    Weights that become signs are not drawn to 0, where they would change their signs for nothing.
    """
    known = set(map(id, binary))
    real = [parameter for parameter in net.parameters() if id(parameter) not in known]
    if not binary:
        return [{"params": real}], [1.0]
    return [{"params": real}, {"params": binary, "weight_decay": 0.0}], [1.0, BINARY_RATE]


def _sources(plan: TrainingPlan, device: torch.device) -> list[Source]:
    """The kinds of scenes of a plan, their pictures in the memory of `device`."""
    given = [*plan.pairs.values(), *plan.haze.values(), *plan.rain_layers.values(), plan.identity]
    if min(given) < 0 or sum(given) >= 1:
        raise MofmeError(
            f"the shares of pairs, haze, rain layers and identity scenes add up to {sum(given):g}, not to 0...1"
        )
    pictures = [picture.to(device) for picture in load_clean(plan.clean, validation=False)]
    sources = [Source(1 - sum(given), synthesized(pictures)), Source(plan.identity, untouched(pictures))]
    for folder, share in plan.pairs.items():
        sources.append(Source(share, paired([pair.to(device) for pair in load_pairs([folder])])))
    for folder, share in plan.haze.items():
        sources.append(Source(share, hazed([scene.to(device) for scene in load_haze(folder)])))
    for folder, share in plan.rain_layers.items():
        pairs = [pair.to(device) for pair in load_pairs([folder])]
        sources.append(Source(share, rained_on(pictures, pairs)))
    return [source for source in sources if source.share > 0]


def _supply(
    plan: TrainingPlan, sources: Sequence[Source], generator: torch.Generator, progress: _Progress
) -> Iterator[Batch]:
    """Endless batches; late ones of larger crops, and fewer of them."""
    dice = Dice(torch.Generator().manual_seed(generator.initial_seed() % 2**31), generator)
    large = round(plan.crop * 5 / 3 / 8) * 8
    few = max(1, round(plan.batch * (plan.crop / large) ** 2))
    stages = [
        batches(sources, plan.canvas, crop, count, plan.crops_each, dice)
        for crop, count in ((plan.crop, plan.batch), (large, few))
    ]
    while True:
        yield next(stages[progress.seconds > _LARGE_CROPS_FROM * 60 * plan.minutes])


def _schedule(fraction: float, steps: int) -> float:
    """Linear warm-up, then a cosine down to 1 %: the factor on the learning rate."""
    cosine = 0.01 + 0.99 * (1 + math.cos(math.pi * min(fraction, 1.0))) / 2
    return cosine * min(1.0, (steps + 1) / _WARMUP_STEPS)


@torch.no_grad()
def _moving_average(averaged: _Tensors, current: _Tensors, count: Tensor | int) -> None:
    decay = min(_EMA_DECAY, (1 + int(count)) / (10 + int(count)))
    torch._foreach_lerp_(averaged, current, 1 - decay)


def _fill(net: RestorationNet, state: Mapping[str, Tensor], source: Path) -> None:
    try:
        net.load_state_dict(state)
    except RuntimeError as error:
        raise ModelError(
            f"{source} holds a net of another size, or other weights: choose its size (and --binary), or another "
            f"folder: {error}"
        ) from None


def _keep_quiet(_: str) -> None:
    """Of several processes only the first one reports."""


def _save(
    path: Path, net: RestorationNet, average: AveragedModel, optimizer: torch.optim.Optimizer, progress: _Progress
) -> None:
    state = {
        "net": net.state_dict(),
        "average": average.state_dict(),
        "optimizer": optimizer.state_dict(),
        "progress": asdict(progress),
    }
    save_checkpoint(path, state)


def _write_log(plan: TrainingPlan, progress: _Progress, shown: ValidationReport, judged: Mapping[str, float]) -> None:
    row = {"minutes": round(progress.seconds / 60, 2), "steps": progress.steps, **shown.flat()}
    row |= {f"gain_{name}": round(gain, 3) for name, gain in judged.items()}
    progress.curve.append(row)
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(row))
    writer.writeheader()
    writer.writerows(progress.curve)
    with atomic_file(plan.out / "curve.csv") as file:
        file.write(text.getvalue().encode())
    shown.save_sheet(plan.out / "validation.png")
