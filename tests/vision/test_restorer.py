import math
import os
import re
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from mofme.errors import Cancelled
from mofme.vision import restorer as module
from mofme.vision.batch import restore_file
from mofme.vision.nets.tone import ToneNet
from mofme.vision.nets.unet import RestorationNet
from mofme.vision.restorer import Restoration, Restorer, TemporalSmoother, fill_hidden
from mofme.vision.weather import WEATHERS
from tests.vision.tiny_models import leaving_all

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def full_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "bf16_pays", lambda device: False)


def make_restorer(blocks: tuple[int, int, int] = (1, 1, 1), kind: str = "mofme") -> Restorer:
    """A narrow net that changes pictures a little, by random weights where a new net has zeros."""
    torch.manual_seed(0)
    net = RestorationNet(widths=(8, 12, 16), blocks=blocks, feed_forward=kind, num_experts=4)  # type: ignore[arg-type]
    for parameter in net.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.02)
    nn.init.normal_(net.context.project.weight)  # so that the thumbnail counts
    return Restorer(net, "test")


def picture(height: int, width: int) -> Tensor:
    """Away from black and white, where results would be cut off."""
    return 0.3 + 0.4 * torch.rand(3, height, width, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(("size", "tile", "ensemble"), [((203, 301), 64, False), ((211, 67), 96, True)])
def test_tiles_leave_no_trace(size: tuple[int, int], tile: int, ensemble: bool) -> None:
    restorer, image = make_restorer(blocks=(2, 2, 4)), picture(*size)
    whole, tiled = (restorer(image, tile=side, ensemble=ensemble, explain=True) for side in (512, tile))
    assert (whole.image - image).abs().max() > 8 / 255, "the net must change something"
    assert (whole.image - tiled.image).abs().max() < 1 / 255
    torch.testing.assert_close(tiled.uncertainty, whole.uncertainty, atol=0.02, rtol=0)
    for a, b in zip(tiled.routing, whole.routing, strict=True):
        assert (a.weights_EHW - b.weights_EHW).abs().mean() < 0.02


def test_strength_blends_and_the_input_is_left_as_it_is() -> None:
    restorer, image = make_restorer(), picture(40, 56)
    before = image.clone()
    full = restorer(image).image
    assert torch.equal(restorer(image, strength=0).image, image)
    torch.testing.assert_close(restorer(image, strength=0.25).image, 0.75 * image + 0.25 * full)
    strided = image.permute(1, 2, 0).contiguous().permute(2, 0, 1)
    torch.testing.assert_close(restorer(strided).image, full)
    full += 1  # the result belongs to the caller
    assert torch.equal(image, before)


@pytest.mark.parametrize(("probability", "share"), [(0.05, 0.0), (0.2, 0.5), (0.4, 1.0)])
def test_where_no_weather_is_seen_nothing_is_changed(probability: float, share: float) -> None:
    restorer, image = make_restorer(), picture(40, 56)
    full = restorer(image).image
    weight, bias = restorer.net.weather[-1].parameters()
    with torch.no_grad():
        weight.zero_()
        bias.fill_(math.log(probability / (1 - probability)))
    torch.testing.assert_close(restorer(image).image, image.lerp(full, share))


@pytest.mark.parametrize("size", [(1, 1), (1, 37), (37, 1), (2, 3), (9, 8)])
def test_small_and_thin_pictures(size: tuple[int, int]) -> None:
    for ensemble in (False, True):
        restored = make_restorer()((torch.rand(3, *size) > 0.5).float(), ensemble=ensemble, explain=True)
        assert restored.image.shape == (3, *size)
        assert restored.image.min() >= 0 and restored.image.max() <= 1
        assert restored.uncertainty.shape == (-(-size[0] // 8), -(-size[1] // 8))


def test_the_ensemble_is_the_mean_of_the_mirrored_views() -> None:
    restorer, image = make_restorer(), picture(40, 64)
    views = []
    for columns in (1, -1):  # left and right; a picture that stands on its head has its sky below
        mirrored = torch.from_numpy(image.numpy()[:, :, ::columns].copy())
        views.append(restorer(mirrored).image.numpy()[:, :, ::columns])
    expected = torch.from_numpy(np.mean(views, axis=0))
    torch.testing.assert_close(restorer(image, ensemble=True).image, expected, atol=1e-5, rtol=0)
    assert (expected - restorer(image).image).abs().max() > 1e-3, "views must differ"


def test_progress_rises_to_one_and_what_it_raises_stops_the_work() -> None:
    for ensemble, steps in ((False, 6), (True, 12)):
        told: list[float] = []
        make_restorer()(picture(100, 150), tile=64, ensemble=ensemble, on_progress=told.append)
        assert told == pytest.approx([(i + 1) / steps for i in range(steps)])
    told.clear()

    def stop(share: float) -> None:
        told.append(share)
        if len(told) == 2:
            raise Cancelled("enough")

    with pytest.raises(Cancelled, match="enough"):
        make_restorer()(picture(100, 150), tile=64, on_progress=stop)
    assert len(told) == 2


def test_maps_of_routing_and_uncertainty() -> None:
    restored = make_restorer()(torch.rand(3, 100, 150), explain=True)
    assert len({routing.layer for routing in restored.routing}) == 3  # one each at 1/4 down, 1/8, and 1/4 up
    for routing in restored.routing:
        assert routing.weights_EHW.shape == (4, 13, 19)
        assert (routing.weights_EHW >= 0).all()
        assert routing.shares().sum().item() == pytest.approx(1)
    assert restored.uncertainty.shape == (13, 19)
    assert restored.uncertainty.min() > 0 and restored.uncertainty.max() < 1
    assert restored.mean_uncertainty == pytest.approx(restored.uncertainty.mean().item())
    plain = make_restorer(kind="dense")(torch.rand(3, 100, 150))
    assert plain.mean_uncertainty == 0 and plain.routing == ()


@pytest.mark.parametrize(("side", "cells"), [(2048, 256), (2049, 129)])
def test_maps_have_at_most_256_cells_a_side(side: int, cells: int) -> None:
    # 2049 pixels need cells of 16: 128.1 of them.
    restored = make_restorer()(torch.rand(3, 8, side), explain=True)
    assert restored.uncertainty.shape == (1, cells)
    assert restored.routing[0].weights_EHW.shape == (4, 1, cells)
    assert (restored.uncertainty > 0).all()


def test_two_at_once_get_what_each_gets_alone() -> None:
    restorer, images = make_restorer(), (picture(100, 150), picture(140, 90).flip(0))
    alone = [restorer(image, tile=64, explain=True) for image in images]
    meet = Barrier(2, timeout=60)

    def restored(image: Tensor) -> Restoration:
        # Neither begins its next tile of six before the other has done as many.
        return restorer(image, tile=64, explain=True, on_progress=lambda _: meet.wait())

    with ThreadPoolExecutor(2) as pool:
        together = list(pool.map(restored, images))
    for one, other in zip(alone, together, strict=True):
        assert torch.equal(one.image, other.image) and one.weather == other.weather
        assert torch.equal(one.uncertainty, other.uncertainty)
        for mine, theirs in zip(one.routing, other.routing, strict=True):
            assert torch.equal(mine.weights_EHW, theirs.weights_EHW)


def test_half_precision_is_close(monkeypatch: pytest.MonkeyPatch) -> None:
    restorer, image = make_restorer(), picture(64, 80)
    full = restorer(image).image
    monkeypatch.setattr(module, "bf16_pays", lambda device: True)
    half = restorer(image).image
    assert half.dtype == torch.float32
    assert 0 < (half - full).abs().max() < 2 / 255


def test_the_weather_it_names() -> None:
    probabilities = make_restorer()(picture(40, 40)).weather
    assert tuple(probabilities) == WEATHERS
    assert all(0 < p < 1 for p in probabilities.values())
    for weather, name in (({"rain": 0.6, "snow": 0.9}, "snow"), ({"rain": 0.4, "snow": 0.49}, "clear")):
        assert Restoration(torch.zeros(3, 1, 1), weather, torch.zeros(1, 1), (), 0.0).weather_name == name


def test_floats_of_any_type() -> None:
    restorer = make_restorer()
    for dtype in (torch.float64, torch.float16, torch.bfloat16):
        image = picture(50, 70).to(dtype)
        restored = restorer(image).image
        assert restored.dtype == dtype
        torch.testing.assert_close(restored.float(), restorer(image.float()).image, atol=1 / 255, rtol=0)


def test_what_is_no_picture_or_strength_is_refused() -> None:
    restorer = make_restorer()
    for shape in ((1, 8, 8), (1, 3, 8, 8), (3, 0, 8), (8, 8)):
        with pytest.raises(ValueError, match="shape"):
            restorer(torch.zeros(shape))
    for other in (np.zeros((3, 8, 8), np.float32), "photo.jpg"):
        with pytest.raises(TypeError, match=f"a torch tensor, got {type(other).__name__}: torch.from_numpy makes"):
            restorer(other)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"floats in \[0, 1\], got torch.uint8"):
        restorer(torch.zeros(3, 8, 8, dtype=torch.uint8))
    for wrong in (float("nan"), float("inf"), 255.0, -1.0):
        spoilt = picture(8, 8)
        spoilt[0, 3, 3] = wrong
        with pytest.raises(ValueError, match=r"floats in \[0, 1\], got"):
            restorer(spoilt)
    assert restorer(picture(8, 8) * 1.2 - 0.1).image.isfinite().all()  # as resizing may leave it
    for strength in (-0.1, 1.1, float("nan")):
        with pytest.raises(ValueError, match="between 0 and 1"):
            restorer(picture(8, 8), strength=strength)
    with pytest.raises(ValueError, match="alpha"):
        restorer(torch.zeros(3, 4, 4), alpha=torch.zeros(1, 5, 5))


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="this system does not tell its memory")
def test_pictures_of_many_sizes_take_no_more_memory_than_ten() -> None:
    code = """
import random
from pathlib import Path
from mofme import Restorer
import torch

def resident():
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0])

restorer, sizes = Restorer.from_pretrained("small", "cpu"), random.Random(0)
for number in range(40):
    restorer(torch.rand(3, sizes.randint(16, 90), sizes.randint(16, 90)))
    if number == 9:
        print(resident())
print(resident())
"""
    # As a user's process has it: other tests may have run nets before.
    clean = {name: value for name, value in os.environ.items() if not name.endswith("_CACHE_CAPACITY")}
    clean["OMP_NUM_THREADS"] = "1"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT, env=clean)
    ten, forty = map(int, told.stdout.split())
    assert forty < 1.1 * ten  # with every kernel kept of 60 it is 1.6 times as much


