import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from mofme.core.weights import ModelCard, save_model
from mofme.errors import ModelError, MofmeError
from mofme.files import WEIGHTS_FILE
from mofme.vision.models import load_net, load_tone, weights_bytes
from mofme.vision.nets.tone import ToneNet, apply_tone
from mofme.vision.nets.unet import NetOutput
from mofme.vision.restorer import Restorer
from mofme.vision.scenes import Source, hazed
from mofme.vision.tone_training import TonePlan, ToneSamples, fit, gather, train_tone
from mofme.vision.weather import WEATHERS
from tests.vision.pictures import save_grey
from tests.vision.tiny_models import leaving_all

TINY = {"widths": [8, 8, 8], "blocks": [1, 1, 1], "feed_forward": "dense"}


def constant(gain: float, offset: float) -> ToneNet:
    tone = ToneNet().eval()
    with torch.no_grad():
        tone.project.bias.copy_(torch.tensor([gain] * 3 + [offset] * 3))
    return tone


def picture(height: int = 40, width: int = 56) -> Tensor:
    return 0.3 + 0.4 * torch.rand(3, height, width, generator=torch.Generator().manual_seed(1))


def samples(count: int = 256) -> ToneSamples:
    """What a restorer left too pale: each colour of the clean picture is 1.25 times it less 0.2."""
    generator = torch.Generator().manual_seed(2)
    after = torch.randint(80, 200, (count, 3, 64, 64), generator=generator, dtype=torch.uint8)
    clean = (1.25 * after - 0.2 * 255).round().to(torch.uint8)
    return ToneSamples(after, after, clean, torch.zeros(count), torch.ones(count))


def test_a_tone_is_a_gain_and_an_offset_for_each_colour() -> None:
    thumbnails = torch.rand(2, 3, 64, 64)
    assert torch.equal(ToneNet().eval()(thumbnails, thumbnails), torch.zeros(2, 2, 3))  # before it is trained
    tone = torch.tensor([[math.log(2), 0, math.log(0.5)], [0.1, 0, 0.2]])
    image = torch.full((3, 1, 1), 0.4)
    torch.testing.assert_close(apply_tone(image, tone).flatten(), torch.tensor([0.9, 0.4, 0.4]))
    both = apply_tone(torch.stack([image, image]), torch.stack([tone, torch.zeros(2, 3)]))
    torch.testing.assert_close(both[1], image)


@pytest.mark.parametrize(("haze", "share"), [(0.98, 0.9), (0.85, 0.25), (0.6, 0.0)])
def test_a_restorer_mends_the_tone_of_what_it_takes_for_hazy(haze: float, share: float) -> None:
    image = picture()
    restored = Restorer(leaving_all(haze), "test", tone=constant(math.log(1.2), -0.1))(image).image
    torch.testing.assert_close(restored, image * 1.2**share - 0.1 * share, atol=2e-5, rtol=0)


@pytest.mark.parametrize(("brightest", "share"), [(0.36, 0.0), (0.33, 0.5), (0.3, 1.0)])
def test_what_comes_out_too_dark_to_have_been_hazy_gets_its_light_back(brightest: float, share: float) -> None:
    # Stripes of 0.4 and 0.5 are made as dark as that, with twice their contrast; nine tenths of a tone are trusted.
    image = torch.tensor([0.4, 0.5]).repeat(32).expand(3, 64, 64)
    darkened = 2 * image + brightest - 1
    tone = constant(math.log(2) / 0.9, (brightest - 1) / 0.9)
    restored = Restorer(leaving_all(0.98), "test", tone=tone)(image).image
    torch.testing.assert_close(restored, darkened.lerp(image, share), atol=2e-3, rtol=0)


@pytest.mark.parametrize(("second", "doubt"), [(0.98, 0.0), (0.1, 0.6), (0.02, 1.0)])
def test_haze_is_cleared_as_far_as_a_second_net_sees_it(second: float, doubt: float) -> None:
    # 0.98 and 0.1 are logits of 3.89 and -2.20: their mean stands for 0.7, of which two fifths are believed.
    image, darker = picture(), leaving_all(0.98)
    with torch.no_grad():
        darker.head.bias[12:] = -1  # by a tenth, since the head's scale is that
    restoration = Restorer(darker, "test", second=leaving_all(second))(image)
    torch.testing.assert_close(restoration.image, image - 0.1 * (1 - doubt), atol=2e-3, rtol=0)
    assert restoration.weather["haze"] == pytest.approx(0.98 * (1 - doubt), abs=0.005)


def test_a_streak_is_taken_out_where_haze_is_not_believed_and_the_veil_of_rain_is() -> None:
    image, restoring = picture(64, 64), leaving_all(0.98)

    def take_streak_out(_: object, __: object, output: NetOutput) -> None:
        output.image[..., 30] -= 0.2

    restoring.register_forward_hook(take_streak_out)
    with torch.no_grad():
        restoring.head.bias[12:] = -1
        restoring.weather[-1].bias[WEATHERS.index("raindrop")] = 4.0
        change = Restorer(restoring, "test", second=leaving_all(0.02))(image).image - image
        assert change[..., 30].mean() < -0.14
        assert change[..., [*range(20), *range(44, 64)]].abs().mean() < 0.01
        restoring.weather[-1].bias[WEATHERS.index("rain")] = 4.0
        change = Restorer(restoring, "test", second=leaving_all(0.02))(image).image - image
        torch.testing.assert_close(change[..., :20], torch.full((3, 64, 20), -0.1), atol=1e-3, rtol=0)


