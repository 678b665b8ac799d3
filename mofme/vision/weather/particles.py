"""Streaks, flakes and drops by one engine: sparse impulses convolved with analytic kernels in Fourier space.

As the kernel is given by its transfer function, any length, angle and width is exact to a fraction of a pixel
and costs the same two transforms. The picture is periodic: what leaves on one side enters on the other. What is random
is drawn from a seed for a batch of pictures: one value, or one smooth field, per picture.

Axes: B pictures, H and W pixels, V = H and U = W // 2 + 1 frequencies of the real transform.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

Size = tuple[int, int]


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

    def smooth(self, size: Size, cells: tuple[int, ...], channels: int = 1) -> Tensor:
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


def particle_scale(size: Size) -> float:
    """How much larger particles are drawn than in a usual picture; 1 for everything up to 512 pixels."""
    return max(1.0, min(size) / 512)


@lru_cache(maxsize=16)
def frequencies(size: Size, device: torch.device) -> tuple[Tensor, Tensor]:
    """Vertical (V, 1) and horizontal (1, U) frequencies in cycles per pixel."""
    return torch.fft.fftfreq(size[0], device=device)[:, None], torch.fft.rfftfreq(size[1], device=device)[None]


def motion(length_B: Tensor, angle_B: Tensor, size: Size) -> Tensor:
    """Transfer (B, V, U) of a line `length` pixels long, `angle` radians from the vertical towards +x."""
    v, u = frequencies(size, length_B.device)
    along = u * torch.sin(angle_B)[:, None, None] + v * torch.cos(angle_B)[:, None, None]
    return torch.sinc(length_B[:, None, None] * along)


def gaussian(sigma_B: Tensor, size: Size, wide_B: Tensor | None = None) -> Tensor:
    """Transfer (B, V, U) of a Gaussian of standard deviation `sigma` downwards and `wide`, or the same, across."""
    v, u = frequencies(size, sigma_B.device)
    across = sigma_B if wide_B is None else wide_B
    downwards = torch.exp(-2 * math.pi**2 * (sigma_B[:, None, None] * v) ** 2)
    return downwards * torch.exp(-2 * math.pi**2 * (across[:, None, None] * u) ** 2)


def disc(radius_B: Tensor, size: Size) -> Tensor:
    """Transfer (B, V, U) of a uniform disc of `radius` pixels, the picture of a point out of focus."""
    v, u = frequencies(size, radius_B.device)
    x = 2 * math.pi * radius_B[:, None, None] * torch.sqrt(u * u + v * v).clamp_min(1e-6)
    return 2 * torch.special.bessel_j1(x) / x


def peak_one(transfer_BVU: Tensor, size: Size) -> Tensor:
    """Scale the kernel so that its centre is 1: an impulse of amplitude a becomes a particle of peak a."""
    # The kernel's centre is the mean over all frequencies; the real transform leaves out mirrored columns.
    stored_twice = torch.full((transfer_BVU.shape[-1],), 2.0, device=transfer_BVU.device)
    stored_twice[0] = 1
    if size[1] % 2 == 0:
        stored_twice[-1] = 1
    centre = (transfer_BVU * stored_twice).sum((-2, -1), keepdim=True) / (size[0] * size[1])
    return transfer_BVU / centre.clamp_min(1e-6)


def impulses(density_B: Tensor, size: Size, draw: Draw, faintest: float = 1.0, at_least_one: bool = False) -> Tensor:
    """Sparse field (B,1,H,W): with probability `density` an amplitude uniform in [faintest, 1], else 0."""
    field = draw.rand(1, *size)
    density = density_B[:, None, None, None].clamp_min(1e-9)
    if at_least_one:
        density = torch.maximum(density, field.amin((-2, -1), keepdim=True) * (1 + 1e-4) + 1e-9)
    # Below the density, the same number divided by it is again uniform in [0, 1).
    return torch.where(field < density, faintest + (1 - faintest) * field / density, 0.0)


def to_picture(spectrum: Tensor, size: Size) -> Tensor:
    """Complex (B, C, V, U) -> (B, C, H, W)."""
    return torch.fft.irfft2(spectrum, s=size)


def warp(field: Tensor, shift: Tensor) -> Tensor:
    """`field` (B,C,H,W) at each pixel plus `shift` (B,2,H,W): x, y in pixels; mirrored past the border."""
    height, width = field.shape[-2:]
    ys = torch.arange(height, device=field.device, dtype=field.dtype)[:, None] + shift[:, 1]
    xs = torch.arange(width, device=field.device, dtype=field.dtype)[None] + shift[:, 0]
    grid = torch.stack(((2 * xs + 1) / width - 1, (2 * ys + 1) / height - 1), dim=-1)
    return F.grid_sample(field, grid, mode="bilinear", padding_mode="reflection", align_corners=False)
