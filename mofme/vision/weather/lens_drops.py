"""Drops as a camera focused on the scene sees them: discs out of focus, each with the whole scene upside down in it.

A drop close to the lens is a small wide-angle lens itself: sky below, ground above, and more of both than the picture
holds. Drops of one size show the same small picture, so one kernel for each of three sizes, convolved with sparse
impulses, draws them all; the same disc convolved alike is their opacity.
"""

import math

import torch
import torch.nn.functional as F
from kornia.filters import gaussian_blur2d
from torch import Tensor

from mofme.vision.weather.particles import (
    Draw,
    Size,
    gaussian,
    impulses,
    on_some,
    particle_scale,
    per_picture,
    to_frequency,
    to_picture,
    warp,
)
from mofme.vision.weather.raindrop import add_raindrops

_SIZES = (0.75, 1.0, 1.3)
_SMALLEST, _LARGEST = 3.5, 18.0
_NEAR_LARGEST, _NEAR_SHARE = 40.0, 0.2  # where the glass is close to the lens
_THUMBNAIL = 32


def add_lens_drops(clean: Tensor, draw: Draw) -> Tensor:
    """Drops of about one size that show the scene upside down, over 4 to 50 % of (B,3,H,W); the glass may be wet."""
    size = (clean.shape[-2], clean.shape[-1])
    radius = _radius(size, draw)
    inner = _scene_in_a_drop(clean, draw)
    rim = (draw.uniform(0, 0.6), draw.uniform(2, 6))
    cover = 0.04 + 0.46 * draw.rand().square()
    colour, opacity = _layers(inner, rim, radius, cover, draw.uniform(0.1, 0.45), size, draw)
    return _behind(_wet_glass(clean, draw), colour, opacity, draw.uniform(0.6, 1))


def add_soft_discs(clean: Tensor, draw: Draw) -> Tensor:
    """Drops so far out of focus that nothing is seen in them: soft discs, mostly brighter than what is around them."""
    size = (clean.shape[-2], clean.shape[-1])
    radius = _radius(size, draw)
    flat = torch.ones(len(clean), 3, _THUMBNAIL, _THUMBNAIL, device=draw.device)
    rim = (draw.uniform(-0.2, 0.3), draw.uniform(2, 6))
    cover = 0.03 + 0.37 * draw.rand().square()
    discs, opacity = _layers(flat, rim, radius, cover, draw.uniform(0.2, 0.6), size, draw)
    around = gaussian_blur2d(clean, 2 * round(1.5 * _LARGEST) + 1, radius[:, None].expand(-1, 2), border_type="reflect")
    sky = clean.flatten(2).quantile(0.9, dim=2)[:, :, None, None]
    light = around + per_picture(draw.uniform(-0.1, 1.1)) * (sky - around)
    # In `discs`, drawn of white, is only how bright a drop is from its centre to its rim.
    return _behind(_wet_glass(clean, draw), discs * light, opacity, draw.uniform(0.4, 0.95))


def add_any_drops(clean: Tensor, draw: Draw) -> Tensor:
    """Drops as training shows them: three in five pictures lenses, one soft discs, one liquid."""
    look = draw.rand()
    for add, chosen in (
        (add_lens_drops, look < 0.6),
        (add_soft_discs, (look >= 0.6) & (look < 0.8)),
        (add_raindrops, look >= 0.8),
    ):
        clean = on_some(clean, chosen.tolist(), add, draw.generator)
    return clean


def _radius(size: Size, draw: Draw) -> Tensor:
    largest = torch.where(draw.chance(_NEAR_SHARE), _NEAR_LARGEST, _LARGEST) * particle_scale(size)
    ratio = largest.clamp(1.01 * _SMALLEST, max(min(size) / 8, 1.01 * _SMALLEST)) / _SMALLEST
    return _SMALLEST * ratio ** draw.rand()