def test_a_dull_wall_is_not_darkened() -> None:
    grain = torch.randn(1, 1, 12, 16, generator=torch.Generator().manual_seed(0))
    grey = 0.37 + 0.02 * torch.nn.functional.interpolate(grain, (240, 320), mode="bicubic")[0]
    wall = grey * torch.tensor([1.05, 1.0, 0.9])[:, None, None]
    restoration = Restorer.from_pretrained("small-real", "cpu")(wall)
    assert restoration.weather["haze"] > 0.9
    torch.testing.assert_close(restoration.image, wall, atol=0.03, rtol=0)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_the_picture_may_be_on_a_gpu() -> None:
    image, restorer = picture(), Restorer(leaving_all(0.95), "test", "cuda", tone=constant(0.2, 0.0))
    restored = restorer(image.cuda()).image
    assert restored.is_cuda
    torch.testing.assert_close(restored.cpu(), restorer(image).image, atol=1e-4, rtol=0)


def test_strength_counts_for_the_tone_and_tiles_have_that_of_the_whole() -> None:
    image, restorer = picture(90, 140), Restorer(leaving_all(0.95), "test", tone=constant(0.2, -0.05))
    full = restorer(image).image
    assert torch.equal(restorer(image, strength=0).image, image)
    torch.testing.assert_close(restorer(image, strength=0.5).image, (image + full) / 2)
    torch.testing.assert_close(restorer(image, tile=32).image, full, atol=1e-4, rtol=0)


def test_the_error_of_a_sample_adds_what_thumbnails_do_not_show() -> None:
    grey = torch.full((1, 3, 64, 64), 51, dtype=torch.uint8)  # 0.2
    sample = ToneSamples(grey, grey, 2 * grey, torch.tensor([0.01]), torch.tensor([0.5]))
    # Half trusted, an offset of 0.1 makes 0.25 of it, 0.15 short of 0.4: 0.0225, and 0.01 of details.
    tone = torch.tensor([[[0.0] * 3, [0.1] * 3]])
    torch.testing.assert_close(sample.error_B(tone), torch.tensor([0.0325]))


def test_it_learns_what_the_pictures_lack() -> None:
    made = samples()
    draws = torch.get_rng_state()
    trained = fit(made, TonePlan(Path(), (), steps=100, batch=12), lambda line: None)
    assert torch.equal(torch.get_rng_state(), draws)  # the caller draws on as if nothing had been trained
    with torch.no_grad():
        tone = trained(made.before.float() / 255, made.after.float() / 255)
    untouched, toned = made.error_B(torch.zeros_like(tone)).mean(), made.error_B(tone).mean()
    assert toned < untouched / 4


def test_samples_are_what_the_restorer_takes_for_hazy() -> None:
    photograph = (picture(150, 170) * 255).to(torch.uint8)
    scene = torch.cat((photograph, torch.full((1, 150, 170), 128, dtype=torch.uint8)))
    sources = [Source(1.0, [scene], hazed)]
    found = gather(leaving_all(0.75), sources, 16, 0, lambda line: None)
    assert found.before.shape == found.after.shape == found.clean.shape == (16, 3, 64, 64)
    torch.testing.assert_close(found.weight_N, torch.full((16,), 0.5), atol=0.02, rtol=0)
    assert (found.before.float() - found.clean.float()).abs().mean() > 2
    # This net changes nothing.
    assert (found.before.int() - found.after.int()).abs().max() <= 1
    with pytest.raises(MofmeError, match="no picture for hazy"):
        fit(gather(leaving_all(0.2), sources, 8, 0, lambda line: None), TonePlan(Path(), ()), lambda line: None)


def test_it_is_kept_beside_its_model(tmp_path: Path) -> None:
    photographs = tmp_path / "photographs"
    for number in range(3):
        save_grey(photographs / f"{number}.png", 60 + 40 * number, (150, 140))
    model = tmp_path / "mine"
    save_model(model, ModelCard("mine", "restoration", TINY, "CC0"), leaving_all(0.9).state_dict())
    assert load_tone(str(model)) is None
    alone = weights_bytes(model)
    card = train_tone(
        TonePlan(model / "tone", [photographs], model=str(model), samples=16, steps=3, batch=4), lambda line: None
    )
    assert (card.net, card.training["samples"]) == ("tone", 16)
    restorer = Restorer.from_pretrained(str(model), device="cpu")
    assert restorer.tone is not None
    assert not restorer.tone.training
    assert weights_bytes(model) > alone
    assert load_net(str(model))[1].name == "mine"
    with pytest.raises(ModelError, match=r"mine holds a 'restoration' net.*mine/tone"):
        train_tone(TonePlan(model, [photographs], str(model)), lambda line: None)
    assert load_net(str(model))[1].name == "mine"
    (model / "tone" / WEIGHTS_FILE).write_bytes(b"broken")
    with pytest.raises(ModelError, match="damaged"):
        Restorer.from_pretrained(str(model), device="cpu")
