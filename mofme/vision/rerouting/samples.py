"""Pairs made of crops of photographs, and what the net makes of them."""

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from mofme.errors import PictureError
from mofme.vision.evaluation.weathered import with_weather
from mofme.vision.metrics import psnr
from mofme.vision.picture.file import read_picture
from mofme.vision.rerouting.observation import Observation, observed
from mofme.vision.rerouting.references import KINDS
from mofme.vision.restorer import Restorer
from mofme.vision.weather import WEATHERS

KEPT = 40.0  # dB to itself that a clear picture keeps at least


@dataclass(frozen=True)
class Sample:
    """A pair (3, S, S) and what the net makes of it: gain in dB, of a clear picture what it keeps."""

    kind: str
    weathered: Tensor
    clean: Tensor
    seen: Observation
    restored: Tensor

    @property
    def decibels(self) -> float:
        return decibels(self.restored, self.clean)

    @property
    def gain(self) -> float:
        return self.decibels - decibels(self.weathered, self.clean)


def decibels(image: Tensor, clean: Tensor) -> float:
    """PSNR of what would be saved, at most 100."""
    return min(psnr((image.clamp(0, 1) * 255).round()[None] / 255, clean[None]).item(), 100.0)


def name_bytes(path: Path) -> bytes:
    """A photograph's name without suffix, which on disk may be any bytes."""
    return path.stem.encode("utf-8", "surrogateescape")


def samples(restorer: Restorer, path: Path, crop: int, seed: int) -> Iterator[Sample]:
    """One crop of a photograph in each weather and as it is; nothing of one that is broken or too small."""
    try:
        rgb = read_picture(path).rgb
    except PictureError:
        return
    height, width = rgb.shape[-2:]
    if min(height, width) < crop:
        return
    generator = torch.Generator().manual_seed(zlib.crc32(f"{seed}/".encode() + name_bytes(path)))
    for kind in KINDS:
        top, left = (int(torch.randint(side - crop + 1, (), generator=generator)) for side in (height, width))
        clean = (rgb[:, top : top + crop, left : left + crop] * 255).round() / 255
        weathers = frozenset({kind}) & frozenset(WEATHERS)
        yield sample(restorer, kind, with_weather(clean, path.stem, weathers, seed), clean)


def sample(restorer: Restorer, kind: str, weathered: Tensor, clean: Tensor) -> Sample:
    """A pair, looked at."""
    with observed(restorer.net) as seen:
        restored = restorer(weathered).image
    return Sample(kind, weathered, clean, seen, restored)
