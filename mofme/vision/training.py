"""Training a restorer: clean photographs in, weather synthesized on the device, weights and a card out.

The schedule runs over time, not steps: a run takes the minutes it is given, on whatever machine, and what a killed run
had done since its last checkpoint is all that is lost.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast, set_seed
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel
from torchvision.utils import save_image

from mofme.core.binary import binarise, binary_layers, clip_weights
from mofme.core.moe import observe_routing
from mofme.core.training import Run, bf16_pays, cosine
from mofme.core.weights import ModelCard, load_card, save_packed
from mofme.errors import ModelError, MofmeError
from mofme.files import write_table
from mofme.vision.datasets import Pair, centre, load_clean, load_pair_sets
from mofme.vision.evaluation import to_8_bits
from mofme.vision.metrics import objective, psnr
from mofme.vision.models import BINARY_RATE, SIZES, build_net, load_net, stays_real
from mofme.vision.nets.unet import RestorationNet
from mofme.vision.restorer import Restorer
from mofme.vision.scenes import Batch, Dice, Source, batches, sources_of
from mofme.vision.weather import WEATHERS, synthesize

_WARMUP_STEPS = 300
_LARGE_CROPS_FROM = 0.65
_EMA_DECAY = 0.999
_SIDE = 256  # of pictures to validate on
_CROPS_EACH = 6


@dataclass(frozen=True)
class TrainingPlan:
    """What to train, on what, for how long. `crop` is the side of the first crops, in pixels; later ones are larger.

    `pairs`, `haze` and `rain_layers` are folders, each with its share of the scenes; `identity` is that of scenes with
    nothing to do, and synthesized weather has the rest. Weather is put on canvases of about `canvas` x `canvas` pixels,
    of which several crops are taken. `judges` are folders of pairs that are never trained on: the gain on them is
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
    learning_rate: float = 1e-3
    seed: int = 0
    validate_minutes: float = 10.0
    sources: str = ""
    licence: str = ""
    binary: bool = False


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
    tell = report if accelerator.is_main_process else lambda _: None
    plan.out.mkdir(parents=True, exist_ok=True)

    net = build_net(plan.size)
    history: list[dict[str, object]] = []
    if plan.init is not None:
        start, card = load_net(str(plan.init))
        try:
            net.load_state_dict(start.state_dict())
        except RuntimeError as error:
            raise ModelError(f"{plan.init} holds a net of another size: choose its --size: {error}") from None
        history = list(card.training.get("runs", []))
    arguments = dict(SIZES[plan.size])
    if plan.binary:
        arguments["binary"] = binarise(net, keep=stays_real)
    net = net.to(accelerator.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    average = AveragedModel(net, multi_avg_fn=_moving_average)
    model, optimizer = accelerator.prepare(net, _optimizer(net, plan.learning_rate))

    run = _SharedRun(
        net,
        optimizer,
        seconds=60 * plan.minutes,
        schedule=cosine(floor=0.01),
        warm_up=_WARMUP_STEPS,
        clip=1.0,
        average=average,
    )
    run.accelerator = accelerator
    run.notes = {"pictures": 0, "last_save": 0.0, "last_validation": 0.0, "curve": []}
    if run.resume(plan.out / "state.pt"):
        tell(f"resumed at step {run.steps}, {run.seconds / 60:.1f} of {plan.minutes:g} minutes")
    # A resumed run goes on with new pictures instead of repeating those of its first minutes.
    seed = plan.seed + 7919 * accelerator.process_index + run.steps
    generator = torch.Generator(accelerator.device).manual_seed(seed)
    shares = {name: getattr(plan, name) for name in ("pairs", "haze", "rain_layers", "identity")}
    supply = _supply(plan, sources_of(plan.clean, **shares, device=accelerator.device), generator, run)
    check = validation_pairs(load_clean(plan.clean, validation=True), seed=0)
    judges = load_pair_sets(plan.judges)

    def conclude() -> None:
        shown = validate(average.module, check, accelerator.device)
        judged = judge(cast(RestorationNet, average.module), judges, accelerator.device)
        _write_log(plan, run, shown, judged)
        told = {
            **{name: getattr(plan, name) for name in ("minutes", "batch", "crop", "canvas", "learning_rate", "seed")},
            **({"processes": accelerator.num_processes} if accelerator.num_processes > 1 else {}),
            "steps": run.steps,
            "hours": round(run.seconds / 3600, 3),
            "pictures": run.notes["pictures"],
            "device": accelerator.device.type,
            **({"binary": True} if plan.binary else {}),
        }
        card = ModelCard(
            name=f"{plan.size}-binary" if plan.binary else plan.size,
            net="restoration",
            arguments=arguments,
            licence=plan.licence,
            training={"data": plan.sources, "runs": [*history, told], "curve": run.notes["curve"]},
            metrics={"validation": shown.figures(), **({"judged_gain": judged} if judged else {})},
        )
        kept = f"clean pictures keep {shown.kept_clean:.1f} dB"
        tell(f"validation, gain in dB: {_signed(shown.gains())}; {kept}")
        if judged:
            tell(f"never trained on, gain in dB: {_signed(judged)}")
        save_packed(plan.out, card, average.module)

    for _ in run:
        batch = next(supply)
        with accelerator.autocast(), observe_routing(model) as routing:
            context = net.encode_context(batch.thumbnails) * batch.informed[:, None, None]
            output = model(batch.weathered.contiguous(memory_format=torch.channels_last), context)
        loss = run.learn(objective(output, batch.clean, batch.labels, routing))
        run.notes["pictures"] += len(batch.clean) * accelerator.num_processes
        # Early, too: how fast a machine is decides whether the run is worth its time.
        if run.steps % 100 == 0 or run.steps == 20:
            left = plan.minutes - run.seconds / 60
            tell(f"step {run.steps}  loss {loss:.4f}  {run.steps / run.seconds:.2f} steps/s  {left:.1f} minutes left")
        if accelerator.is_main_process and run.seconds - run.notes["last_save"] > 120:
            run.notes["last_save"] = run.seconds
            if run.seconds - run.notes["last_validation"] > 60 * plan.validate_minutes:
                run.notes["last_validation"] = run.seconds
                conclude()
            run.save()
    if accelerator.is_main_process:
        conclude()
        run.save()
    accelerator.wait_for_everyone()
    return load_card(plan.out)


class _SharedRun(Run):
    """A run by one clock for all processes, or some would stop while others wait for them."""

    accelerator: Accelerator

    def elapsed(self) -> float:
        own = super().elapsed()
        if self.accelerator.num_processes == 1:
            return own
        return float(broadcast(torch.tensor(own, device=self.accelerator.device)))


def _optimizer(net: RestorationNet, rate: float) -> torch.optim.Optimizer:
    """Weights that become signs learn at a rate of their own, and are not drawn to 0, where they would change them."""
    binary = [layer.weight for _, layer in binary_layers(net)]
    real = [part for part in net.parameters() if not any(part is one for one in binary)]
    groups: list[dict[str, Any]] = [{"params": real}]
    if binary:
        groups.append({"params": binary, "lr": BINARY_RATE * rate, "weight_decay": 0.0})
    optimizer = torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.99), weight_decay=1e-4, fused=True)
    optimizer.register_step_post_hook(lambda *_: clip_weights(binary))
    return optimizer


