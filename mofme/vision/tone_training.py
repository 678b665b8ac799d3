"""Training the tone of a restorer: what is left to do to its pictures as a whole, after haze."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from mofme.core.training import Run, bf16_pays
from mofme.core.weights import ModelCard, load_card, save_model
from mofme.errors import ModelError, MofmeError
from mofme.files import CARD_FILE
from mofme.vision.datasets import load_clean
from mofme.vision.models import load_net
from mofme.vision.nets.tone import TONE_SIZE, ToneNet, apply_tone
from mofme.vision.nets.unet import RestorationNet
from mofme.vision.weather import WEATHERS, add_distractors, random_weathers, synthesize

_SIDE = 128
_TOGETHER = 8
_HAZE = 0.7
_HAZY = WEATHERS.index("haze")
# Errors below 30 dB PSNR count ever less: what a tone can mend is larger.
_FLOOR = 1e-3


@dataclass(frozen=True)
class TonePlan:
    """What to train on, for how long. `model` is the restorer that the tone is for; it stays as it is."""

    out: Path
    clean: Sequence[Path]
    model: str = "small"
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
    samples = gather(net, load_clean(plan.clean, validation=False), plan.samples, plan.seed, report)
    tone = fit(samples, plan, report)
    card = ModelCard(
        name="tone",
        net="tone",
        arguments={},
        licence=plan.licence,
        training={
            "data": plan.sources,
            **{name: getattr(plan, name) for name in ("model", "samples", "steps", "batch", "learning_rate", "seed")},
        },
    )
    return save_model(plan.out, card, tone.state_dict())


@torch.no_grad()
def gather(
    net: RestorationNet, pictures: Sequence[Tensor], count: int, seed: int, report: Callable[[str], None]
) -> ToneSamples:
    """Restore nearly whole pictures under synthesized weather, mostly haze; kept are those that are taken for hazy."""
    generator = torch.Generator().manual_seed(seed)
    net = net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    found: list[ToneSamples] = []
    for begin in range(0, count, _TOGETHER):
        chosen = torch.randint(len(pictures), (_TOGETHER,), generator=generator).tolist()
        clean = add_distractors(torch.stack([_view(pictures[i], generator) for i in chosen]), generator)
        drawn = random_weathers(_TOGETHER, generator)
        hazy = (torch.rand(_TOGETHER, generator=generator) < _HAZE).tolist()
        weathers = [frozenset({"haze"}) if haze else others for haze, others in zip(hazy, drawn, strict=True)]
        before = synthesize(clean, weathers, generator).image
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
        if (begin // _TOGETHER) % 100 == 99:
            report(f"{begin + _TOGETHER} of {count} pictures restored")
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
        loss = run.learn(10 * torch.log10(batch.error_B(tone) + _FLOOR).mean())
        schedule.step()
        if run.due(100):
            untouched = 10 * torch.log10(batch.error_B(torch.zeros_like(tone)) + _FLOOR).mean()
            report(f"step {run.steps}  gain {untouched.item() - loss:+.2f} dB on the batch")
    net.load_state_dict(run.trained.state_dict())
    return net.eval()


def _view(picture: Tensor, generator: torch.Generator) -> Tensor:
    """A square (3, 128, 128) in [0, 1] of most of a picture, upright, mirrored half the time."""
    draw = torch.rand(4, generator=generator).tolist()
    height, width = picture.shape[-2:]
    side = round(min(height, width) * (0.65 + 0.35 * draw[0]))
    top, left = int(draw[1] * (height - side + 1)), int(draw[2] * (width - side + 1))
    window = picture[None, :, top : top + side, left : left + side].float() / 255
    view = F.interpolate(window, (_SIDE, _SIDE), mode="bilinear", antialias=True, align_corners=False)[0]
    return view.flip(-1) if draw[3] < 0.5 else view


def _thumbnails(images: Tensor) -> Tensor:
    return (255 * _small(images.clamp(0, 1))).round().to(torch.uint8)


def _small(image: Tensor) -> Tensor:
    return F.adaptive_avg_pool2d(image, TONE_SIZE)
