"""Large pictures, worked on at the sizes at which weather looks as the net learnt it.

Drops and streaks grow with the picture: on a photograph of 12 megapixels a net that learnt on pictures of a quarter of
one hardly finds them. So a small copy is restored, and what was done to it is done to the whole; streaks and flakes too
fine for that copy are taken out of a larger one, of which only what is finer counts.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

COARSE_PIXELS = 250_000
FINE_PIXELS = 1_000_000
_LEAST_SIDE = 352  # of the shorter side: a panorama is no small picture
_WORTH_IT = 0.8  # scale above which a picture is left as it is
_SQUARE = 9  # side, in pixels, of the parts in which contrast is compared
_MOST_RISE = 3.0
_NOISE = 1e-4  # variance below which a contrast says nothing


def working_copy(image: Tensor, pixels: int) -> Tensor:
    """`image` (3, H, W) made small, to about so many pixels; itself, if it has hardly more."""
    height, width = image.shape[-2:]
    scale = max(math.sqrt(pixels / (height * width)), _LEAST_SIDE / min(height, width))
    if scale > _WORTH_IT:
        return image
    return F.interpolate(image[None], (round(height * scale), round(width * scale)), mode="area")[0]


def finer(change: Tensor, size: torch.Size) -> Tensor:
    """What of a change (3, H, W) a copy of `size` (h, w) could not show."""
    coarse = F.interpolate(change[None], size, mode="area")
    return change - F.interpolate(coarse, change.shape[-2:], mode="bicubic")[0]


def enlarged(image: Tensor, before: Tensor, after: Tensor, detail: Tensor | None = None) -> Tensor:
    """`image` (3, H, W) changed as its small copy `before` (3, h, w) was, which came out as `after`, and by `detail`.

    after = before + rise * before + change, where rise and change are enlarged. Where contrast rose, as under haze,
    1 + rise is the slope of the guided filter (He, Sun and Tang, ECCV 2010, Eq. 5): what only `image` shows rises, too.
    """

    def mean(x: Tensor) -> Tensor:
        return F.avg_pool2d(x[None], _SQUARE, stride=1, padding=_SQUARE // 2, count_include_pad=False)[0]

    seen, made = before.float(), after.float()
    covariance = mean(seen * made) - mean(seen) * mean(made)
    variance = mean(seen * seen) - mean(seen) * mean(seen)
    rise = mean(((covariance + _NOISE) / (variance + _NOISE) - 1).clamp(0, _MOST_RISE))
    changes = [rise, made - seen - rise * seen, *([] if detail is None else [detail.float()])]
    result = torch.empty_like(image)
    for number, plane in enumerate(image):  # one at a time, to spare memory
        large = [F.interpolate(one[None, None, number], plane.shape, mode="bicubic")[0, 0] for one in changes]
        total = large[1].addcmul_(large[0], plane)
        for more in large[2:]:
            total += more
        result[number] = total.add_(plane).clamp_(0, 1)
    return result