def _supply(plan: TrainingPlan, sources: Sequence[Source], generator: torch.Generator, run: Run) -> Iterator[Batch]:
    """Endless batches; late ones of larger crops, and fewer of them."""
    dice = Dice(torch.Generator().manual_seed(generator.initial_seed() % 2**31), generator)
    large = round(plan.crop * 5 / 3 / 8) * 8
    sizes = (plan.crop, plan.batch), (large, max(1, round(plan.batch * (plan.crop / large) ** 2)))
    stages = [batches(sources, plan.canvas, *size, _CROPS_EACH, dice) for size in sizes]
    while True:
        yield next(stages[run.seconds > _LARGE_CROPS_FROM * 60 * plan.minutes])


@torch.no_grad()
def _moving_average(averaged: Any, current: Any, count: Tensor | int) -> None:
    torch._foreach_lerp_(averaged, current, 1 - min(_EMA_DECAY, (1 + int(count)) / (10 + int(count))))


@dataclass(frozen=True)
class ValidationPairs:
    """For every weather, and for clean pictures: aligned (N, 3, S, S) in [0, 1]."""

    weathered: dict[str, Tensor]
    clean: Tensor


@dataclass(frozen=True)
class ValidationReport:
    """Mean PSNR in dB on 8-bit RGB, of the untouched inputs, the restored ones, and clean pictures put through.

    A picture that comes out exactly right counts as 100 dB.
    """

    untouched: dict[str, float]
    restored: dict[str, float]
    kept_clean: float
    samples: dict[str, tuple[Tensor, Tensor, Tensor]]

    def gains(self) -> dict[str, float]:
        return {name: self.restored[name] - self.untouched[name] for name in self.restored}

    def figures(self) -> dict[str, dict[str, float] | float]:
        weathers = {
            name: {"input": round(self.untouched[name], 2), "restored": round(value, 2)}
            for name, value in self.restored.items()
        }
        return {**weathers, "clean_kept": round(self.kept_clean, 2)}

    def save_sheet(self, path: Path) -> None:
        """A row for each weather: up to two samples, each as input, restored, clean."""
        rows = [torch.stack(parts, dim=1).flatten(0, 1) for parts in self.samples.values()]
        save_image(torch.cat(rows), path, nrow=len(rows[0]), padding=2)


