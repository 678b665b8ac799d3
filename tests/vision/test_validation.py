import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from mofme.errors import MofmeError
from mofme.vision.nets.unet import NetOutput
from mofme.vision.training import ValidationPairs, validate, validation_pairs
from mofme.vision.weather import WEATHERS

CPU = torch.device("cpu")


class Painter(nn.Module):
    """A net whose every answer is a picture of one grey."""

    def __init__(self, grey: int) -> None:
        super().__init__()
        self.grey = grey

    def forward(self, image: Tensor) -> NetOutput:
        assert not self.training
        return NetOutput(torch.full_like(image, self.grey / 255), torch.zeros(len(image), 4))


class Identity(nn.Module):
    def forward(self, image: Tensor) -> NetOutput:
        return NetOutput(image, torch.zeros(len(image), 4))


def photographs(count: int, height: int = 270, width: int = 300) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randint(256, (3, height, width), generator=generator, dtype=torch.uint8) for _ in range(count)]


def greys(weathered: int, clean: int) -> ValidationPairs:
    pictures = torch.full((2, 3, 8, 8), 1 / 255)
    return ValidationPairs(dict.fromkeys(WEATHERS, weathered * pictures), clean * pictures)


def test_pairs_are_centre_crops_with_every_weather() -> None:
    (photograph,) = photographs(1)
    pairs = validation_pairs([photograph], seed=0)
    assert torch.equal((pairs.clean[0] * 255).round().byte(), photograph[:, 7:263, 22:278])
    assert tuple(pairs.weathered) == WEATHERS
    for weathered in pairs.weathered.values():
        assert weathered.shape == pairs.clean.shape
        assert not torch.equal(weathered, pairs.clean)
        assert weathered.min() >= 0
        assert weathered.max() <= 1


def test_pairs_are_the_same_at_every_call() -> None:
    first, again, other = (validation_pairs(photographs(2), seed=seed) for seed in (3, 3, 4))
    for name in WEATHERS:
        assert torch.equal(first.weathered[name], again.weathered[name])
        assert not torch.equal(first.weathered[name], other.weathered[name])


def test_small_photographs_are_left_out() -> None:
    small, large = photographs(30, 100, 300), photographs(3)
    assert len(validation_pairs([*small, *large], seed=0).clean) == 3
    with pytest.raises(MofmeError, match="256 x 256"):
        validation_pairs(small, seed=0)


def test_at_most_eight_photographs() -> None:
    assert len(validation_pairs(photographs(9, 256, 256), seed=0).clean) == 8


def test_figures_by_hand() -> None:
    # Off by 20, 10 and 10 steps of 255: PSNR = 20 log10(255 / error).
    report = validate(Painter(110), greys(weathered=120, clean=100), CPU)
    for name in WEATHERS:
        assert report.untouched[name] == pytest.approx(20 * math.log10(255 / 20), abs=1e-3)
        assert report.restored[name] == pytest.approx(20 * math.log10(255 / 10), abs=1e-3)
        assert report.gains()[name] == pytest.approx(20 * math.log10(2), abs=1e-3)
    assert report.kept_clean == pytest.approx(20 * math.log10(255 / 10), abs=1e-3)
    assert report.flat() == pytest.approx({**{f"gain_{name}": 6.021 for name in WEATHERS}, "clean": 28.13})
    assert "haze +6.02" in report.line()
    assert report.figures()["snow"] == {"input": 22.11, "restored": 28.13}


def test_a_picture_kept_exactly_counts_as_100_db() -> None:
    assert validate(Identity(), greys(120, 100), CPU).kept_clean == 100


def test_the_net_is_left_in_its_mode() -> None:
    net = Painter(100)
    for mode in (True, False):
        net.train(mode)
        validate(net, greys(120, 100), CPU)
        assert net.training == mode


@pytest.mark.parametrize("count", [1, 2])
def test_the_sheet_has_a_row_for_each_weather(tmp_path: Path, count: int) -> None:
    # Each sample is three pictures side by side: input, restored, clean; 2 pixels lie between and around.
    pairs = validation_pairs(photographs(count, 256, 256), seed=0)
    validate(Identity(), pairs, CPU).save_sheet(tmp_path / "sheet.png")
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.size == (3 * count * 258 + 2, 4 * 258 + 2)
        third = torch.from_numpy(np.array(sheet)[2 : 2 + 256, 2 + 2 * 258 : 2 * 258 + 258])
    assert torch.equal(third.permute(2, 0, 1), (pairs.clean[0] * 255).round().byte())
