"""Drops on the lens or a window: each a wide-angle lens, out of focus, that shows the scene upside down."""

import math

import torch
from kornia.filters import gaussian_blur2d
from torch import Tensor

from mofme.vision.weather.particles import (
    Draw,
    Size,
    frequencies,
    impulses,
    particle_scale,
    peak_one,
    per_picture,
    stretched_gaussian,
    to_frequency,
    to_picture,
    warp,
)

_RADII = ((2.5, 5.0), (5.0, 9.0), (9.0, 15.0), (15.0, 32.0))
# A Gaussian of peak 1 falls to one half at 1.177 sigma: there a drop ends.
_EDGE_SIGMAS = math.sqrt(2 * math.log(2))


def add_raindrops(clean: Tensor, draw: Draw) -> Tensor:
    """Drops over about 3 to 30 % of (B,3,H,W); away from them the picture stays as it is."""
    height, width = clean.shape[-2:]
    water, shift, radius = _drops((height, width), draw)
    softness = per_picture(draw.uniform(0.08, 0.4))
    ramp = ((water - 0.5) / softness + 0.5).clamp(0, 1)
    alpha = ramp * ramp * (3 - 2 * ramp) * per_picture(draw.uniform(0.75, 1))
    drop = _seen_through(clean, shift, radius, draw)
    # The camera looks at the scene, so drop and rim are out of focus together, and only they.
    layer = _out_of_focus(torch.cat((drop * alpha, alpha), 1), draw)
    return clean * (1 - layer[:, 3:]) + layer[:, :3]


def _seen_through(clean: Tensor, shift: Tensor, radius: Tensor, draw: Draw) -> Tensor:
    """The scene in each drop: turned about its centre, small, its lower side lit by the sky it sees there."""
    size = (clean.shape[-2], clean.shape[-1])
    seen = warp(clean, -per_picture(draw.uniform(1.5, 7)) * shift)
    x, y = (shift / radius).clamp(-1.5, 1.5).chunk(2, 1)
    lit = torch.sigmoid((y - per_picture(draw.uniform(-0.9, 0.4))) * per_picture(draw.uniform(2, 8)))
    mean = clean.mean((-2, -1), keepdim=True)
    # The sky may lie outside of this picture: drops in front of a dark wood are bright.
    share = torch.where(draw.chance(0.4), 1.0, draw.uniform(0.2, 1))
    sky = mean + per_picture(share) * (per_picture(draw.uniform(0.6, 1)) - mean)
    ground = mean * per_picture(draw.uniform(0.2, 1))
    # A drop sees far beyond this picture: colours of the whole scene stand in for what lies outside of it.
    cells = max(1, round(min(size) / (8 * particle_scale(size))))
    beyond = per_picture(draw.rand()) * (0.4 + 0.6 * draw.smooth(size, (cells,)))
    seen = seen + beyond * (ground + lit * (sky - ground) - seen)
    rim = (x * x + y * y).clamp_max(1)
    # Near its rim a drop turns light away: a soft dark border, or a thin ring where it is in focus.
    gain = per_picture(draw.uniform(0.85, 1.2)) - per_picture(draw.uniform(0, 0.4)) * rim
    gain = gain - per_picture(draw.uniform(0, 0.6) * draw.chance(0.4)) * rim**4
    glint_at = per_picture(draw.uniform(-0.5, 0.5))
    spot = torch.exp(-((x - glint_at).square() + (y + 0.35).square()) / 0.02)
    glint = per_picture(draw.uniform(0, 0.6) * draw.chance(0.4)) * spot
    return (seen * gain + per_picture(draw.uniform(-0.02, 0.06)) + glint).clamp(0, 1)


def _out_of_focus(layer: Tensor, draw: Draw) -> Tensor:
    scale = particle_scale((layer.shape[-2], layer.shape[-1]))
    sigma = scale * (0.3 + 2.7 * draw.rand())
    side = 2 * round(6 * scale) + 1
    return gaussian_blur2d(layer, side, sigma[:, None].expand(-1, 2), border_type="replicate")


def _drops(size: Size, draw: Draw) -> tuple[Tensor, Tensor, Tensor]:
    """Height of the water (B,1,H,W), a drop above .5; way from its centre (B,2,H,W); its radius (B,1,H,W).

    A drop that is drawn out is measured as if it were round: at its edge the way is as long as the radius.
    """
    scale = particle_scale(size)
    coverage = 0.03 + 0.24 * draw.rand() ** 1.5
    share = draw.rand(len(_RADII)) ** 2 * torch.tensor([1.0, 1.0, 0.6, 0.4], device=draw.device) + 0.02
    share = share / share.sum(1, keepdim=True)
    running = (draw.rand() * 6 * len(_RADII)).long()
    v, u = frequencies(size, draw.device)
    height = torch.zeros((), dtype=torch.complex64, device=draw.device)
    offset_x, offset_y, radii = height, height, height
    for layer, (small, large) in enumerate(_RADII):
        radius = (scale * draw.uniform(small, large)).clamp_max(max(1.0, min(size) / 3))
        # Water hangs down a little; where it runs, it leaves a stream.
        stretch = torch.where(running == layer, draw.uniform(2, 5), draw.uniform(0.9, 1.5))
        sigma = radius / _EDGE_SIGMAS
        tall = sigma * stretch
        density = coverage * share[:, layer] / (math.pi * radius**2 * stretch)
        drops = impulses(density, size, draw, 0.75, at_least_one=layer == 0)
        transfer = peak_one(stretched_gaussian(tall, sigma, size), size)
        spectrum = to_frequency(drops * 1.25) * transfer[:, None]
        height = height + spectrum
        # The slope of a Gaussian is -(x - centre) / sigma^2 times it: so its slope tells where the centre is.
        slope = spectrum * (-2j * math.pi * sigma[:, None, None, None])
        offset_x = offset_x + slope * u * sigma[:, None, None, None]
        offset_y = offset_y + slope * v * tall[:, None, None, None]
        radii = radii + spectrum * radius[:, None, None, None]
    fields = torch.cat((height, offset_x, offset_y, radii), 1)
    cells = max(1, round(min(size) / (14 * scale)))
    bend = scale * per_picture(3 * draw.rand()) * (2 * draw.smooth(size, (cells, 2 * cells), 2) - 1)
    water, shift, radius = warp(to_picture(fields, size), bend).split((1, 2, 1), 1)
    weight = water.clamp_min(0.05)
    return water, shift / weight, (radius / weight).clamp_min(1)