def test_a_mean_moves_by_a_twentieth_until_a_cut():
    for next_frame in (torch.full((3, 4, 4), 0.8), torch.full((3, 2, 4), 0.5)):
        steady, grey = TemporalSmoother(), torch.full((3, 4, 4), 0.5)
        steady.see(grey)
        assert steady.mean("tone", torch.tensor([1.0])) == 1
        steady.see(grey + 0.05)
        assert steady.mean("tone", torch.tensor([3.0])).item() == pytest.approx(1.1)  # 1 + (3 - 1) / 20
        assert steady.mean("context", torch.tensor([7.0])) == 7  # another name, another mean
        steady.see(next_frame)
        assert steady.mean("tone", torch.tensor([3.0])) == 3


class Alternating:
    """Judges 1 of the first frame, -1 of the second, 1 of the third, ..."""

    def __init__(self, *shape: int) -> None:
        self.judged = torch.ones(shape)

    def __call__(self, *_: Tensor) -> Tensor:
        judged, self.judged = self.judged, -self.judged
        return judged


# 1, then .95 + .05 * -1, then .95 * .9 + .05 * 1
CALMED = [1, 0.9, 0.905]


def test_the_tone_of_a_video_is_calmed(monkeypatch):
    torch.manual_seed(0)
    tone, frame = ToneNet().eval(), 0.2 + 0.1 * torch.rand(3, 16, 24)
    monkeypatch.setattr(tone, "forward", Alternating(1, 2, 3))
    restorer, steady = Restorer(leaving_all(haze=0.9), "untrained", tone=tone), TemporalSmoother()
    for mean in CALMED:
        # Half of it is trusted; it is gain and offset both.
        expected = (frame * math.exp(mean / 2) + mean / 2).clamp(0, 1)
        torch.testing.assert_close(restorer(frame, steady=steady).image, expected, atol=0.01, rtol=0)


