"""Haze, fog and the veil of heavy rain or snowfall: Koschmieder's law over a synthetic depth.

The depth is made coarse (a ground that recedes, things that stand in front, patches of fog) and then snapped to the
edges of the picture by a guided filter (He et al., "Guided Image Filtering"), so that a thing is hazed as a whole.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from mofme.vision.weather.particles import Draw, per_picture

_EDGE = 0.01
# Behind less than this nothing is left in 8 bits that could be brought back.
_THICKEST = 0.08


def koschmieder(clean: Tensor, transmission: Tensor, airlight: Tensor) -> Tensor:
    """I = J t + A (1 - t): J `clean` (B,3,H,W); t `transmission` and A `airlight` broadcast to it."""
    return clean * transmission + airlight * (1 - transmission)


def random_depth(clean: Tensor, draw: Draw) -> Tensor:
    """Relative depth (B,1,H,W), mean 1: mostly far at the top, near things in front, bright is far, patches of fog."""
    height, width = clean.shape[-2:]
    size = (-(-height // 4), -(-width // 4))
    grey = clean.mean(1, keepdim=True)
    guide = F.interpolate(grey, size=size, mode="area")
    depth = _recession(size, draw)
    depth = depth + draw.smooth(size, (2, 4, 8)) * per_picture(draw.uniform(0, 0.8))
    depth = depth + guide * per_picture(draw.uniform(-0.1, 0.8))
    in_front = torch.sigmoid(per_picture(draw.uniform(10, 60)) * (draw.smooth(size, (2, 5)) - 0.55))
    depth = depth * (1 - per_picture(draw.uniform(0.3, 1) * draw.chance(0.4)) * in_front)
    depth = _snap_to_edges(depth, guide, grey).clamp_min(0.02)
    patches = 1 + per_picture(draw.uniform(0, 1.2) * draw.chance(0.4)) * (draw.smooth((height, width), (2, 4)) - 0.5)
    depth = depth * patches
    depth = depth / depth.mean((-2, -1), keepdim=True)
    return torch.where(per_picture(draw.chance(0.12)), torch.ones_like(depth), depth)


def random_airlight(clean: Tensor, draw: Draw, darkest: float) -> Tensor:
    """Grey (B,3,H,W) in [darkest, 1], mostly as bright as the brightest part of the picture, tinted, sunnier somewhere.

    A hazy sky is itself air light: a sky that is there must be allowed to stay as it is.
    """
    brightest = F.adaptive_avg_pool2d(clean.mean(1, keepdim=True), 6).amax((1, 2, 3))
    tied = (brightest * draw.uniform(0.92, 1.12)).clamp(darkest, 1)
    free = torch.maximum(1 - (1 - darkest) * draw.rand() ** 1.3, 0.85 * tied)
    grey = torch.where(draw.chance(0.75), tied, free)
    strength = torch.where(draw.chance(0.25), 0.13, 0.05)
    tint = (strength * draw.uniform(-1, 1))[:, None] * torch.tensor([1.0, 0.2, -1.0], device=draw.device)
    tint = tint + draw.uniform(-0.02, 0.02, 3)
    shade = draw.smooth((clean.shape[-2], clean.shape[-1]), (1, 2))
    shade = 1 - per_picture(draw.uniform(0, 0.3) * draw.chance(0.4)) * shade
    return ((grey[:, None] + tint)[:, :, None, None] * shade).clamp(0, 1)


def add_veil(clean: Tensor, mean_transmission_B: Tensor, darkest: float, draw: Draw) -> Tensor:
    """Haze whose transmission averages about `mean_transmission` in each picture; none where that is 1."""
    thickness = -per_picture(mean_transmission_B.log()) * random_depth(clean, draw)
    # Small particles dim blue more than red, so that far things are blue; large ones dim all alike.
    blueness = (draw.uniform(0, 0.25) * draw.chance(0.4))[:, None] * torch.tensor([-1.0, 0.0, 1.0], device=draw.device)
    transmission = torch.exp(-thickness * (1 + blueness[:, :, None, None])).clamp_min(_THICKEST)
    return koschmieder(clean, transmission, random_airlight(clean, draw, darkest))


def add_haze(clean: Tensor, draw: Draw) -> Tensor:
    """Light mist to dense fog on (B,3,H,W)."""
    return add_veil(clean, draw.uniform(0.12, 0.88), 0.45, draw)


def _recession(size: tuple[int, int], draw: Draw) -> Tensor:
    """Depth (B,1,h,w) of a ramp or of a plane seen in perspective, far at the top, now and then at the bottom."""
    down = torch.linspace(0, 1, size[0], device=draw.device)[None, None, :, None]
    across = torch.linspace(-0.5, 0.5, size[1], device=draw.device)[None, None, None]
    upright = torch.where(draw.chance(0.9), 1.0, -1.0)
    down = 0.5 + per_picture(upright) * (down - 0.5)
    # Crops see only a part of a scene, so the ramp covers a random part of the whole range.
    ramp = (1 - down) * per_picture(draw.uniform(0.1, 1)) + per_picture(draw.uniform(0, 0.5))
    ramp = ramp + across * per_picture(draw.uniform(-0.3, 0.3))
    ramp = ramp.clamp_min(0.02) ** per_picture(draw.uniform(0.6, 2))
    below_horizon = (down - per_picture(draw.uniform(-0.4, 0.6))).clamp_min(0)
    nearness = per_picture(draw.uniform(0.03, 0.3))
    return torch.where(per_picture(draw.chance(0.4)), 1.5 * nearness / (nearness + below_horizon), ramp)


def _snap_to_edges(coarse: Tensor, coarse_guide: Tensor, guide: Tensor) -> Tensor:
    """`coarse` (B,1,h,w) enlarged to `guide` (B,1,H,W) with the edges of it: the fast guided filter."""
    reach = max(1, min(coarse.shape[-2:]) // 12)

    def around(field: Tensor) -> Tensor:
        return F.avg_pool2d(field, 2 * reach + 1, 1, reach, count_include_pad=False)

    parts = torch.cat((coarse, coarse_guide, coarse * coarse_guide, coarse_guide * coarse_guide), 1)
    mean, mean_guide, product, square = around(parts).split(1, 1)
    slope = (product - mean * mean_guide) / ((square - mean_guide * mean_guide).clamp_min(0) + _EDGE)
    line = around(torch.cat((slope, mean - slope * mean_guide), 1))
    slope, offset = F.interpolate(line, size=guide.shape[-2:], mode="bilinear", align_corners=False).split(1, 1)
    return slope * guide + offset
