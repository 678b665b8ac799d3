"""Colours under full transparency change nothing that is seen, and come out as they went in."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from mofme.vision.batch import restore_file
from mofme.vision.restorer import Restorer, TemporalSmoother, fill_hidden

HIDDEN = np.s_[:20]  # rows that are not seen


@pytest.fixture(scope="module")
def restorer() -> Restorer:
    return Restorer.from_pretrained("small", "cpu")


def scene(height: int = 48, width: int = 64) -> NDArray[np.uint8]:
    """A veiled gradient, which the shipped model clears."""
    y, x = np.mgrid[0:height, 0:width]
    return (150 + np.stack([x, y, x + y], -1) * 80 // (height + width)).astype(np.uint8)


def rgba(under: int) -> Image.Image:
    samples = np.dstack([scene(), np.full((48, 64), 255, np.uint8)])
    samples[HIDDEN] = (under, under, under, 0)
    return Image.fromarray(samples)


def grey_alpha(under: int) -> Image.Image:
    samples = np.array(rgba(under))
    return Image.fromarray(samples[..., [1, 3]])


def palette(under: int) -> Image.Image:
    samples = scene(48, 64)[..., 0] // 4
    samples[HIDDEN] = 255
    image = Image.fromarray(samples).convert("P")
    image.putpalette([level * 4 for level in range(64) for _ in range(3)] + [0] * (191 * 3) + [under] * 3)
    image.info["transparency"] = 255
    return image


def one_clear_colour(under: int) -> Image.Image:
    image = Image.fromarray(np.array(rgba(under))[..., :3])
    image.info["transparency"] = (under, under, under)
    return image


@pytest.mark.parametrize(
    ("make", "suffix"),
    [
        (rgba, ".png"),
        (rgba, ".webp"),
        (rgba, ".tif"),
        (grey_alpha, ".png"),
        (palette, ".png"),
        (one_clear_colour, ".png"),
    ],
)
def test_what_is_seen_does_not_depend_on_it(
    tmp_path: Path, restorer: Restorer, make: Callable[[int], Image.Image], suffix: str
) -> None:
    outputs, weathers = [], []
    for under in (0, 255):
        source, output = tmp_path / f"{under}{suffix}", tmp_path / f"out/{under}{suffix}"
        options = {"lossless": True, "exact": True} if suffix == ".webp" else {}
        image = make(under)
        if "transparency" in image.info:
            options["transparency"] = image.info["transparency"]
        image.save(source, **options)
        report = restore_file(restorer, source, output)
        assert report.error == ""
        with Image.open(output) as restored:
            outputs.append(np.asarray(restored.convert("RGBA")))
        weathers.append((report.weather, report.uncertainty))
    black, white = outputs
    np.testing.assert_array_equal(black[20:], white[20:])
    assert weathers[0] == weathers[1]
    assert (black[HIDDEN] == 0).all() and (white[HIDDEN] == (255, 255, 255, 0)).all()


def test_16_bits_with_alpha(restorer: Restorer) -> None:
    image = torch.from_numpy(scene()).permute(2, 0, 1) / 255
    alpha = torch.ones(1, 48, 64)
    alpha[:, HIDDEN] = 0
    others = image.clone()
    others[:, HIDDEN] = 0
    for options in ({}, {"ensemble": True}, {"tile": 64}, {"steady": TemporalSmoother()}):
        a, b = (restorer(one, alpha=alpha, **options) for one in (image, others))  # type: ignore[arg-type]
        if "steady" not in options:
            assert torch.equal(a.image[:, 20:], b.image[:, 20:]) and a.weather == b.weather
        assert torch.equal(a.image[:, HIDDEN], image[:, HIDDEN])


def test_soft_edges_count_as_little_as_they_are_seen(restorer: Restorer) -> None:
    image = torch.from_numpy(scene()).permute(2, 0, 1) / 255
    alpha = torch.ones(1, 48, 64)
    alpha[:, :20], alpha[:, 20] = 0, 2 / 255
    others = image.clone()
    others[:, :21] = 0
    a, b = (restorer(one, alpha=alpha).image for one in (image, others))
    assert (a[:, 21:] - b[:, 21:]).abs().max() < 4 / 255  # more where bfloat16 rounds the other way
    # Without any change wanted, all that was held is held, also at the edge.
    assert torch.equal(restorer(others, alpha=alpha, strength=0).image, others)


@pytest.mark.parametrize("level", [1.0, 0.3, 0.0])
def test_an_evenly_transparent_picture_is_restored_as_an_opaque_one(restorer: Restorer, level: float) -> None:
    image = torch.from_numpy(scene()).permute(2, 0, 1) / 255
    plain = restorer(image).image
    restored = restorer(image, alpha=torch.full((1, 48, 64), level)).image
    assert torch.equal(restored, plain if level else image)


def test_filling_continues_what_is_seen() -> None:
    # Red on the left, blue on the right, between them nothing.
    image = torch.zeros(3, 4, 64)
    image[0, :, :16], image[2, :, 48:], image[:, :, 16:48] = 1, 1, 0.5
    alpha = torch.ones(1, 4, 64)
    alpha[:, :, 16:48] = 0
    filled: Tensor = fill_hidden(image, alpha)
    assert torch.equal(filled[:, :, :16], image[:, :, :16]) and torch.equal(filled[:, :, 48:], image[:, :, 48:])
    assert filled[1].abs().max() == 0, "no green was seen"
    red = filled[0, 0]
    assert red[16] > 0.9 and red[47] < 0.1 and (red.diff() <= 1e-6).all()


def test_alpha_of_another_size_is_refused(restorer: Restorer) -> None:
    with pytest.raises(ValueError, match="alpha"):
        restorer(torch.zeros(3, 4, 4), alpha=torch.zeros(1, 5, 5))