def test_doubts_about_the_haze_of_a_video_are_calmed(monkeypatch):
    frame, darker, second = torch.full((3, 16, 24), 0.5), leaving_all(haze=0.98), leaving_all(haze=0.02)
    with torch.no_grad():
        darker.head.bias[12:] = -1  # by a tenth, since the head's scale is that
    restorer, steady = Restorer(darker, "untrained", second=second), TemporalSmoother()
    for haze, doubt in ((0.98, 0), (0.02, 0.05), (0.02, 0.0975)):
        with torch.no_grad():
            second.weather[-1].bias[WEATHERS.index("haze")] = math.log(haze / (1 - haze))
        restored = restorer(frame, steady=steady).image
        torch.testing.assert_close(restored, frame - 0.1 * (1 - doubt), atol=1e-3, rtol=0)


def test_the_context_of_a_video_is_calmed(monkeypatch):
    net, frame = leaving_all(haze=0.1), torch.rand(3, 16, 24)
    context = net.encode_context(torch.rand(1, 3, 64, 64))
    monkeypatch.setattr(net, "encode_context", Alternating(*context.shape))
    given: list[Tensor] = []
    net.register_forward_pre_hook(lambda _, inputs: given.append(inputs[1]))
    restorer, steady = Restorer(net, "untrained"), TemporalSmoother()
    for _ in CALMED:
        restorer(frame, steady=steady)
    for context, mean in zip(given, CALMED, strict=True):
        torch.testing.assert_close(context, torch.full_like(context, mean))


