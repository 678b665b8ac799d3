"""What falls. Rain: layers of motion-blurred streaks from far to near, near drops drawn out flat, and the veil of heavy
rain. Snow: irregular flakes from tiny far ones to large ones out of focus, drawn out by their fall.

`add_any_rain` and `add_any_snow` are for training: what measured weather lacks and photographs show is added to them.
"""

import math

import torch
from torch import Tensor

from mofme.vision.weather.haze import add_veil
from mofme.vision.weather.particles import (
    Draw,
    Size,
    disc,
    frequencies,
    gaussian,
    impulses,
    motion,
    particle_scale,
    peak_one,
    per_picture,
    to_picture,
    warp,
)

_LAYERS = 4


def add_rain(clean: Tensor, draw: Draw) -> Tensor:
    """Light to heavy rain on (B,3,H,W): bright additive streaks, translucent grey ones, and those between."""
    return _rain(clean, draw)[0]


def add_any_rain(clean: Tensor, draw: Draw) -> Tensor:
    """Rain, at times with streaks finer than a pixel, near drops with a dark side, or splashes on the ground."""
    image, angle = _rain(clean, draw)
    size = (clean.shape[-2], clean.shape[-1])
    image = image + _fine_streaks(size, angle, draw) * _light(draw, 0.65)
    bright, dark = _lens_streaks(size, angle, draw)
    image = image * (1 - dark) + bright * (_light(draw, 0.7) - image)
    splashes = _splashes(size, draw)
    return image + splashes * (_light(draw, 0.6) - image)


def _rain(clean: Tensor, draw: Draw) -> tuple[Tensor, Tensor]:
    """Rain on (B,3,H,W), and the angle (B,) it falls at."""
    size = (clean.shape[-2], clean.shape[-1])
    heavy = draw.chance(0.4)
    veil = torch.where(heavy & draw.chance(0.7), draw.uniform(0.35, 0.95), 1.0)
    veiled = add_veil(clean, veil, 0.45, draw)
    steepest = torch.where(draw.chance(0.06), math.radians(70), math.radians(45))
    lean = draw.uniform(-1, 1)
    angle = steepest * lean * lean.abs().sqrt()
    streaks = _streaks(size, heavy, angle, draw)
    # Opacity 0 adds light, as most synthetic rain sets do; 1 hides the scene, as a near drop does.
    opacity = torch.where(draw.chance(0.4), torch.zeros_like(veil), draw.uniform(0.2, 1))
    image = veiled * (1 - per_picture(opacity) * streaks) + streaks * _light(draw, 0.65)
    near = _near_streaks(size, angle, draw)
    return image + near * (_light(draw, 0.5) - image), angle


def _light(draw: Draw, darkest: float) -> Tensor:
    """The nearly grey light (B,3,1,1) of the sky that drops show."""
    return (draw.uniform(darkest, 1)[:, None] + draw.uniform(-0.02, 0.02, 3))[:, :, None, None]


def _streaks(size: Size, heavy: Tensor, angle: Tensor, draw: Draw) -> Tensor:
    """Brightness of all far streaks (B,1,H,W) in [0, 1]."""
    # Pictures of more pixels, or a longer lens, show the same rain larger.
    scale = particle_scale(size) * torch.where(draw.chance(0.25), draw.uniform(1, 2), 1.0)
    # A downpour is not more of the same streaks but a fine, faint texture of very many.
    fine = draw.rand().sqrt() * heavy
    amount = draw.uniform(0.3, 1.3) * (1 + 7 * fine)
    brightness = draw.uniform(0.5, 1.3) * (1 - fine * draw.uniform(0.55, 0.92))
    thinness = scale * (1 - 0.25 * fine)
    sure = (draw.rand() * _LAYERS).long()
    spectrum = torch.zeros((), dtype=torch.complex64, device=draw.device)
    for layer in range(_LAYERS):
        near = (layer + draw.rand()) / _LAYERS
        length = scale * (8 + 47 * near * draw.uniform(0.3, 1.1))
        sigma = thinness * (0.45 + (0.2 + 1.2 * near**2) * (1 - 0.6 * fine) * draw.rand() ** 1.5)
        wide = draw.chance(0.1)
        sigma = torch.where(wide, sigma * 1.6, sigma)
        coverage = amount * draw.uniform(0.03, 0.13) * torch.where(wide, 0.4, 1.0)
        strength = brightness * (0.25 + 0.45 * near) * draw.uniform(0.6, 1.4) * torch.where(wide, 0.6, 1.0)
        strength = strength * (draw.chance(0.5) | (sure == layer))
        tilt = angle + draw.uniform(-0.06, 0.06)
        # A short line times a long one is a line with faded ends.
        taper = draw.uniform(0.1, 0.5)
        transfer = motion(length * (1 - taper), tilt, size) * motion(length * taper, tilt, size)
        transfer = peak_one(transfer * gaussian(sigma, size), size)
        # Squared, most drops are faint and few are bright.
        drops = impulses(coverage / (2.5 * sigma * length), size, draw, 0.35, at_least_one=True).square()
        spectrum = spectrum + torch.fft.rfft2(drops) * (transfer * strength[:, None, None])[:, None]
    cells = max(1, round(min(size) / 12))
    flicker = 0.55 + 0.9 * draw.smooth(size, (cells, 3 * cells))
    return (to_picture(spectrum, size) * flicker).clamp(0, 1)


