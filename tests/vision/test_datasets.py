import os
import sys
import zlib
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from typer.testing import CliRunner

from mofme.cli.app import app
from mofme.errors import MofmeError, PictureError
from mofme.vision.datasets import (
    PairFiles,
    clean_crops,
    held_back,
    load_clean,
    load_haze,
    load_pair_sets,
    synthesized,
    taken_from,
)
from mofme.vision.weather import WEATHERS
from tests.vision.pictures import save_grey

save = partial(save_grey, size=(12, 10))


def noise(*size: int) -> Tensor:
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, (3, *size), dtype=np.uint8))


def values(pictures: list[Tensor]) -> list[int]:
    return sorted(int(picture[0, 0, 0]) for picture in pictures)


def test_held_back_goes_by_the_name_alone() -> None:
    # The check value of CRC-32, that of "123456789", is CBF43926 hex = 3421780262: even, but no multiple of 20.
    assert held_back(Path("123456789.png"), share=2)
    assert not held_back(Path("123456789.png"))
    assert held_back(Path("a/123456789.jpg"), share=2)
    # "cafe" with an accent, from a Latin-1 system: its bytes decide.
    share = zlib.crc32(b"caf\xe9")
    assert sys.platform != "linux" or held_back(Path(os.fsdecode(b"caf\xe9.jpg")), share)
    assert not held_back(Path("cafe.jpg"), share)
    # By default one in twenty: of 4,000 names 200, give or take 3.6 standard deviations of 13.8.
    assert 150 <= sum(held_back(Path(f"photo_{i}.jpg")) for i in range(4000)) <= 250