HIDDEN = np.s_[:20]  # rows that are not seen


@pytest.fixture(scope="module")
def restorer() -> Restorer:
    return Restorer.from_pretrained("small", "cpu")


def scene() -> NDArray[np.uint8]:
    """A veiled gradient, which the shipped model clears."""
    y, x = np.mgrid[0:48, 0:64]
    return (150 + np.stack([x, y, x + y], -1) * 80 // 112).astype(np.uint8)


def seen() -> tuple[Tensor, Tensor]:
    """It as a picture, and an alpha that hides its first rows."""
    alpha = torch.ones(1, 48, 64)
    alpha[:, HIDDEN] = 0
    return torch.from_numpy(scene()).permute(2, 0, 1) / 255, alpha


def rgba(under: int) -> Image.Image:
    samples = np.dstack([scene(), np.full((48, 64), 255, np.uint8)])
    samples[HIDDEN] = (under, under, under, 0)
    return Image.fromarray(samples)


def palette(under: int) -> Image.Image:
    samples = scene()[..., 0] // 4
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
    [(rgba, ".webp"), (rgba, ".tif"), (palette, ".png"), (one_clear_colour, ".png")],
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
    image, alpha = seen()
    others = image * alpha
    for options in ({}, {"ensemble": True}, {"tile": 64}, {"steady": TemporalSmoother()}):
        a, b = (restorer(one, alpha=alpha, **options) for one in (image, others))  # type: ignore[arg-type]
        if "steady" not in options:
            assert torch.equal(a.image[:, 20:], b.image[:, 20:]) and a.weather == b.weather
        assert torch.equal(a.image[:, HIDDEN], image[:, HIDDEN])


def test_soft_edges_count_as_little_as_they_are_seen(restorer: Restorer) -> None:
    image, alpha = seen()
    alpha[:, 20] = 2 / 255
    others = image * (alpha == 1)
    a, b = (restorer(one, alpha=alpha).image for one in (image, others))
    assert (a[:, 21:] - b[:, 21:]).abs().max() < 4 / 255  # more where bfloat16 rounds the other way
    # Without any change wanted, all that was held is held, also at the edge.
    assert torch.equal(restorer(others, alpha=alpha, strength=0).image, others)


def test_an_evenly_transparent_picture_is_restored_as_an_opaque_one(restorer: Restorer) -> None:
    image, _ = seen()
    plain = restorer(image).image
    for level in (1.0, 0.3, 0.0):
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


def test_the_readme_restores_a_photo_from_python(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    (example,) = [block for block in blocks if "from mofme import Restorer" in block]
    Image.new("RGB", (48, 32), (90, 100, 110)).save(tmp_path / "photo.jpg")
    monkeypatch.setattr(Restorer, "from_pretrained", lambda *_: Restorer(leaving_all(haze=0.9), "test"))
    monkeypatch.chdir(tmp_path)
    exec(compile(example, "README.md", "exec"), {})
    assert capsys.readouterr().out.startswith("haze ")
    with Image.open(tmp_path / "clear.jpg") as image:
        assert image.size == (48, 32)
