import math
from functools import partial
from itertools import islice
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mofme.vision.scenes import (
    Dice,
    Scenes,
    Source,
    batches,
    hazed,
    paired,
    some_scenes,
    sources_of,
    synthesized,
    untouched,
)
from tests.vision.pictures import save_grey

CPU = torch.device("cpu")


def dice(seed: int = 0) -> Dice:
    return Dice(torch.Generator().manual_seed(seed), torch.Generator().manual_seed(seed + 1))


def noise(height: int = 70, width: int = 90, highest: int = 255, channels: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(height + width)
    return torch.randint(highest + 1, (channels, height, width), generator=generator, dtype=torch.uint8)


def labelled(share: float, name: float) -> Source:
    """Scenes with `name` for every label."""
    return Source(share, [noise()], lambda clean, _: Scenes(clean, clean, torch.full((len(clean), 4), name)))


@settings(max_examples=12, deadline=None)
@given(height=st.integers(5, 90), width=st.integers(5, 90), seed=st.integers(0, 99))
def test_pairs_stay_aligned_at_every_scale(height: int, width: int, seed: int) -> None:
    clean = noise(height, width, highest=200)
    scenes = Source(1, [torch.cat((clean + 50, clean))], partial(paired, "photos")).scenes(2, (32, 48), dice(seed))
    assert scenes.weathered.shape == scenes.clean.shape == (2, 3, 32, 48)
    assert scenes.labels.isnan().all(), "nobody knows what weather it is"
    torch.testing.assert_close(scenes.weathered - scenes.clean, torch.full_like(scenes.clean, 50 / 255))


def test_sets_that_are_called_as_a_weather_show_it_and_clean_ones_none(tmp_path: Path) -> None:
    for name, levels in {"clean": (5,), "rain": (0, 1, 2), "snow": (9,)}.items():
        for level in levels:
            for part in ("input", "target"):
                save_grey(tmp_path / "pairs" / name / part / f"{level}.png", level, (64, 64))
    for name in "ab":
        save_grey(tmp_path / "clean" / f"{name}.png", 0, (64, 64))
    _, *kinds = sources_of([tmp_path / "clean"], pairs={tmp_path / "pairs": 0.5})
    assert [kind.share for kind in kinds] == pytest.approx([0.1, 0.3, 0.1])  # as of one pair, of three and of one
    labels = [kind.scenes(1, (64, 64), dice()).labels[0].tolist() for kind in kinds]
    assert labels == [
        [0, 0, 0, 0],
        pytest.approx([1, *[math.nan] * 3], nan_ok=True),
        pytest.approx([math.nan, 1, *[math.nan] * 2], nan_ok=True),
    ]


def test_haze_is_thickest_where_the_transmission_is_least() -> None:
    # Behind a transmission of 0 is the airlight alone, at least .55 - .04 - .01 bright; what is near keeps its black.
    transmission = torch.full((1, 64, 64), 255, dtype=torch.uint8)
    transmission[:, :, :32] = 0
    scene = torch.cat((torch.zeros(3, 64, 64, dtype=torch.uint8), transmission))
    upright = [Source(1, [scene], hazed).scenes(1, (64, 64), dice(seed)) for seed in range(20)]
    halves = torch.cat([scenes.weathered for scenes in upright]).mean(dim=(1, 2)).sort(dim=1).values
    assert halves[:, -1].min() > 0.4
    assert halves[:, 0].min() == 0, "some have no even veil"
    assert all(scenes.labels.tolist() == [[0, 0, 0, 1]] for scenes in upright)


def test_layers_add_only_what_the_rain_added(tmp_path: Path) -> None:
    # One pair is 30 levels darker than its clean picture, the other as much brighter.
    places = {"0/input/a": 60, "0/target/a": 90, "1/input/a": 90, "1/target/a": 60, "black/a": 0, "black/b": 0}
    for place, level in places.items():
        save_grey(tmp_path / f"{place}.png", level, (64, 64))
    folders = ({tmp_path / name: 0.9} for name in "01")
    kinds = [sources_of([tmp_path / "black"], rain_layers=layers)[-1] for layers in folders]
    without, rainy = (kind.scenes(40, (64, 64), dice()) for kind in kinds)
    unveiled = without.weathered.amax(dim=(1, 2, 3)) == without.clean.amax(dim=(1, 2, 3))
    assert 12 <= unveiled.sum() <= 36, "three in five have no veil"
    gained = (rainy.weathered - rainy.clean)[unveiled].mean(dim=(1, 2, 3))
    # 30 of 255, by a factor of .7 to 1.6; less where a distractor is bright.
    assert gained.max() <= 1.6 * 30 / 255 + 1e-5
    assert gained.median() >= 0.7 * 30 / 255 - 1e-5
    assert rainy.labels[:, :3].tolist() == [[1, 0, 0]] * 40
    assert rainy.labels[:, 3].isnan().all()


def test_weather_is_put_on_photographs_or_not() -> None:
    scenes = Source(1, [noise()], untouched).scenes(10, (32, 32), dice())
    assert torch.equal(scenes.weathered, scenes.clean)
    assert not scenes.labels.any()
    scenes = Source(1, [noise()], synthesized).scenes(12, (64, 64), dice())
    changed = (scenes.weathered != scenes.clean).flatten(1).any(dim=1)
    assert torch.equal(changed, scenes.labels.any(dim=1))


def test_some_of_what_the_weather_is_put_on_is_dull(monkeypatch: pytest.MonkeyPatch) -> None:
    # A grey wall comes out darker and tinted where it is made dull, and as it is elsewhere.
    monkeypatch.setattr("mofme.vision.scenes.add_distractors", lambda clean, _: clean)
    wall = torch.full((3, 160, 200), 200, dtype=torch.uint8)
    scenes = Source(1, [wall], synthesized).scenes(100, (64, 64), dice())
    dull = ((scenes.clean - 200 / 255).abs() > 1e-3).flatten(1).any(dim=1)
    assert 3 <= dull.sum() <= 25, "about one in eight"


def test_a_camera_takes_its_share_of_the_scenes() -> None:
    def taken(photographed: float) -> int:
        """How many of 40 grey scenes come out in another tone."""
        grey = torch.full((3, 70, 90), 100, dtype=torch.uint8)
        source = Source(1, [grey], lambda clean, _: Scenes(clean, clean, torch.zeros(len(clean), 4)), photographed)
        rolls = dice()
        scenes = [some_scenes([source], 64, 16, rolls) for _ in range(40)]
        return sum(bool((one.clean - 100 / 255).abs().max() > 1e-3) for one in scenes)

    assert taken(0) == 0 < taken(0.5) < taken(1)


def test_the_thumbnail_is_that_of_the_whole_canvas() -> None:
    # A ramp of columns: a crop holds a part of it, the thumbnail all of it.
    ramp = torch.arange(240, dtype=torch.uint8).expand(3, 240, 240)
    source = Source(1, [torch.cat((ramp, ramp))], partial(paired, "photos"))
    for batch in islice(batches([source], 224, 32, 4, 4, dice()), 5):
        assert batch.thumbnails.shape == (4, 3, 64, 64)
        spread = [part.amax(dim=(1, 2, 3)) - part.amin(dim=(1, 2, 3)) for part in (batch.thumbnails, batch.weathered)]
        assert (spread[0] > 2 * spread[1]).all()


def test_shares_and_the_part_without_context() -> None:
    sources = [labelled(0.5, 0.0), labelled(0.25, 1.0), labelled(0.25, 2.0)]
    some = list(islice(batches(sources, 16, 16, 8, 1, dice()), 60))
    labels = torch.cat([batch.labels[:, 0] for batch in some])
    # 480 scenes: the deviation of a share of one half is .023, of the 85 % it is .016.
    assert (labels == 0).float().mean().item() == pytest.approx(0.5, abs=0.08)
    assert (labels == 1).float().mean().item() == pytest.approx(0.25, abs=0.07)
    informed = torch.cat([batch.informed for batch in some])
    assert informed.mean().item() == pytest.approx(0.85, abs=0.06)
    assert informed.unique().tolist() == [0, 1]


@pytest.mark.parametrize("at_once", [1, 4])
def test_no_two_crops_of_a_batch_are_of_one_canvas(monkeypatch: pytest.MonkeyPatch, at_once: int) -> None:
    monkeypatch.setattr("mofme.vision.scenes._AT_ONCE", {"cpu": at_once})
    count = 0

    def make(clean: Tensor, _: Dice) -> Scenes:
        nonlocal count
        labels = torch.arange(count, count + len(clean)).float()[:, None].expand(-1, 4)
        count += len(clean)
        return Scenes(clean, clean, labels)

    endless = batches([Source(1, [noise()], make)], 16, 16, 3, 3, dice())
    for batch in islice(endless, 10):
        assert len(set(batch.labels[:, 0].tolist())) == 3
    # Three to begin with, then one for each batch of three; or as many as are made at once.
    assert count == (3 + 9 if at_once == 1 else 4 * 10)