def _near_streaks(size: Size, angle: Tensor, draw: Draw) -> Tensor:
    """Opacity (B,1,H,W) in [0, 1] of the few drops close by: long, wide, evenly bright, in two out of five pictures."""
    scale = particle_scale(size)
    width = scale * (1 + 8 * draw.rand().square())
    length = scale * draw.uniform(15, 90) * (1 + draw.rand().square())
    tilt = angle + draw.uniform(-0.06, 0.06)
    # The drop itself is a disc out of focus: drawn out by its fall it has straight sides.
    edge = 0.45 + 0.35 * width * draw.rand().square()
    transfer = motion(length, tilt, size) * motion(width, tilt + math.pi / 2, size) * gaussian(edge, size)
    coverage = 0.004 + 0.05 * draw.rand().square()
    drops = impulses(coverage / (width * length), size, draw, 0.3, at_least_one=True)
    drops = drops * per_picture(draw.uniform(0.2, 1) * draw.chance(0.4))
    return to_picture(torch.fft.rfft2(drops) * peak_one(transfer, size)[:, None], size).clamp(0, 1)


def _fine_streaks(size: Size, angle: Tensor, draw: Draw) -> Tensor:
    """Brightness (B,1,H,W) of streaks that are finer than a pixel, which gathers light over its square: one in four."""
    v, u = frequencies(size, draw.device)
    length = particle_scale(size) * draw.uniform(10, 60)
    transfer = motion(length, angle + draw.uniform(-0.04, 0.04), size) * torch.sinc(u) * torch.sinc(v)
    drops = impulses(draw.uniform(0.01, 0.12) / length, size, draw, 0.3, at_least_one=True)
    drops = drops * per_picture(draw.uniform(0.1, 0.5) * draw.chance(0.25))
    return to_picture(torch.fft.rfft2(drops) * peak_one(transfer, size)[:, None], size).clamp(0, 1)


def _lens_streaks(size: Size, angle: Tensor, draw: Draw) -> tuple[Tensor, Tensor]:
    """How far near drops, drawn out by their fall, lighten and darken (B,1,H,W) what is behind: one in four pictures.

    A drop is a lens: one side of it shows the sky and the other the ground, or its middle does and its rim.
    """
    scale = particle_scale(size)
    width = scale * (2 + 9 * draw.rand().square())
    length = width * draw.uniform(4, 14)
    tilt = angle + draw.uniform(-0.06, 0.06)
    v, u = frequencies(size, draw.device)
    across = u * torch.cos(tilt)[:, None, None] - v * torch.sin(tilt)[:, None, None]
    aside = torch.exp(-2j * math.pi * (width / 4 * torch.where(draw.chance(0.5), 1, -1))[:, None, None] * across)
    line = motion(length * 0.75, tilt, size) * motion(length * 0.25, tilt, size) * gaussian(0.4 + width / 8, size)
    half, whole = (peak_one(line * motion(part, tilt + math.pi / 2, size), size) for part in (width / 2, width))
    coverage = 0.004 + 0.04 * draw.rand().square()
    drops = impulses(coverage / (width * length), size, draw, 0.4, at_least_one=True)
    spectrum = torch.fft.rfft2(drops * per_picture(draw.uniform(0.3, 1) * draw.chance(0.25)))
    sided = draw.chance(0.6)[:, None, None]
    bright = to_picture(spectrum * torch.where(sided, half * aside, half)[:, None], size)
    dark = to_picture(spectrum * torch.where(sided, half * aside.conj(), whole)[:, None], size)
    return bright.clamp(0, 1), (per_picture(draw.uniform(0.2, 0.9)) * dark).clamp(0, 1)


