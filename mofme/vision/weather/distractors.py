"""What looks like weather and belongs to the picture: lights and grounds out of focus, dull light. To be kept.

It goes into the clean picture before the weather does, so that input and target both show it.
"""

import math

import torch
from kornia.filters import gaussian_blur2d
from torch import Tensor

from mofme.vision.weather.draw import Draw, on_some, per_picture
from mofme.vision.weather.particles import (
    disc,
    gaussian,
    impulses,
    particle_scale,
    peak_one,
    to_frequency,
    to_picture,
)

_OUT_OF_FOCUS_SHARE = 0.15
_DULL_SHARE = 0.15


def add_distractors(clean: Tensor, generator: torch.Generator) -> Tensor:
    """Some of the pictures (B,3,H,W) in [0,1] changed into others that are as clean; the rest bit for bit."""
    draw = Draw(generator, len(clean), clean.device)
    blurred = draw.chance(_OUT_OF_FOCUS_SHARE).tolist()
    dull = draw.chance(_DULL_SHARE).tolist()
    return on_some(on_some(clean, blurred, _out_of_focus, generator), dull, _in_dull_light, generator)


def _out_of_focus(clean: Tensor, draw: Draw) -> Tensor:
    """A lens wide open: soft regions, and in them bright or dark points as discs."""
    size = (clean.shape[-2], clean.shape[-1])
    scale = particle_scale(size)
    # Of a point the lens makes a disc as large as the blur of all around it: a small sharp disc would be a snowflake.
    radius = scale * 3 * torch.exp(draw.uniform(0, math.log(5)))
    sigma = (radius / 2).clamp_max(4 * scale)
    soft = gaussian_blur2d(clean, 2 * round(8 * scale) + 1, sigma[:, None].expand(-1, 2), border_type="replicate")
    kernel = peak_one(disc(radius, size) * gaussian(0.5 + radius * draw.uniform(0, 0.4), size), size)
    density = 0.15 * draw.rand().square() / (math.pi * radius**2)
    points = impulses(density, size, draw, 0.2, at_least_one=True)
    discs = to_picture(to_frequency(points) * kernel[:, None], size).clamp(0, 1)
    # A lamp has a colour of its own, a stone or a leaf that of its place.
    lamp = draw.uniform(0.7, 1)[:, None] - draw.uniform(0.3, 0.6)[:, None] * draw.rand(3)
    own = (soft * per_picture(draw.uniform(0.4, 2))).clamp(0, 1)
    colour = torch.where(per_picture(draw.chance(0.4)), lamp[:, :, None, None].expand_as(own), own)
    where = torch.sigmoid(20 * (draw.smooth(size, (2, 4)) - per_picture(draw.uniform(0.1, 0.55))))
    image = soft + discs * (colour - soft)
    return clean + where * (image - clean)


def _in_dull_light(clean: Tensor, draw: Draw) -> Tensor:
    """Under a grey sky or at dusk: darker, and with less colour."""
    grey = clean.mean(1, keepdim=True)
    return (grey + per_picture(draw.uniform(0.2, 1)) * (clean - grey)) * per_picture(draw.uniform(0.45, 1))
