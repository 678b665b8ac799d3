"""Drops on the lens or a window: each a small wide-angle lens, out of focus, that shows the scene upside down."""

import math

import torch
from kornia.filters import gaussian_blur2d
from torch import Tensor

from mofme.vision.weather.draw import Draw, per_picture
from mofme.vision.weather.particles import (
    frequencies,
    gaussian,
    impulses,
    particle_scale,
    peak_one,
    to_frequency,
    to_picture,
    warp,
)

_RADII = ((2.5, 5.0), (5.0, 9.0), (9.0, 15.0), (15.0, 25.0))
# A Gaussian of peak 1 falls to one half at 1.177 sigma: there a drop ends.
_EDGE_SIGMAS = math.sqrt(2 * math.log(2))


def add_raindrops(clean: Tensor, draw: Draw) -> Tensor:
    """Drops over about 3 to 30 % of (B,3,H,W); outside of them the picture stays as it is."""
    height, width = clean.shape[-2:]
    depth, shift_x, shift_y, radius = _drops((height, width), draw)
    softness = per_picture(draw.uniform(0.08, 0.4))
    ramp = ((depth - 0.5 + softness / 2) / softness).clamp(0, 1)
    alpha = ramp * ramp * (3 - 2 * ramp) * per_picture(draw.uniform(0.75, 1))
    shift = torch.cat((shift_x, shift_y), 1)
    seen = warp(_blurred(clean, draw), -per_picture(draw.uniform(1.5, 4.5)) * shift)
    lower = (shift_y / radius).clamp(-1, 1)
    edge = (shift.square().sum(1, keepdim=True).sqrt() / radius).clamp(0, 1)
    gain = per_picture(draw.uniform(0.8, 1.15)) + per_picture(draw.uniform(-0.1, 0.35)) * lower
    gain = gain - per_picture(draw.uniform(0, 0.4)) * edge**3
    light = per_picture(draw.uniform(-0.02, 0.1))
    glint_at = draw.uniform(-0.5, 0.5)
    offset = (shift_x / radius - per_picture(glint_at)).square() + (shift_y / radius + 0.35).square()
    glint = per_picture(draw.uniform(0, 0.6) * draw.chance(0.4)) * torch.exp(-offset / 0.02)
    drop = (seen * gain + light + glint).clamp(0, 1)
    return clean + alpha * (drop - clean)


def _blurred(clean: Tensor, draw: Draw) -> Tensor:
    scale = particle_scale((clean.shape[-2], clean.shape[-1]))
    sigma = scale * draw.uniform(0.8, 3)
    side = round(6 * scale) * 2 + 1
    return gaussian_blur2d(clean, side, sigma[:, None].expand(-1, 2), border_type="replicate")


def _drops(size: tuple[int, int], draw: Draw) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Height of the water (above .5 is a drop), the way from the drop's centre in x and y, its radius: all (B,1,H,W)."""
    scale = particle_scale(size)
    coverage = draw.uniform(0.04, 0.36)
    share = draw.rand(len(_RADII)) ** 2 + 0.02
    share = share / share.sum(1, keepdim=True)
    v, u = frequencies(size, draw.device)
    height = torch.zeros((), dtype=torch.complex64, device=draw.device)
    offset_x, offset_y, radii = height, height, height
    for layer, (small, large) in enumerate(_RADII):
        radius = (scale * draw.uniform(small, large)).clamp_max(max(1.0, min(size) / 3))
        sigma = radius / _EDGE_SIGMAS
        density = coverage * share[:, layer] / (math.pi * radius**2)
        drops = impulses(density, size, draw, 0.75, at_least_one=layer == 0)
        spectrum = to_frequency(drops * 1.25) * peak_one(gaussian(sigma, size), size)[:, None]
        height = height + spectrum
        # The slope of a Gaussian is -(x - centre) / sigma^2 times it: so its slope tells where the centre is.
        slope = spectrum * (-2j * math.pi * sigma[:, None, None, None] ** 2)
        offset_x, offset_y = offset_x + slope * u, offset_y + slope * v
        radii = radii + spectrum * radius[:, None, None, None]
    fields = torch.cat((height, offset_x, offset_y, radii), 1)
    cells = max(1, round(min(size) / (14 * scale)))
    bend = scale * per_picture(draw.uniform(1, 5)) * (2 * draw.smooth(size, (cells, 2 * cells), 2) - 1)
    water, x, y, radius = warp(to_picture(fields, size), bend).chunk(4, 1)
    weight = water.clamp_min(0.05)
    return water, x / weight, y / weight, (radius / weight).clamp_min(1)
