"""Seeded random numbers for a batch of pictures: one value, or one smooth field, per picture."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Draw:
    """Draws for `batch` pictures on `device`, all from `generator`, which may live on another device."""

    generator: torch.Generator
    batch: int
    device: torch.device

    def rand(self, *shape: int) -> Tensor:
        """Uniform in [0, 1), shape (B, *shape)."""
        values = torch.rand(self.batch, *shape, generator=self.generator, device=self.generator.device)
        return values.to(self.device)

    def uniform(self, low: float, high: float, *shape: int) -> Tensor:
        """Uniform in [low, high), shape (B, *shape)."""
        return low + (high - low) * self.rand(*shape)

    def chance(self, probability: float) -> Tensor:
        """True with this probability, shape (B,)."""
        return self.rand() < probability

    def smooth(self, size: tuple[int, int], cells: tuple[int, ...], channels: int = 1) -> Tensor:
        """Noise (B, channels, H, W) in [0, 1], mean .5: an octave for each of `cells` across, halving."""
        field = torch.zeros(self.batch, channels, *size, device=self.device)
        total = 0.0
        for octave, count in enumerate(cells):
            grid = self.rand(channels, count + 1, count + 1)
            weight = 0.5**octave
            field += weight * F.interpolate(grid, size=size, mode="bilinear", align_corners=True)
            total += weight
        return field / total


def per_picture(values_B: Tensor) -> Tensor:
    """(B,) -> (B, 1, 1, 1), to scale whole pictures."""
    return values_B[:, None, None, None]


def on_some(
    image: Tensor, chosen: Sequence[bool], add: Callable[[Tensor, Draw], Tensor], generator: torch.Generator
) -> Tensor:
    """Apply `add` to the chosen pictures only, so that a batch costs no more than its weathers.

    At least in single precision, whatever the pictures are in.
    """
    index = torch.tensor([i for i, yes in enumerate(chosen) if yes], dtype=torch.long, device=image.device)
    if len(index) == 0:
        return image
    some = image.index_select(0, index).to(torch.promote_types(image.dtype, torch.float32))
    changed = add(some, Draw(generator, len(index), image.device)).clamp(0, 1)
    return image.index_copy(0, index, changed.to(image.dtype))
