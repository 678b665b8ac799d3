import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mofme.vision.nets.unet import NetOutput
from mofme.vision.restorer import Restorer
from mofme.vision.tiling import COARSE_PIXELS, enlarged, finer, working_copy
from mofme.vision.weather import WEATHERS


def noise(height: int, width: int, seed: int = 0) -> Tensor:
    return 0.3 + 0.4 * torch.rand(3, height, width, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("size", "copy"),
    [
        ((480, 720), (480, 720)),  # hardly larger
        ((1000, 1000), (500, 500)),
        ((3000, 4000), (433, 577)),  # 250,000 pixels of 4 : 3
        ((500, 8000), (352, 5632)),  # a panorama
        ((1, 1), (1, 1)),
    ],
)
def test_a_copy_has_as_many_pixels_as_the_net_learnt_on(size: tuple[int, int], copy: tuple[int, int]) -> None:
    image = torch.full((3, *size), 0.25)
    small = working_copy(image, COARSE_PIXELS)
    assert small.shape == (3, *copy)
    assert small is image or torch.allclose(small, torch.tensor(0.25))
    assert (small is image) == (size == copy)


def test_what_was_done_to_the_copy_is_done_to_the_whole() -> None:
    image = noise(96, 120)
    small = F.interpolate(image[None], (48, 60), mode="area")[0]
    for kind in (torch.float16, torch.float32, torch.float64):
        assert torch.equal(enlarged(image.to(kind), small, small), image.to(kind)), "nothing was done"
    torch.testing.assert_close(enlarged(image, small, small + 0.1), image + 0.1)
    # Twice the contrast: of the noise, too, that the copy averages away. The middle, for edges have half the squares.
    middle = enlarged(image, small, 2 * small - 0.5)[:, 30:-30, 30:-30]
    torch.testing.assert_close(middle, (2 * image - 0.5)[:, 30:-30, 30:-30], atol=0.03, rtol=0)
    # Less contrast, as of streaks that went, takes nothing from what only the whole shows.
    flat = small.mean(dim=(-2, -1), keepdim=True).expand_as(small)
    left = enlarged(image, small, flat)
    torch.testing.assert_close(left - F.interpolate((flat - small)[None], (96, 120), mode="bicubic")[0], image)


def test_only_what_a_copy_cannot_show_is_finer() -> None:
    stripes = torch.tensor([0.1, -0.1]).repeat(20).expand(3, 40, 40)
    torch.testing.assert_close(finer(stripes, torch.Size((20, 20))), stripes)
    even = torch.full((3, 40, 40), 0.1)
    torch.testing.assert_close(finer(even, torch.Size((20, 20))), torch.zeros_like(even))


class Smoothing(nn.Module):
    """Takes out what is narrower than nine pixels, and sees one weather."""

    def __init__(self, weather: str) -> None:
        super().__init__()
        self.logits = torch.tensor([[20.0 if name == weather else -20.0 for name in WEATHERS]])

    def encode_context(self, image: Tensor) -> Tensor:
        return image.new_zeros(len(image), 2, 1)

    def forward(self, image: Tensor, context: Tensor) -> NetOutput:
        return NetOutput(F.avg_pool2d(F.pad(image, (4, 4, 4, 4), mode="reflect"), 9, 1), self.logits)


@pytest.mark.parametrize(("weather", "least", "most"), [("rain", 0, 0.2), ("snow", 0, 0.2), ("raindrop", 0.5, 1)])
def test_streaks_too_fine_for_the_copy_go_too_where_it_rains_or_snows(weather: str, least: float, most: float) -> None:
    image = torch.full((3, 1000, 1000), 0.4)
    image[:, :, 7::40] = 0.8
    told: list[float] = []
    result = Restorer(Smoothing(weather), "smoothing")(image, on_progress=told.append)  # type: ignore[arg-type]
    assert least <= (result.image.std() / image.std()).item() <= most
    assert told == sorted(told)
    assert told[-1] == 1


def test_a_large_picture_is_seen_as_its_copy() -> None:
    # Twice as large by repeating pixels: the copy is the small picture again, bit for bit.
    small = noise(500, 500)
    large = small.repeat_interleave(2, dim=-2).repeat_interleave(2, dim=-1)
    restorer = Restorer(Smoothing("haze"), "smoothing")  # type: ignore[arg-type]
    ours, theirs = restorer(large), restorer(small)
    assert ours.image.shape == large.shape
    assert ours.weather == theirs.weather
    assert torch.equal(ours.uncertainty, theirs.uncertainty)
