"""A fixed set of synthesized pairs that a training run is judged on, each weather by itself."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torchvision.utils import save_image

from mofme.errors import MofmeError
from mofme.vision.datasets import Pair
from mofme.vision.metrics import psnr
from mofme.vision.nets.unet import RestorationNet
from mofme.vision.restorer import Restorer
from mofme.vision.weather import WEATHERS, synthesize

_SIDE = 256
_PER_WEATHER = 8
_BATCH = 4
_EXACT = 100.0


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

    def line(self) -> str:
        gains = "  ".join(f"{name} {gain:+.2f}" for name, gain in self.gains().items())
        return f"validation, gain in dB: {gains}; clean pictures keep {self.kept_clean:.1f} dB"

    def flat(self) -> dict[str, float]:
        return {**{f"gain_{k}": round(v, 3) for k, v in self.gains().items()}, "clean": round(self.kept_clean, 2)}

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
    chosen = large[:: max(1, len(large) // _PER_WEATHER)][:_PER_WEATHER]
    clean = torch.stack([_centre(picture) for picture in chosen])
    generator = torch.Generator().manual_seed(seed)
    weathered = {
        name: synthesize(clean, [frozenset({name})] * len(clean), generator).image.clamp(0, 1) for name in WEATHERS
    }
    return ValidationPairs(weathered, clean)


@torch.no_grad()
def validate(net: nn.Module, pairs: ValidationPairs, device: torch.device) -> ValidationReport:
    """Restore every validation picture in full precision and measure it."""

    def restore(batch: Tensor) -> Tensor:
        parts = [net(part.to(device)).image.clamp(0, 1).cpu() for part in batch.split(_BATCH)]
        return (torch.cat(parts) * 255).round() / 255

    was_training = net.training
    net.eval()
    outputs = {name: restore(weathered) for name, weathered in pairs.weathered.items()}
    report = ValidationReport(
        {name: _mean_psnr(weathered, pairs.clean) for name, weathered in pairs.weathered.items()},
        {name: _mean_psnr(output, pairs.clean) for name, output in outputs.items()},
        _mean_psnr(restore(pairs.clean), pairs.clean),
        {name: (pairs.weathered[name][:2], output[:2], pairs.clean[:2]) for name, output in outputs.items()},
    )
    net.train(was_training)
    return report


def judge(net: RestorationNet, sets: Mapping[str, Sequence[Pair]], device: torch.device) -> dict[str, float]:
    """Mean gain in PSNR, dB, of each set's whole pictures, restored as a user would; no tone is mended."""
    restorer = Restorer(net, "judged", device)

    def gain(pair: Pair) -> float:
        weathered, clean = (part.float()[None] / 255 for part in (pair.weathered, pair.clean))
        restored = (restorer(weathered[0]).image[None] * 255).round() / 255
        return _mean_psnr(restored, clean) - _mean_psnr(weathered, clean)

    return {name: sum(map(gain, pairs)) / len(pairs) for name, pairs in sets.items()}


def _mean_psnr(a: Tensor, b: Tensor) -> float:
    return psnr(a, b).clamp(max=_EXACT).mean().item()


def _centre(picture: Tensor) -> Tensor:
    top, left = (picture.shape[-2] - _SIDE) // 2, (picture.shape[-1] - _SIDE) // 2
    return picture[:, top : top + _SIDE, left : left + _SIDE].float() / 255