def validation_pairs(pictures: Sequence[Tensor], seed: int) -> ValidationPairs:
    """Centre crops of held-back uint8 photographs, the same weathers on them at every call with the same seed.

    Raises MofmeError if none of the photographs is large enough.
    """
    large = [picture for picture in pictures if min(picture.shape[-2:]) >= _SIDE]
    if not large:
        raise MofmeError(
            f"no photograph held back for validation is {_SIDE} x {_SIDE} pixels or larger: add some that are"
        )
    chosen = large[:: max(1, len(large) // 8)][:8]
    clean = torch.stack([centre(picture, _SIDE, _SIDE) for picture in chosen])
    generator = torch.Generator().manual_seed(seed)
    weathered = {name: synthesize(clean, [name] * len(clean), generator).image for name in WEATHERS}
    return ValidationPairs(weathered, clean)


@torch.no_grad()
def validate(net: nn.Module, pairs: ValidationPairs, device: torch.device) -> ValidationReport:
    """Restore every validation picture in full precision and measure it."""

    def restore(batch: Tensor) -> Tensor:
        return to_8_bits(torch.cat([net(part.to(device)).image.cpu() for part in batch.split(4)]))

    was_training = net.training
    net.eval()
    outputs = {name: restore(weathered) for name, weathered in pairs.weathered.items()}
    kept_clean = _mean_psnr(restore(pairs.clean), pairs.clean)
    net.train(was_training)
    before, after = (
        {name: _mean_psnr(seen, pairs.clean) for name, seen in those.items()} for those in (pairs.weathered, outputs)
    )
    samples = {name: (pairs.weathered[name][:2], output[:2], pairs.clean[:2]) for name, output in outputs.items()}
    return ValidationReport(before, after, kept_clean, samples)


def judge(net: RestorationNet, sets: Mapping[str, Sequence[Pair]], device: torch.device) -> dict[str, float]:
    """Mean gain in PSNR, dB, of each set's whole pictures, restored as a user would; no tone is mended."""
    restorer = Restorer(net, "judged", device)

    def gain(pair: Pair) -> float:
        weathered, clean = (part.float()[None] / 255 for part in (pair.weathered, pair.clean))
        restored = to_8_bits(restorer(weathered[0]).image[None])
        return _mean_psnr(restored, clean) - _mean_psnr(weathered, clean)

    return {name: sum(map(gain, pairs)) / len(pairs) for name, pairs in sets.items()}


def _write_log(plan: TrainingPlan, run: Run, shown: ValidationReport, judged: Mapping[str, float]) -> None:
    row = {
        "minutes": round(run.seconds / 60, 2),
        "steps": run.steps,
        **{f"gain_{name}": round(gain, 3) for name, gain in shown.gains().items()},
    }
    row |= {"clean": round(shown.kept_clean, 2), **{f"gain_{name}": round(gain, 3) for name, gain in judged.items()}}
    run.notes["curve"].append(row)
    curve = run.notes["curve"]
    columns = list(dict.fromkeys(name for one in curve for name in one))  # a resumed run may have other judges
    write_table(plan.out / "curve.csv", [columns, *([one.get(name, "") for name in columns] for one in curve)])
    shown.save_sheet(plan.out / "validation.png")


def _signed(gains: Mapping[str, float]) -> str:
    return "  ".join(f"{name} {gain:+.2f}" for name, gain in gains.items())


def _mean_psnr(a: Tensor, b: Tensor) -> float:
    return psnr(a, b).clamp(max=100).mean().item()
