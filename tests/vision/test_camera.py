import pytest
import torch

from mofme.vision.weather import photograph
from mofme.vision.weather.particles import Draw


def pictures(batch: int, seed: int = 1) -> torch.Tensor:
    draw = Draw(torch.Generator().manual_seed(seed), batch, torch.device("cpu"))
    return draw.smooth((32, 48), (3, 9), channels=3)


def test_what_is_alike_stays_alike_unless_only_the_input_is_compressed() -> None:
    clean = pictures(60)
    weathered, target = photograph(clean, clean, torch.Generator().manual_seed(0))
    differ = (weathered != target).flatten(1).any(dim=1)
    # One in five; the deviation of 60 draws is 3.
    assert 4 <= differ.sum() <= 21
    assert (weathered - target)[differ].abs().mean() <= 0.03, "JPEG of quality 80 and better"
    kept = (target == clean).flatten(1).all(dim=1)
    # .7 without sharpening x .5 without tone x .8 without JPEG
    assert 8 <= kept.sum() <= 27
    assert target.min() >= 0
    assert target.max() <= 1


def test_weather_stays_where_it_was() -> None:
    clean = pictures(30)
    wet = clean.clone()
    wet[:, :, 10:14, 20:24] = 1
    weathered, target = photograph(wet, clean, torch.Generator().manual_seed(3))
    change = (weathered - target).abs().mean(dim=1)
    assert (change[:, 10:14, 20:24].mean(dim=(1, 2)) > 5 * change[:, :, 40:].mean(dim=(1, 2))).all()


def test_it_follows_the_seed() -> None:
    clean = pictures(4)
    first, again, other = (photograph(clean, clean, torch.Generator().manual_seed(seed))[1] for seed in (5, 5, 6))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_sides_that_are_no_blocks_of_jpeg() -> None:
    odd = torch.rand(40, 3, 20, 30)
    with pytest.raises(ValueError, match="multiples of 16"):
        photograph(odd, odd, torch.Generator().manual_seed(0))
