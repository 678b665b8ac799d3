import pytest
import torch
from torch import Tensor

from mofme.vision.weather.particles import Draw
from mofme.vision.weather.raindrop import _kernel, add_any_drops, add_lens_drops, add_soft_discs


def draw(batch: int, seed: int = 0) -> Draw:
    return Draw(torch.Generator().manual_seed(seed), batch, torch.device("cpu"))


def pictures(batch: int, height: int = 96, width: int = 128) -> Tensor:
    return draw(batch, 7).smooth((height, width), (3, 9), channels=3)


@pytest.mark.parametrize("add", [add_lens_drops, add_soft_discs, add_any_drops])
def test_drops_cover_some_of_every_picture(add: object) -> None:
    clean = pictures(12)
    seen = add(clean, draw(12))  # type: ignore[operator]
    assert seen.shape == clean.shape
    assert seen.isfinite().all()
    changed = ((seen - clean).abs().amax(dim=1) > 0.02).float().mean(dim=(1, 2))
    assert (changed > 0.005).all()
    assert torch.equal(seen, add(clean, draw(12)))  # type: ignore[operator]


def test_one_drop_is_a_disc_of_its_radius_that_shows_what_it_is_given() -> None:
    # A scene of one grey, no darker rim: inside of 10 pixels that grey, outside nothing, and pi r^2 of it.
    inner = torch.full((1, 3, 8, 8), 0.6)
    none, two = torch.zeros(1), torch.full((1,), 2.0)
    kernel = _kernel(inner, (none, two), torch.tensor([10.0]), torch.ones(1), (64, 64))
    colour, alpha = kernel[0, :3], kernel[0, 3]
    assert alpha.sum().item() == pytest.approx(314.16, rel=0.02)
    assert alpha[0, 0] == 1
    assert alpha[0, 9] == 1
    assert alpha[0, 12] == 0
    torch.testing.assert_close(colour, 0.6 * alpha.expand(3, -1, -1))


def test_what_is_above_is_seen_below() -> None:
    # Upside down: of a scene bright above and dark below, a drop is dark above and bright below.
    clean = torch.zeros(24, 3, 128, 128)
    clean[:, :, :64] = 1
    seen = add_lens_drops(clean, draw(24))
    in_the_sky = 1 - seen[:, :, :56]
    on_the_ground = seen[:, :, 72:]
    assert in_the_sky.mean() > 0.02
    assert on_the_ground.mean() > 0.02
