"""Cutting a picture into tiles that together give what the whole would have given.

Every tile is restored with a halo of its surroundings, which is then thrown away: inside, a pixel sees all that it
would see in the whole picture, so no seam can show. Only one tile is in memory at a time.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from mofme.vision.nets.unet import STRIDE


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


def _spans(length: int, size: int, halo: int) -> list[tuple[slice, slice]]:
    return [
        (slice(start, min(start + size, length)), slice(max(start - halo, 0), min(start + size + halo, length)))
        for start in range(0, length, size)
    ]


def _round_up(value: int) -> int:
    return -(-value // STRIDE) * STRIDE