def _splashes(size: Size, draw: Draw) -> Tensor:
    """Opacity (B,1,H,W) in [0, 1] of drops that burst on the ground, and of their spray: one in five pictures."""
    v, u = frequencies(size, draw.device)
    down = torch.linspace(0, 1, size[0], device=draw.device)[:, None]
    ground = torch.sigmoid((down - per_picture(draw.uniform(0.45, 0.85))) * per_picture(draw.uniform(8, 30)))
    radius = particle_scale(size) * draw.uniform(1.2, 4)
    # A ring seen from the side, and what leaps up from it.
    ring = torch.special.bessel_j0(2 * math.pi * radius[:, None, None] * torch.sqrt(u * u + (0.35 * v) ** 2))
    leap = motion(radius * draw.uniform(1, 3), torch.zeros_like(radius), size)
    transfer = (ring + draw.rand()[:, None, None] * leap) * gaussian(0.3 + 0.2 * radius, size)
    drops = impulses(draw.uniform(0.005, 0.04) / radius**2, size, draw, 0.3, at_least_one=True) * ground
    bursts = to_picture(torch.fft.rfft2(drops) * peak_one(transfer, size)[:, None], size).clamp(0, 1)
    spray = ground * draw.smooth(size, (3, 6)) * per_picture(draw.uniform(0, 0.3))
    return per_picture(draw.chance(0.2).float()) * (per_picture(draw.uniform(0.3, 0.9)) * bursts + spray).clamp(0, 1)


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


def add_any_snow(clean: Tensor, draw: Draw) -> Tensor:
    """Snow, in two of five pictures with large flakes close to the camera, which are out of focus."""
    image = add_snow(clean, draw)
    near = _near_flakes((clean.shape[-2], clean.shape[-1]), draw)
    return image + near * (_light(draw, 0.75) - image)


def _near_flakes(size: Size, draw: Draw) -> Tensor:
    """Opacity (B,1,H,W) in [0, 1] of large flakes: soft discs, drawn out by their fall."""
    radius = particle_scale(size) * draw.uniform(6, 12) * 2.5 ** draw.rand()
    radius = radius.clamp_max(max(2.0, min(size) / 8))
    length = radius * 4 * draw.rand().square()
    edge = radius * draw.uniform(0.15, 0.5)
    transfer = disc(radius, size) * gaussian(edge, size)
    transfer = peak_one(transfer * motion(length, draw.uniform(-1, 1) * math.radians(70), size), size)
    density = draw.uniform(0.01, 0.12) / (math.pi * radius**2 + 2 * radius * length)
    flakes = impulses(density, size, draw, 0.3, at_least_one=True)
    flakes = flakes * per_picture(draw.uniform(0.2, 0.85) * draw.chance(0.4))
    near = to_picture(torch.fft.rfft2(flakes) * transfer[:, None], size)
    bend = per_picture(radius * draw.uniform(0.1, 0.4)) * (2 * draw.smooth(size, (12,), 2) - 1)
    return warp(near, bend).clamp(0, 1)


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
        spectrum = spectrum + torch.fft.rfft2(flakes) * (transfer * strength[:, None, None])[:, None]
    alpha = to_picture(spectrum, size)
    # Bending the plane by noise about as fine as the flakes makes no two of them alike.
    cells = max(1, round(min(size) / (5 * scale)))
    bend = scale * per_picture(draw.uniform(0.5, 2.5)) * (2 * draw.smooth(size, (cells,), 2) - 1)
    return warp(alpha, bend).clamp(0, 1)
