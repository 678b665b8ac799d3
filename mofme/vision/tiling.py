"""Large pictures: at the sizes that the net learnt, and cut into tiles that together give what the whole would have.

Drops and streaks grow with the picture: on a photograph of 12 megapixels a net that learnt on pictures of a quarter of
one hardly finds them. So a small copy is restored, and what was done to it is done to the whole; streaks and flakes too
fine for that copy are taken out of a larger one, of which only what is finer counts.

Every tile is restored with a halo of its surroundings, which is then thrown away: inside, a pixel sees all that it
would see in the whole picture, so no seam can show. Only one tile is in memory at a time.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from mofme.vision.nets.unet import STRIDE

COARSE_PIXELS = 250_000
FINE_PIXELS = 1_000_000
_LEAST_SIDE = 352  # of the shorter side: a panorama is no small picture
_WORTH_IT = 0.8  # scale above which a picture is left as it is
_SQUARE = 9  # side, in pixels, of the parts in which contrast is compared
_MOST_RISE = 3.0
_NOISE = 1e-4  # variance below which a contrast says nothing


@dataclass(frozen=True)
class Tile:
    """A part of an H x W picture: `inner` is what this tile is responsible for, `outer` what it looks at."""

    inner: tuple[slice, slice]
    outer: tuple[slice, slice]

    def crop(self, restored: Tensor) -> Tensor:
        """The inner part of a result (..., h, w) that was computed for the outer one."""
        both = zip(self.inner, self.outer, strict=True)
        rows, columns = (slice(inner.start - outer.start, inner.stop - outer.start) for inner, outer in both)
        return restored[..., rows, columns]


def tiles(height: int, width: int, size: int, halo: int) -> Iterator[Tile]:
    """Tiles of `size` pixels a side, looking `halo` pixels around them, both rounded up to multiples of 8.

    All start at multiples of 8, so that the net's coarse levels fall on the same grid as in the whole picture.
    """
    size, halo = _round_up(max(size, 1)), _round_up(halo)
    for rows in _spans(height, size, halo):
        for columns in _spans(width, size, halo):
            yield Tile((rows[0], columns[0]), (rows[1], columns[1]))


def pad_to(image: Tensor, height: int | None = None, width: int | None = None) -> Tensor:
    """Pad (..., 3, H, W) right and below, by default to multiples of 8: by reflection, then repetition."""
    height, width = height or _round_up(image.shape[-2]), width or _round_up(image.shape[-1])
    right, bottom = width - image.shape[-1], height - image.shape[-2]
    mirrored = (0, min(right, image.shape[-1] - 1), 0, min(bottom, image.shape[-2] - 1))
    if any(mirrored):
        image = F.pad(image, mirrored, mode="reflect")
    repeated = (0, right - mirrored[1], 0, bottom - mirrored[3])
    return F.pad(image, repeated, mode="replicate") if any(repeated) else image


def thumbnail(image: Tensor, size: int) -> Tensor:
    """Mean over a `size` x `size` grid of (3, H, W), row band by row band so that a huge picture is never copied."""
    height = image.shape[-2]
    if height < size:
        return F.adaptive_avg_pool2d(image, size)
    edges = [(i * height // size, -(-(i + 1) * height // size)) for i in range(size)]
    bands = [F.adaptive_avg_pool2d(image[:, start:stop], (1, size)) for start, stop in edges]
    return torch.cat(bands, dim=1)


def shrunk(image: Tensor, side: int) -> Tensor:
    """A picture (C, H, W) whose longer side is at most `side` pixels; a smaller one stays."""
    height, width = image.shape[-2:]
    scale = min(1.0, side / max(height, width))
    size = (max(1, round(height * scale)), max(1, round(width * scale)))
    return F.interpolate(image[None].float(), size=size, mode="area")[0]


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
    offsets = [made - seen - rise * seen, *([] if detail is None else [detail.float()])]
    result = torch.empty_like(image)
    for number, plane in enumerate(image):  # one at a time, to spare memory
        total = _resized(rise[number], plane).mul_(plane).add_(plane)
        for offset in offsets:
            total += _resized(offset[number], plane)
        result[number] = total.clamp_(0, 1)
    return result


def _resized(part: Tensor, like: Tensor) -> Tensor:
    """(h, w) at the size of `like` (H, W), and as precise."""
    resized = F.interpolate(part[None, None], like.shape, mode="bicubic")[0, 0]
    return resized.to(torch.promote_types(part.dtype, like.dtype))


def _spans(length: int, size: int, halo: int) -> list[tuple[slice, slice]]:
    return [
        (slice(start, min(start + size, length)), slice(max(start - halo, 0), min(start + size + halo, length)))
        for start in range(0, length, size)
    ]


def _round_up(value: int) -> int:
    return -(-value // STRIDE) * STRIDE
