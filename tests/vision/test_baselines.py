import numpy as np
import pytest
import torch
from kornia.filters import guided_blur

from mofme.vision.comparison import BASELINES, dehaze, guided_filter


def random(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).random(shape, dtype=np.float32)


@pytest.mark.parametrize("name", BASELINES)
@pytest.mark.parametrize("size", [(1, 1), (5, 7), (40, 61)])
def test_every_baseline_takes_pictures_of_any_size(name: str, size: tuple[int, int]) -> None:
    picture = torch.rand(3, *size)
    before = picture.clone()
    restored = BASELINES[name](picture)
    assert restored.shape == picture.shape
    assert restored.dtype == torch.float32
    assert restored.min() >= 0 and restored.max() <= 1
    assert torch.equal(picture, before)


@pytest.mark.parametrize("name", [name for name in BASELINES if name not in ("dark channel", "CLAHE")])
def test_filters_leave_an_even_picture(name: str) -> None:
    even = torch.tensor([0.2, 0.4, 0.8])[:, None, None].expand(3, 24, 24)
    torch.testing.assert_close(BASELINES[name](even), even, atol=2.5 / 255, rtol=0)


def test_colours_keep_their_channels() -> None:
    # A picture that is red on the left and blue on the right stays so, whatever is done to it.
    picture = torch.full((3, 40, 40), 0.2)
    picture[0, :, :20] = picture[2, :, 20:] = 0.8
    for name, restore in BASELINES.items():
        left, right = restore(picture)[:, :, :10].mean((1, 2)), restore(picture)[:, :, 30:].mean((1, 2))
        assert left.argmax() == 0 and right.argmax() == 2, name


def test_the_median_takes_a_flake_away() -> None:
    picture = torch.full((3, 9, 9), 0.4)
    picture[:, 4, 4] = 1.0
    torch.testing.assert_close(
        BASELINES["median blur, 3 wide"](picture), torch.full((3, 9, 9), 0.4), atol=1 / 255, rtol=0
    )


def test_the_guided_filter_is_that_of_kornia() -> None:
    guide, image = random(40, 50), random(41, 50)[1:]
    expected = guided_blur(torch.from_numpy(guide)[None, None], torch.from_numpy(image)[None, None], 9, 0.01)
    np.testing.assert_allclose(guided_filter(guide, image, 4, 0.01), expected[0, 0].numpy(), atol=1e-4)


def test_dehazing_by_hand() -> None:
    # Half of the light is lost on the way, air of .8 takes its place: I = (J + .8) / 2. Blue is 0 everywhere in J, so
    # the dark channel of I / .8 is .5, the transmission comes out as 1 - .95 * .5 = .525, and what lies below or above
    # the air is stretched by .5 / .525: J' = .8 + (J - .8) * .5 / .525. Above stands sky, nothing but air.
    scene = random(200, 120, 3) * 0.7
    scene[..., 2] = 0
    scene[:60] = 0.8
    hazy = (scene + 0.8) / 2
    expected = 0.8 + (scene - 0.8) * 0.5 / 0.525
    np.testing.assert_allclose(dehaze(hazy)[120:], expected[120:], atol=0.02)
    np.testing.assert_allclose(dehaze(hazy)[:20], 0.8, atol=1e-3)
