"""What is no weather and is to be kept: what a camera does to a picture, and what only looks like weather in it.

After the weather a camera sharpens, sets the tone, and compresses: on the restored picture, too. What JPEG took away
cannot be had back: mostly it is kept as well, and in a few pictures of good quality taken off the input only. Lights
and grounds out of focus and dull light go into the clean picture before the weather does, so that input and target
both show them.
"""

import math

import torch
from kornia.enhance import jpeg_codec_differentiable
from kornia.filters import gaussian_blur2d
from torch import Tensor

from mofme.vision.weather.particles import (
    Draw,
    disc,
    gaussian,
    impulses,
    on_some,
    particle_scale,
    peak_one,
    per_picture,
    to_picture,
)

_JPEG_BLOCK = 16


def photograph(weathered: Tensor, clean: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Both pictures (B,3,H,W) in [0,1] as a camera would have taken them; sides are multiples of 16."""
    draw = Draw(generator, len(clean), clean.device)
    sharpened, toned, both, one = (draw.chance(share).tolist() for share in (0.3, 0.5, 0.2, 0.2))
    pair = torch.cat((weathered, clean), 1)
    pair = on_some(pair, sharpened, _sharpen, generator)
    pair = on_some(pair, toned, _set_tone, generator)
    pair = on_some(pair, both, lambda image, part: _compress(image, part, 50, 95), generator)
    weathered, clean = pair.split(3, 1)
    return on_some(weathered, one, lambda image, part: _compress(image, part, 80, 98), generator), clean


def _sharpen(pair: Tensor, draw: Draw) -> Tensor:
    soft = gaussian_blur2d(pair, 7, draw.uniform(0.6, 1.3)[:, None].expand(-1, 2), border_type="reflect")
    return pair + per_picture(draw.uniform(0.2, 1.2)) * (pair - soft)


def _set_tone(pair: Tensor, draw: Draw) -> Tensor:
    """Brightness, contrast, warmth and colour, alike on both pictures (B, 6, H, W)."""
    image = pair.unflatten(1, (2, 3))
    grey = image.mean(2, keepdim=True)
    image = grey + draw.uniform(0.85, 1.2)[:, None, None, None, None] * (image - grey)
    warmth = draw.uniform(-0.06, 0.06)[:, None] * torch.tensor([1.0, 0.0, -1.0], device=draw.device)
    image = image * (1 + warmth[:, None, :, None, None])
    image = 0.5 + draw.uniform(0.9, 1.12)[:, None, None, None, None] * (image - 0.5)
    return image.flatten(1, 2).clamp(0, 1) ** per_picture(torch.exp(draw.uniform(-0.2, 0.2)))


def _compress(image: Tensor, draw: Draw, low: int, high: int) -> Tensor:
    """JPEG of a random quality, the same for all pictures of three channels that stand one behind the other."""
    if image.shape[-2] % _JPEG_BLOCK or image.shape[-1] % _JPEG_BLOCK:
        raise ValueError(f"height and width must be multiples of {_JPEG_BLOCK}, got {tuple(image.shape)}")
    quality = draw.uniform(low, high)
    parts = [jpeg_codec_differentiable(part.contiguous(), quality) for part in image.split(3, 1)]
    return (torch.cat(parts, 1) * 255).round() / 255


def add_distractors(clean: Tensor, generator: torch.Generator) -> Tensor:
    """Some of the pictures (B,3,H,W) in [0,1] changed into others that are as clean; the rest bit for bit."""
    draw = Draw(generator, len(clean), clean.device)
    blurred, dull = (draw.chance(0.15).tolist() for _ in range(2))
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
    discs = to_picture(torch.fft.rfft2(points) * kernel[:, None], size).clamp(0, 1)
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
