import math
from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mofme.vision.weather import TRAINED, WEATHERS, random_weathers, synthesize
from mofme.vision.weather.camera import add_distractors, photograph
from mofme.vision.weather.falling import _lens_streaks, _near_flakes, _splashes
from mofme.vision.weather.haze import add_veil, koschmieder, random_airlight, random_depth
from mofme.vision.weather.particles import Draw, disc, gaussian, impulses, motion, peak_one, to_picture
from mofme.vision.weather.raindrop import _kernel, add_any_drops, add_lens_drops, add_raindrops, add_soft_discs


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def draw(batch: int, seed: int = 0) -> Draw:
    return Draw(seeded(seed), batch, torch.device("cpu"))


def pictures(batch: int, height: int = 64, width: int = 80, seed: int = 1) -> Tensor:
    """Smooth coloured pictures of all brightnesses."""
    return draw(batch, seed).smooth((height, width), (3, 9), channels=3)


def one_impulse(transfer: Tensor, side: int, amplitude: float = 1.0) -> Tensor:
    field = torch.zeros(1, 1, side, side)
    field[..., side // 2, side // 2] = amplitude
    return to_picture(torch.fft.rfft2(field) * transfer[:, None], (side, side))[0, 0]


def second_moments(picture: Tensor, angle: float) -> tuple[float, float]:
    """Variance along and across the direction `angle` from the vertical, around the centre of the picture."""
    middle = picture.shape[0] // 2
    y, x = torch.meshgrid(*[torch.arange(n) - float(middle) for n in picture.shape], indexing="ij")
    along = x * math.sin(angle) + y * math.cos(angle)
    across = x * math.cos(angle) - y * math.sin(angle)
    total = picture.sum()
    return float((picture * along**2).sum() / total), float((picture * across**2).sum() / total)


def test_streaks_discs_and_blurs_are_as_large_as_asked_for() -> None:
    side = (129, 129)

    def moments(transfer: Tensor, angle: float) -> tuple[float, float]:
        return second_moments(one_impulse(transfer, 129), angle)

    # A line of length L blurred by a Gaussian of s has variance L^2/12 + s^2 along and s^2 across.
    for length, degrees, sigma in ((20.0, 30.0, 2.0), (31.5, -45.0, 1.0), (8.0, 0.0, 3.0)):
        angle = math.radians(degrees)
        line = motion(torch.tensor([length]), torch.tensor([angle]), side) * gaussian(torch.tensor([sigma]), side)
        assert moments(line, angle) == (
            pytest.approx(length**2 / 12 + sigma**2, rel=2e-3),
            pytest.approx(sigma**2, rel=5e-3),
        )
    # Along any direction a uniform disc of radius R has variance R^2/4; here 6^2/4 + 1 for the blur.
    soft = disc(torch.tensor([6.0]), side) * gaussian(torch.tensor([1.0]), side)
    assert moments(soft, 0.4) == pytest.approx((10, 10), rel=2e-3)
    tall = gaussian(torch.tensor([5.0]), side, wide_B=torch.tensor([2.0]))
    assert moments(tall, 0.0) == pytest.approx((25, 4), rel=2e-3)


@pytest.mark.parametrize("side", [64, 65])
def test_a_particle_peaks_at_its_amplitude(side: int) -> None:
    transfer = motion(torch.tensor([15.0]), torch.tensor([0.3]), (side, side))
    transfer = peak_one(transfer * gaussian(torch.tensor([1.2]), (side, side)), (side, side))
    particle = one_impulse(transfer, side, amplitude=0.7)
    assert float(particle.max()) == pytest.approx(0.7, abs=1e-3)
    assert float(particle[side // 2, side // 2]) == pytest.approx(0.7, abs=1e-5)


def test_impulses_are_as_dense_and_as_strong_as_asked_for() -> None:
    field = impulses(torch.tensor([0.02, 0.2]), (300, 300), draw(2), faintest=0.5)
    share = (field > 0).float().mean((1, 2, 3))
    assert share.tolist() == pytest.approx([0.02, 0.2], rel=0.1)
    assert 0.5 <= float(field[field > 0].min()) < 0.51
    assert float(field[field > 0].mean()) == pytest.approx(0.75, abs=0.01)
    assert float(field.max()) <= 1
    none = impulses(torch.zeros(8), (9, 9), draw(8))
    some = impulses(torch.zeros(8), (9, 9), draw(8), at_least_one=True)
    assert int((none > 0).sum()) == 0
    assert (some > 0).sum((1, 2, 3)).tolist() == [1] * 8


def test_koschmieder_by_hand() -> None:
    # .2 * .25 + .8 * .75 = .65 and so on, one channel each.
    clean = torch.tensor([0.2, 0.4, 1.0]).view(1, 3, 1, 1)
    hazy = koschmieder(clean, torch.full((1, 1, 1, 1), 0.25), torch.tensor([0.8, 0.6, 1.0]).view(1, 3, 1, 1))
    assert hazy.flatten().tolist() == pytest.approx([0.65, 0.55, 1.0])


def test_a_thing_is_hazed_as_a_whole() -> None:
    # A dark thing before a bright ground: the depth changes more from column 31 to 32 than anywhere else.
    clean = torch.full((64, 3, 64, 64), 0.1)
    clean[..., 32:] = 0.9
    steps = random_depth(clean, draw(64)).diff(dim=-1).abs().mean((0, 1, 2))
    assert int(steps.argmax()) == 31
    assert float(steps[31]) > 3 * float(steps.median())


def test_a_hazy_sky_may_stay_as_it_is() -> None:
    # Every second picture at least has an air light within a seventh of its brightest part, none is much darker.
    clean = torch.full((400, 3, 24, 24), 0.2)
    clean[:, :, :8] = 0.7
    airlight = random_airlight(clean, draw(400), 0.3).amax((1, 2, 3))
    near = (airlight / 0.7 - 1).abs() < 1 / 7
    assert float(near.float().mean()) > 0.5
    assert float((airlight > 0.85 * 0.85 * 0.7).float().mean()) > 0.98


def test_the_thickest_fog_leaves_something_to_restore() -> None:
    # Neighbours of 0 and 1 are 1 apart; of that 8 % is left, less what the air light differs between neighbours.
    clean = torch.zeros(16, 3, 32, 32)
    clean[..., ::2] = 1
    foggy = add_veil(clean, torch.full((16,), 1e-6), 0.6, draw(16))
    assert float(foggy.diff(dim=-1).abs().mean((1, 2, 3)).min()) > 0.07


@settings(max_examples=15, deadline=None)
@given(
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    weathers=st.lists(st.frozensets(st.sampled_from(WEATHERS)), min_size=1, max_size=4),
    seed=st.integers(0, 2**31),
)
def test_any_weather_on_any_size_stays_a_picture(
    height: int, width: int, weathers: list[frozenset[str]], seed: int
) -> None:
    clean = torch.rand(len(weathers), 3, height, width, generator=seeded(seed))
    result = synthesize(clean, weathers, seeded(seed))
    assert result.image.shape == clean.shape
    assert result.image.isfinite().all()
    assert 0 <= float(result.image.min()) <= float(result.image.max()) <= 1
    for clean_one, image, label, names in zip(clean, result.image, result.labels, weathers, strict=True):
        assert label.tolist() == [float(name in names) for name in WEATHERS]
        assert bool(names) or torch.equal(image, clean_one)


def test_looks_of_training_stay_pictures_and_are_decided_by_the_seed() -> None:
    for size in ((29, 33), (64, 80)):
        first, second = (synthesize(pictures(8, *size), WEATHERS * 2, seeded(5), **TRAINED).image for _ in range(2))
        assert torch.equal(first, second)
        assert first.isfinite().all() and first.min() >= 0 and first.max() <= 1


def test_pictures_of_any_float_type() -> None:
    for dtype in (torch.float64, torch.float16, torch.bfloat16):
        clean = torch.rand(4, 3, 24, 32, generator=seeded()).to(dtype)
        image, expected = (synthesize(one, WEATHERS, seeded(1)).image for one in (clean, clean.float()))
        assert image.dtype == dtype
        # Before the sensor and at the end pictures are rounded to their type, by up to 2^-9: that may cross an 8-bit
        # step.
        assert (image.float() - expected).abs().max() < 1 / 255 + 2**-8
    clean = pictures(4)
    from_numpy = synthesize(clean.numpy(), WEATHERS, seeded(1)).image  # type: ignore[arg-type]
    assert torch.equal(from_numpy, synthesize(clean, WEATHERS, seeded(1)).image)


def test_the_seed_decides_and_the_input_is_left_alone() -> None:
    clean = pictures(5)
    before = clean.clone()
    weathers = [*WEATHERS, frozenset({"rain", "haze"})]
    first = synthesize(clean, weathers, seeded(3)).image
    other = synthesize(clean, weathers, seeded(4)).image
    assert ((first - other).abs().amax((1, 2, 3)) > 0.01).all()
    assert torch.equal(clean, before)


def test_near_drops_have_a_dark_side() -> None:
    bright, dark = _lens_streaks((128, 160), torch.linspace(-0.7, 0.7, 48), draw(48))
    most_bright, most_dark = (field.amax((1, 2, 3), keepdim=True) for field in (bright, dark))
    shown = most_dark.flatten() > 0.01
    assert 5 <= shown.sum() <= 20  # one in four
    darker = dark / most_dark - bright / most_bright
    assert (darker[shown].amax((1, 2, 3)) > 0.15).all()


def test_drops_burst_on_the_ground() -> None:
    seen = _splashes((96, 128), draw(64))
    assert seen[:, :, 56:].sum() > 10 * seen[:, :, :40].sum() > 0
    assert 5 <= (seen.amax((1, 2, 3)) > 0.05).sum() <= 25  # one picture in five


def test_near_flakes_are_large_and_soft() -> None:
    flakes = _near_flakes((192, 192), draw(32))
    shown = flakes.amax((1, 2, 3)) > 0.05
    assert 6 <= shown.sum() <= 20  # two in five
    # The middle 7 x 7 pixels of a disc of radius 6 and more lie within it.
    eroded = -torch.nn.functional.max_pool2d(-flakes[shown], 7, 1)
    assert (eroded.amax((1, 2, 3)) > 0.3 * flakes[shown].amax((1, 2, 3))).all()


def test_distractors_change_a_few_pictures_and_leave_the_rest_alone() -> None:
    clean = pictures(200, 32, 48)
    before = clean.clone()
    result = add_distractors(clean, seeded())
    changed = (result != clean).flatten(1).any(1).float().mean()
    # 15 % out of focus, 15 % in dull light, some both: 1 - .85^2 = 28 %.
    assert float(changed) == pytest.approx(0.28, abs=0.1)
    assert 0 <= float(result.min()) <= float(result.max()) <= 1
    assert torch.equal(clean, before)
    for size in ((1, 1), (7, 33)):
        assert add_distractors(torch.rand(40, 3, *size), seeded()).isfinite().all()


def test_the_training_mixture_has_its_shares() -> None:
    drawn = random_weathers(6000, seeded())
    share = {names: count / 6000 for names, count in Counter(drawn).items()}
    single = {name: share[frozenset({name})] for name in WEATHERS}
    assert single == pytest.approx({"rain": 0.23, "snow": 0.21, "raindrop": 0.23, "haze": 0.19}, abs=0.02)
    assert share[frozenset()] == pytest.approx(0.08, abs=0.01)
    assert sum(value for names, value in share.items() if len(names) == 2) == pytest.approx(0.06, abs=0.01)


def test_mistakes_are_explained() -> None:
    with pytest.raises(ValueError, match="unknown weather hail"):
        synthesize(torch.rand(1, 3, 8, 8), ["hail"], seeded())
    with pytest.raises(ValueError, match="2 pictures need as many sets of weathers, got 1"):
        synthesize(torch.rand(2, 3, 8, 8), ["rain"], seeded())
    odd = torch.rand(40, 3, 20, 30)
    with pytest.raises(ValueError, match="multiples of 16"):  # no blocks of JPEG
        photograph(odd, odd, seeded())


def test_what_is_alike_stays_alike_unless_only_the_input_is_compressed() -> None:
    clean = pictures(60, 32, 48)
    weathered, target = photograph(clean, clean, seeded())
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
    clean = pictures(30, 32, 48)
    wet = clean.clone()
    wet[:, :, 10:14, 20:24] = 1
    weathered, target = photograph(wet, clean, seeded(3))
    change = (weathered - target).abs().mean(dim=1)
    assert (change[:, 10:14, 20:24].mean(dim=(1, 2)) > 5 * change[:, :, 40:].mean(dim=(1, 2))).all()


def test_drops_cover_some_of_every_picture() -> None:
    clean = pictures(12, 96, 128, 7)
    for add in (add_raindrops, add_lens_drops, add_soft_discs, add_any_drops):
        changed = ((add(clean, draw(12)) - clean).abs().amax(dim=1) > 0.02).float().mean(dim=(1, 2))
        assert (changed > 0.005).all()


def test_one_drop_is_a_disc_of_its_radius_that_shows_what_it_is_given() -> None:
    # A scene of one grey, no darker rim: inside of 10 pixels that grey, outside nothing, and pi r^2 of it.
    inner = torch.full((1, 3, 8, 8), 0.6)
    none, two = torch.zeros(1), torch.full((1,), 2.0)
    kernel = _kernel(inner, (none, two), torch.tensor([10.0]), torch.ones(1), (64, 64))
    colour, alpha = kernel[0, :3], kernel[0, 3]
    assert alpha.sum().item() == pytest.approx(314.16, rel=0.02)
    assert alpha[0, [0, 9, 12]].tolist() == [1, 1, 0]
    torch.testing.assert_close(colour, 0.6 * alpha.expand(3, -1, -1))


def test_what_is_above_is_seen_below() -> None:
    # Upside down: of a scene bright above and dark below, a drop is dark above and bright below.
    clean = torch.zeros(24, 3, 128, 128)
    clean[:, :, :64] = 1
    seen = add_lens_drops(clean, draw(24))
    assert (1 - seen[:, :, :56]).mean() > 0.02
    assert seen[:, :, 72:].mean() > 0.02