def _scene_in_a_drop(clean: Tensor, draw: Draw) -> Tensor:
    """A thumbnail (B,3,S,S) of the scene turned upside down, brighter than the scene where it shows the sky."""
    small = F.interpolate(clean, (_THUMBNAIL, _THUMBNAIL), mode="bilinear", antialias=True, align_corners=False)
    down = torch.linspace(1, -1, _THUMBNAIL, device=draw.device)[None, None, :, None]
    # The sky may lie outside of the picture: drops in front of a dark wood are bright.
    sky = per_picture(draw.uniform(0.55, 1)) * torch.sigmoid(per_picture(draw.uniform(2, 8)) * (down - 0.1))
    small = small + per_picture(draw.uniform(0, 0.8)) * sky * (1 - small)
    return small.flip((-2, -1)) * per_picture(draw.uniform(0.9, 1.5))


def _layers(
    inner: Tensor, rim: tuple[Tensor, Tensor], radius: Tensor, cover: Tensor, softness: Tensor, size: Size, draw: Draw
) -> tuple[Tensor, Tensor]:
    """Colour (B,3,H,W), premultiplied, and opacity (B,1,H,W) in [0, 1] of drops that show `inner`."""
    wide = draw.uniform(1, 1.7)
    share = draw.uniform(0.2, 1, len(_SIZES))
    share = share / share.sum(1, keepdim=True)
    spectrum = torch.zeros((), dtype=torch.complex64, device=draw.device)
    for number, factor in enumerate(_SIZES):
        own = factor * radius * draw.uniform(0.9, 1.1)
        kernel = _kernel(inner, rim, own, wide, size)
        # Drops that overlap cover less than the sum of them.
        density = -torch.log1p(-cover) * share[:, number] / (math.pi * own**2)
        places = impulses(density, size, draw, at_least_one=number == 1)
        spectrum = spectrum + to_frequency(places) * to_frequency(kernel)
    blur = gaussian(softness * radius, size)
    layers = to_picture(spectrum * blur[:, None], size)
    # No drop is quite round.
    cells = max(1, round(min(size) / (3 * _LARGEST)))
    bend = per_picture(radius * draw.uniform(0.1, 0.5)) * (2 * draw.smooth(size, (cells, 3 * cells), 2) - 1)
    colour, cover_B1HW = warp(layers, bend).clamp_min(0).split((3, 1), 1)
    opacity = cover_B1HW.clamp(0, 1)
    return colour / cover_B1HW.clamp_min(1e-3) * opacity, opacity


def _kernel(inner: Tensor, rim: tuple[Tensor, Tensor], radius: Tensor, wide: Tensor, size: Size) -> Tensor:
    """One drop about the origin of a periodic picture (B,4,H,W): its colour times its opacity, and its opacity."""
    y, x = (torch.fft.fftfreq(side, 1 / side, device=radius.device) for side in size)
    across, down = x[None, None] / per_picture(radius)[:, 0], y[None, :, None] / per_picture(radius)[:, 0]
    distance = (across**2 + down**2).sqrt()
    # Ever more of the scene is crowded towards the rim; past its borders it goes on as it ends.
    bulge = per_picture(wide)[:, 0] * (0.6 + 0.4 * distance**2)
    grid = torch.stack(torch.broadcast_tensors(across * bulge, down * bulge), dim=-1)
    seen = F.grid_sample(inner, grid, mode="bilinear", padding_mode="border", align_corners=False)
    darker, steepness = (per_picture(part)[:, 0] for part in rim)
    gain = 1 - darker * distance.clamp_max(1) ** steepness
    alpha = ((1 - distance) * per_picture(radius)[:, 0] + 0.5).clamp(0, 1)[:, None]
    return torch.cat((seen * gain[:, None] * alpha, alpha), 1)


def _wet_glass(clean: Tensor, draw: Draw) -> Tensor:
    """Now and then a film of water between the drops: a soft and slightly veiled scene."""
    wet = per_picture(draw.chance(0.25).float())
    soft = gaussian_blur2d(clean, 11, draw.uniform(0.4, 1.6)[:, None].expand(-1, 2), border_type="reflect")
    light = clean.mean((-3, -2, -1), keepdim=True) * 0.5 + per_picture(draw.uniform(0.3, 0.5))
    veiled = soft + per_picture(draw.uniform(0, 0.25)) * (light - soft)
    return clean + wet * (veiled - clean)


def _behind(scene: Tensor, colour: Tensor, opacity: Tensor, strength: Tensor) -> Tensor:
    return scene * (1 - per_picture(strength) * opacity) + per_picture(strength) * colour
