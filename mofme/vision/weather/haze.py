"""Haze, fog and the veil of heavy rain or snowfall: Koschmieder's law over a synthetic smooth depth."""

import torch
from kornia.filters import gaussian_blur2d
from torch import Tensor

from mofme.vision.weather.draw import Draw, per_picture


def koschmieder(clean: Tensor, transmission: Tensor, airlight: Tensor) -> Tensor:
    """I = J t + A (1 - t): J `clean` (B,3,H,W), t `transmission` (B,1,H,W), A `airlight` (B,3,1,1)."""
    return clean * transmission + airlight * (1 - transmission)


def random_depth(clean: Tensor, draw: Draw) -> Tensor:
    """Relative depth (B,1,H,W), mean 1: a ramp, mostly far at the top, smooth noise, and bright is far."""
    height, width = clean.shape[-2:]
    y = torch.linspace(1, 0, height, device=clean.device)[None, None, :, None]
    x = torch.linspace(-0.5, 0.5, width, device=clean.device)[None, None, None]
    # Crops see only a part of a scene, so the ramp covers a random part of the whole range.
    start, span = draw.uniform(0, 0.5), draw.uniform(0.1, 1)
    upright = torch.where(draw.chance(0.9), 1.0, -1.0)
    ramp = (0.5 + per_picture(upright) * (y - 0.5)) * per_picture(span) + per_picture(start)
    ramp = ramp + x * per_picture(draw.uniform(-0.3, 0.3))
    ramp = ramp.clamp_min(0.02) ** per_picture(draw.uniform(0.6, 2))
    noise = draw.smooth((height, width), (2, 4, 8))
    side = max(3, min(height, width) // 24) | 1
    sigma = (side / 3, side / 3)
    luminance = gaussian_blur2d(clean.mean(1, keepdim=True), side, sigma, border_type="replicate")
    depth = ramp + noise * per_picture(draw.uniform(0, 0.8)) + luminance * per_picture(draw.uniform(-0.1, 0.8))
    depth = depth.clamp_min(0.05)
    depth = depth / depth.mean((-2, -1), keepdim=True)
    return torch.where(per_picture(draw.chance(0.15)), torch.ones_like(depth), depth)


def random_airlight(draw: Draw, darkest: float) -> Tensor:
    """Grey (B,3,1,1) in [darkest, 1] with a slight yellow or blue tint."""
    tint = draw.uniform(-0.05, 0.05)[:, None] * torch.tensor([1.0, 0.2, -1.0], device=draw.device)
    tint = tint + draw.uniform(-0.015, 0.015, 3)
    grey = 1 - (1 - darkest) * draw.rand() ** 1.3
    return (grey[:, None] + tint).clamp(0, 1)[:, :, None, None]


def add_veil(clean: Tensor, mean_transmission_B: Tensor, darkest: float, draw: Draw) -> Tensor:
    """Haze whose transmission averages about `mean_transmission` in each picture; none where that is 1."""
    transmission = torch.exp(per_picture(mean_transmission_B.log()) * random_depth(clean, draw))
    return koschmieder(clean, transmission, random_airlight(draw, darkest))


def add_haze(clean: Tensor, draw: Draw) -> Tensor:
    """Light mist to dense fog on (B,3,H,W)."""
    return add_veil(clean, draw.uniform(0.22, 0.85), 0.6, draw)
