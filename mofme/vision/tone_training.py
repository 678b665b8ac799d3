"""Training the tone of a restorer: what is left to do to its pictures as a whole, after haze."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from mofme.core.training import Run, bf16_pays
from mofme.core.weights import ModelCard, load_card, save_model
from mofme.errors import ModelError, MofmeError
from mofme.files import CARD_FILE, DEFAULT_MODEL
from mofme.vision.models import load_net
from mofme.vision.nets.tone import TONE_SIZE, ToneNet, apply_tone
from mofme.vision.nets.unet import RestorationNet
from mofme.vision.scenes import Dice, Source, some_scenes, sources_of
from mofme.vision.weather import WEATHERS

_CANVAS = 224  # nearly whole pictures, small: thumbnails are made of them
_LEAST_SIDE = 128
_HAZY = WEATHERS.index("haze")
_TOLD = ("model", "samples", "identity", "steps", "batch", "learning_rate", "seed")


@dataclass(frozen=True)
class TonePlan:
    """What to train on, for how long. `model` is the restorer that the tone is for; it stays as it is.

    `haze` and `identity` are as those of a `TrainingPlan`.
    """

    out: Path
    clean: Sequence[Path]
    haze: Mapping[Path, float] = field(default_factory=dict)
    identity: float = 0.25
    model: str = DEFAULT_MODEL
    samples: int = 16_000
    steps: int = 1500
    batch: int = 64
    learning_rate: float = 4e-3
    seed: int = 0
    sources: str = ""
    licence: str = ""


@dataclass(frozen=True)
class ToneSamples:
    """Thumbnails (N, 3, 64, 64) of pictures `before` and `after` restoring, and `clean`, all uint8; `rest_N`: the mean
    squared error in details that thumbnails do not show; `weight_N` in [0, 1]: how much of a tone they get."""

    before: Tensor
    after: Tensor
    clean: Tensor
    rest_N: Tensor
    weight_N: Tensor

    def __getitem__(self, chosen: Tensor) -> "ToneSamples":
        return ToneSamples(*(getattr(self, name)[chosen] for name in self.__dataclass_fields__))

    def error_B(self, tone: Tensor) -> Tensor:
        """Mean squared error (N,) of the pictures with this tone (N, 2, 3)."""
        toned = apply_tone(self.after.float() / 255, tone * self.weight_N[:, None, None])
        return self.rest_N + (toned - self.clean.float() / 255).square().mean(dim=(1, 2, 3))


def train_tone(plan: TonePlan, report: Callable[[str], None] = print) -> ModelCard:
    """Gather samples, train on them, and save to `plan.out`.

    Raises MofmeError for unusable pictures or models, and if `plan.out` is the folder of another net.
    """
    if (plan.out / CARD_FILE).is_file() and (held := load_card(plan.out)).net != "tone":
        raise ModelError(
            f"{plan.out} holds a {held.net!r} net, which the tone would replace: name {plan.out / 'tone'}, say"
        )
    net, _ = load_net(plan.model)
    sources = sources_of(plan.clean, haze=plan.haze, identity=plan.identity)
    samples = gather(net, sources, plan.samples, plan.seed, report)
    tone = fit(samples, plan, report)
    card = ModelCard(
        name="tone",
        net="tone",
        arguments={},
        licence=plan.licence,
        training={"data": plan.sources, **{name: getattr(plan, name) for name in _TOLD}},
    )
    return save_model(plan.out, card, tone.state_dict())


@torch.no_grad()
def gather(
    net: RestorationNet, sources: Sequence[Source], count: int, seed: int, report: Callable[[str], None]
) -> ToneSamples:
    """Restore scenes as the net learned from, but nearly whole ones; kept are those that are taken for hazy."""
    dice = Dice(torch.Generator().manual_seed(seed), torch.Generator().manual_seed(seed + 1))
    net = net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    found: list[ToneSamples] = []
    for done in range(1, count + 1):
        before, clean, _ = some_scenes(sources, _CANVAS, _LEAST_SIDE, dice)
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16_pays(torch.device("cpu"))):
            output = net(before.contiguous(memory_format=torch.channels_last))
        after = output.image.float().clamp(0, 1)
        difference = after - clean
        rest_N = difference.square().mean((1, 2, 3)) - _small(difference).square().mean((1, 2, 3))
        # More than are trusted in use: there is more to learn from.
        weight_N = (2 * torch.sigmoid(output.weather_BW.float())[:, _HAZY] - 1).clamp(0, 1)
        samples = ToneSamples(
            _thumbnails(before), _thumbnails(after), _thumbnails(clean), rest_N.clamp_min(0), weight_N
        )
        found.append(samples[weight_N > 0])
        if done % 800 == 0:
            report(f"{done} of {count} pictures restored")
    joined = (torch.cat([getattr(part, name) for part in found]) for name in ToneSamples.__dataclass_fields__)
    return ToneSamples(*joined)


@torch.random.fork_rng(devices=[])  # draws of the caller are left as they would be
def fit(samples: ToneSamples, plan: TonePlan, report: Callable[[str], None]) -> ToneNet:
    """The moving average of a net that learnt to raise the PSNR of the samples."""
    if not len(samples.rest_N):
        raise MofmeError("the restorer takes no picture for hazy: there is no tone to learn")
    torch.manual_seed(plan.seed)
    net = ToneNet()
    average = AveragedModel(net, multi_avg_fn=get_ema_multi_avg_fn(0.99), use_buffers=True)
    optimizer = torch.optim.AdamW(net.parameters(), plan.learning_rate, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, plan.learning_rate, total_steps=plan.steps + 1)
    run = Run(net, optimizer, steps=plan.steps, average=average)
    for _ in run:
        batch = samples[torch.randint(len(samples.rest_N), (plan.batch,))]
        tone = net(batch.before.float() / 255, batch.after.float() / 255)
        loss = run.learn(_decibels(batch, tone))
        schedule.step()
        if run.due(100):
            untouched = _decibels(batch, torch.zeros_like(tone))
            report(f"step {run.steps}  gain {untouched.item() - loss:+.2f} dB on the batch")
    net.load_state_dict(run.trained.state_dict())
    return net.eval()


def _decibels(batch: ToneSamples, tone: Tensor) -> Tensor:
    """Minus the PSNR; errors below 30 dB count ever less: what a tone can mend is larger."""
    return 10 * torch.log10(batch.error_B(tone) + 1e-3).mean()


def _thumbnails(images: Tensor) -> Tensor:
    return (255 * _small(images.clamp(0, 1))).round().to(torch.uint8)


def _small(image: Tensor) -> Tensor:
    return F.adaptive_avg_pool2d(image, TONE_SIZE)
