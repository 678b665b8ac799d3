"""Snow: irregular flakes from tiny far ones to large ones out of focus, drawn out by their fall."""

import math

import torch
from torch import Tensor

from mofme.vision.weather.draw import Draw, per_picture
from mofme.vision.weather.haze import add_veil
from mofme.vision.weather.particles import (
    Size,
    disc,
    gaussian,
    impulses,
    motion,
    particle_scale,
    peak_one,
    to_frequency,
    to_picture,
    warp,
)

# Radius in pixels, share of the picture covered, opacity: from tiny and far to near and out of focus.
_SIZES = (
    (0.5, 0.9, 0.03, (0.4, 1.0)),
    (0.9, 1.6, 0.03, (0.5, 1.0)),
    (1.6, 2.6, 0.03, (0.5, 1.0)),
    (2.6, 4.5, 0.025, (0.4, 0.95)),
    (4.5, 9.0, 0.03, (0.15, 0.6)),
)


def add_snow(clean: Tensor, draw: Draw) -> Tensor:
    """Light to dense snowfall on (B,3,H,W), sometimes with a veil."""
    veil = torch.where(draw.chance(0.35), draw.uniform(0.6, 0.97), 1.0)
    veiled = add_veil(clean, veil, 0.65, draw)
    alpha = _flakes((clean.shape[-2], clean.shape[-1]), draw)
    blueness = draw.uniform(0, 0.06)[:, None] * torch.tensor([1.0, 0.4, 0.0], device=draw.device)
    white = (draw.uniform(0.85, 1)[:, None] - blueness)[:, :, None, None]
    return veiled + alpha * (white - veiled)


def _flakes(size: Size, draw: Draw) -> Tensor:
    """Opacity of all flakes (B,1,H,W) in [0, 1]."""
    scale = particle_scale(size)
    fall = draw.uniform(-1, 1) * math.radians(70)
    speed = 6 * draw.rand() ** 2.5
    amount = draw.uniform(0.1, 1.8)
    sure = (draw.rand() * 3).long()
    spectrum = torch.zeros((), dtype=torch.complex64, device=draw.device)
    for layer, (small, large, coverage, (faint, solid)) in enumerate(_SIZES):
        radius = scale * draw.uniform(small, large)
        present = draw.chance(0.75) | (sure == layer)
        strength = draw.uniform(faint, solid) * present
        length = radius * speed * draw.uniform(0.7, 1.3)
        edge = radius * draw.uniform(0.2, 0.5) + 0.3
        transfer = disc(radius, size) * gaussian(edge, size)
        transfer = peak_one(transfer * motion(length, fall + draw.uniform(-0.3, 0.3), size), size)
        density = amount * coverage * draw.uniform(0.3, 1.7) / (math.pi * radius**2 + 2 * radius * length)
        flakes = impulses(density, size, draw, 0.35, at_least_one=True)
        spectrum = spectrum + to_frequency(flakes) * (transfer * strength[:, None, None])[:, None]
    alpha = to_picture(spectrum, size)
    # Bending the plane by noise about as fine as the flakes makes no two of them alike.
    cells = max(1, round(min(size) / (5 * scale)))
    bend = scale * per_picture(draw.uniform(0.5, 2.5)) * (2 * draw.smooth(size, (cells,), 2) - 1)
    return warp(alpha, bend).clamp(0, 1)
