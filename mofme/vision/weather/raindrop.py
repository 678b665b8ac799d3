"""Drops on the lens or a window, out of focus, each with the whole scene upside down in it: liquid ones, and lenses.

A drop close to the lens is a small wide-angle lens itself: sky below, ground above, and more of both than the picture
holds. As a camera focused on the scene sees them, drops of one size show the same small picture, so one kernel for each
of three sizes, convolved with sparse impulses, draws them all; the same disc convolved alike is their opacity.
"""

import math

import torch
import torch.nn.functional as F
from kornia.filters import gaussian_blur2d
from torch import Tensor

from mofme.vision.weather.particles import (
    Draw,
    Size,
    frequencies,
    gaussian,
    impulses,
    on_some,
    particle_scale,
    peak_one,
    per_picture,
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
        transfer = peak_one(gaussian(tall, size, wide_B=sigma), size)
        spectrum = torch.fft.rfft2(drops * 1.25) * transfer[:, None]
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
        spectrum = spectrum + torch.fft.rfft2(places) * torch.fft.rfft2(kernel)
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
