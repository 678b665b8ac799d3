from itertools import product

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from mofme.vision.tiling import pad_to, thumbnail, tiles

SIDES = st.integers(1, 150)


@settings(max_examples=50, deadline=None)
@given(height=SIDES, width=SIDES, size=st.integers(1, 80), halo=st.integers(0, 40))
def test_tiles_share_out_the_picture(height: int, width: int, size: int, halo: int) -> None:
    picture = torch.rand(3, height, width)
    together, covered = torch.full_like(picture, -1), np.zeros((height, width), int)
    for tile in tiles(height, width, size, halo):
        covered[tile.inner] += 1
        together[:, *tile.inner] = tile.crop(picture[:, *tile.outer])
        for inner, outer, length in zip(tile.inner, tile.outer, (height, width), strict=True):
            assert inner.start % 8 == outer.start % 8 == 0
            assert max(inner.start - halo, 0) >= outer.start >= 0
            assert min(inner.stop + halo, length) <= outer.stop <= length
            assert inner.stop - inner.start <= size + 7
    assert (covered == 1).all() and torch.equal(together, picture)


def test_padding_mirrors_then_repeats() -> None:
    for height, width in product((1, 2, 5, 8, 15, 17), repeat=2):
        picture = torch.rand(3, height, width)
        below, right = -height % 8, -width % 8
        mirrored = (0, min(below, height - 1)), (0, min(right, width - 1))
        expected = np.pad(picture.numpy(), ((0, 0), *mirrored), "reflect")
        repeated = (0, below - mirrored[0][1]), (0, right - mirrored[1][1])
        expected = np.pad(expected, ((0, 0), *repeated), "edge")
        np.testing.assert_array_equal(pad_to(picture).numpy(), expected)


@settings(max_examples=25)
@given(height=SIDES, width=SIDES, size=st.integers(1, 64))
def test_a_thumbnail_is_the_mean_over_a_grid(height: int, width: int, size: int) -> None:
    picture = torch.rand(3, height, width)
    torch.testing.assert_close(thumbnail(picture, size), F.adaptive_avg_pool2d(picture, size))
