"""Rain: layers of motion-blurred streaks from far to near, and the veil of heavy rain."""

import math

import torch
from torch import Tensor

from mofme.vision.weather.draw import Draw, per_picture
from mofme.vision.weather.haze import add_veil
from mofme.vision.weather.particles import (
    Size,
    gaussian,
    impulses,
    motion,
    particle_scale,
    peak_one,
    to_frequency,
    to_picture,
)

_LAYERS = 4


def add_rain(clean: Tensor, draw: Draw) -> Tensor:
    """Light to heavy rain on (B,3,H,W): bright additive streaks, translucent grey ones, and those between."""
    heavy = draw.chance(0.35)
    veil = torch.where(heavy, draw.uniform(0.45, 0.95), 1.0)
    veiled = add_veil(clean, veil, 0.55, draw)
    streaks = _streaks((clean.shape[-2], clean.shape[-1]), heavy, draw)
    # Opacity 0 adds light, as most synthetic rain sets do; 1 hides the scene, as a near drop does.
    opacity = torch.where(draw.chance(0.4), torch.zeros_like(veil), draw.uniform(0, 1))
    grey = draw.uniform(0.7, 1)[:, None] + draw.uniform(-0.02, 0.02, 3)
    return veiled * (1 - per_picture(opacity) * streaks) + streaks * grey[:, :, None, None]


def _streaks(size: Size, heavy: Tensor, draw: Draw) -> Tensor:
    """Brightness of all streaks (B,1,H,W) in [0, 1]."""
    scale = particle_scale(size)
    steepest = torch.where(draw.chance(0.06), math.radians(70), math.radians(45))
    lean = draw.uniform(-1, 1)
    angle = steepest * lean * lean.abs().sqrt()
    # A downpour is not more of the same streaks but a fine, faint texture of very many.
    fine = draw.rand() * heavy
    amount = draw.uniform(0.3, 1.3) * (1 + 6 * fine)
    brightness = draw.uniform(0.45, 1.2) * (1 - fine * draw.uniform(0.45, 0.85))
    thinness = scale * (1 - 0.25 * fine)
    sure = (draw.rand() * _LAYERS).long()
    spectrum = torch.zeros((), dtype=torch.complex64, device=draw.device)
    for layer in range(_LAYERS):
        near = (layer + draw.rand()) / _LAYERS
        length = scale * (8 + 47 * near * draw.uniform(0.3, 1.1))
        sigma = thinness * (0.5 + (0.2 + 1.2 * near**2) * draw.rand() ** 1.5)
        wide = draw.chance(0.1)
        sigma = torch.where(wide, sigma * 1.6, sigma)
        coverage = amount * draw.uniform(0.03, 0.13) * torch.where(wide, 0.4, 1.0)
        strength = brightness * (0.25 + 0.45 * near) * draw.uniform(0.6, 1.3) * torch.where(wide, 0.6, 1.0)
        strength = strength * (draw.chance(0.5) | (sure == layer))
        tilt = angle + draw.uniform(-0.06, 0.06)
        # A short line times a long one is a line with faded ends.
        taper = draw.uniform(0.1, 0.5)
        transfer = motion(length * (1 - taper), tilt, size) * motion(length * taper, tilt, size)
        transfer = peak_one(transfer * gaussian(sigma, size), size)
        drops = impulses(coverage / (2.5 * sigma * length), size, draw, 0.3, at_least_one=True)
        spectrum = spectrum + to_frequency(drops) * (transfer * strength[:, None, None])[:, None]
    flicker = 0.6 + 0.8 * draw.smooth(size, (8, 24))
    return (to_picture(spectrum, size) * flicker).clamp(0, 1)