def test_every_photograph_is_in_one_part(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for i in range(60):
        save(tmp_path / str(i % 3) / f"{i}.png", i)
    training, validation = (load_clean([tmp_path], validation=v) for v in (False, True))
    assert values(training + validation) == list(range(60))
    assert values(validation) == [i for i in range(60) if held_back(Path(f"{i}.png"))]
    assert training[0].dtype == torch.uint8 and training[0].shape == (3, 10, 12)
    broken = next(path for path in sorted(tmp_path.rglob("*.png")) if not held_back(path))
    broken.write_bytes(b"no picture")
    assert len(load_clean([tmp_path], validation=False)) == len(training) - 1
    assert capsys.readouterr().out.count(broken.name) == 1  # skipped with a line


def test_of_few_photographs_one_is_held_back(tmp_path: Path) -> None:
    names = [name for name in "abcdefgh" if not held_back(Path(name))][:3]
    for value, name in enumerate(names):
        save(tmp_path / f"{name}.png", value)
    training, validation = (load_clean([tmp_path], validation=v) for v in (False, True))
    assert (len(training), len(validation)) == (2, 1)
    assert values(training + validation) == [0, 1, 2]
    save(tmp_path / "one" / "one.png", 1)
    for folder in (tmp_path / "one", tmp_path / "none"):
        with pytest.raises(MofmeError, match="train on"):
            load_clean([folder], validation=False)


def test_crops_come_from_everywhere_and_every_view() -> None:
    for height, width, crop in ((5, 90, 8), (33, 20, 40), (70, 70, 16)):
        batch = next(clean_crops([noise(height, width)], crop, 3, torch.Generator().manual_seed(0)))
        assert (batch.shape, batch.dtype) == ((3, 3, crop, crop), torch.float32)
        assert batch.min() >= 0 and batch.max() <= 1
    # Of a ramp from left to right, the direction of a crop tells its view, its values tell its place.
    ramp = torch.arange(64, dtype=torch.uint8).expand(3, 64, 64)
    crops = torch.cat(list(islice(clean_crops([ramp], 16, 8, torch.Generator().manual_seed(0)), 40)))[:, 0] * 255
    down, right = crops[:, -1, 0] - crops[:, 0, 0], crops[:, 0, -1] - crops[:, 0, 0]
    directions = torch.stack([down, right], dim=1).round().sign().int().tolist()
    assert set(map(tuple, directions)) == {(0, 1), (0, -1), (1, 0), (-1, 0)}
    assert crops.min() < 3 and crops.max() > 60
    # Sides of 16 and 64: drawn by the square root of the area, 1 to 4.
    pictures = [torch.zeros(3, 16, 16, dtype=torch.uint8), torch.full((3, 64, 64), 255, dtype=torch.uint8)]
    crops = torch.cat(list(islice(clean_crops(pictures, 8, 50, torch.Generator().manual_seed(0)), 20)))
    assert crops[:, 0, 0, 0].mean().item() == pytest.approx(0.8, abs=0.05)


def test_pairs_are_found_by_their_relative_path(tmp_path: Path) -> None:
    for name, value in (("a.png", 10), ("deep/b.png", 20)):
        save(tmp_path / "input" / name, value + 100)
        save(tmp_path / "target" / name, value)
    save(tmp_path / "target" / "extra.png", 1)
    (pairs,) = load_pair_sets([tmp_path]).values()
    assert [(int(p.weathered[0, 0, 0]), int(p.clean[0, 0, 0])) for p in pairs] == [(110, 10), (120, 20)]


def test_pairs_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(MofmeError, match="input"):
        load_pair_sets([tmp_path])
    save(tmp_path / "input" / "a.png", 1)
    save(tmp_path / "target" / "b.png", 1)
    with pytest.raises(PictureError, match=r"a\.png"):
        load_pair_sets([tmp_path])
    save(tmp_path / "target" / "a.png", 1, size=(10, 12))
    with pytest.raises(PictureError, match="differ in size"):
        load_pair_sets([tmp_path])
    for place in ("a/test/input", "a/test/target", "b/test/input", "b/test/target"):
        save(tmp_path / place / "1.png", 1)
    with pytest.raises(MofmeError, match="called test already"):
        load_pair_sets([tmp_path / "a/test", tmp_path / "b/test"])


def test_a_scene_and_its_transmission(tmp_path: Path) -> None:
    with pytest.raises(MofmeError, match="clear/"):
        load_haze(tmp_path)
    save(tmp_path / "clear" / "a[1].jpg", 90)
    save(tmp_path / "trans" / "a[1].png", 51, size=(6, 5))  # half the size
    (scene,) = load_haze(tmp_path)
    assert scene.clear.shape == (3, 10, 12)
    assert scene.transmission.shape == (1, 10, 12)
    assert scene.transmission.unique().tolist() == [51]
    save(tmp_path / "clear" / "a.png", 90)
    with pytest.raises(PictureError, match=r"a\.png: trans/"):
        load_haze(tmp_path)


def test_weather_is_that_of_synthesize(tmp_path: Path) -> None:
    save(tmp_path / "clean" / "street" / "a.png", 100, size=(64, 64))
    made = CliRunner().invoke(
        app, ["synthesize", str(tmp_path / "clean"), str(tmp_path / "pairs"), "--weather", "all", "--seed", "3"]
    )
    assert made.exit_code == 0
    clean = torch.full((3, 64, 64), 100 / 255)
    degrade = synthesized(WEATHERS, 3)
    assert tuple(degrade) == WEATHERS
    for weather in WEATHERS:
        saved = np.asarray(Image.open(tmp_path / "pairs" / "input" / "street" / f"a_{weather}.png"))
        degraded = degrade[weather](clean, "street/a")
        assert np.abs(degraded.permute(1, 2, 0).numpy() * 255 - saved).max() < 0.51
    clean = torch.rand(3, 40, 48, generator=torch.Generator().manual_seed(0))
    first = synthesized(["rain", "haze"], 1)["haze"]
    assert torch.equal(first(clean, "a"), synthesized(["haze"], 1)["haze"](clean, "a"))
    assert not torch.equal(first(clean, "a"), synthesized(["haze"], 2)["haze"](clean, "a"))
    assert not torch.equal(first(clean, "a"), first(clean, "b"))


def test_pictures_taken_from_a_folder_go_by_name(tmp_path: Path) -> None:
    folder = tmp_path / "foggy"
    save(folder / "street" / "a.png", 51, size=(64, 64))
    save(folder / "two.png", 0, size=(64, 64))
    save(folder / "two.bmp", 255, size=(64, 64))
    (degrade,) = taken_from(folder).values()
    assert list(taken_from(folder)) == ["foggy"]
    clean = torch.zeros(3, 64, 64)
    assert degrade(clean, "street/a").unique().tolist() == pytest.approx([0.2])
    assert degrade(clean, "two_bmp").min() == 1
    with pytest.raises(PictureError, match=r"foggy: no picture is called a$"):
        degrade(clean, "a")
    with pytest.raises(PictureError, match=r"a\.png: 64x64 pixels, but the clean picture has 48x32"):
        degrade(torch.zeros(3, 32, 48), "street/a")


def test_a_pair_that_is_cut_off_is_not_measured(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    for name in ("i.jpg", "t.jpg"):
        Image.fromarray(generator.integers(0, 256, (80, 60, 3), np.uint8)).save(tmp_path / name)
    data = (tmp_path / "t.jpg").read_bytes()
    (tmp_path / "t.jpg").write_bytes(data[: len(data) // 2])
    with pytest.raises(PictureError, match="rows are missing"):
        PairFiles("i.jpg", tmp_path / "i.jpg", tmp_path / "t.jpg").read()
