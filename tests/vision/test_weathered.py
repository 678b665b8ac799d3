"""Bad weather for clean photographs: the same for everyone who names the same seed and photograph."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from mofme.cli.app import app
from mofme.errors import PictureError
from mofme.vision.weather import WEATHERS
from mofme.vision.weathered import synthesized, taken_from


def save(path: Path, level: int, size: tuple[int, int] = (64, 64)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (level,) * 3).save(path)


def test_weather_is_that_of_synthesize(tmp_path: Path) -> None:
    save(tmp_path / "clean" / "street" / "a.png", 100)
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


def test_weather_depends_on_seed_and_name_alone() -> None:
    clean = torch.rand(3, 40, 48, generator=torch.Generator().manual_seed(0))
    first = synthesized(["rain", "haze"], 1)["haze"]
    assert torch.equal(first(clean, "a"), synthesized(["haze"], 1)["haze"](clean, "a"))
    assert not torch.equal(first(clean, "a"), synthesized(["haze"], 2)["haze"](clean, "a"))
    assert not torch.equal(first(clean, "a"), first(clean, "b"))


def test_pictures_taken_from_a_folder_go_by_name(tmp_path: Path) -> None:
    folder = tmp_path / "foggy"
    save(folder / "street" / "a.png", 51)
    save(folder / "two.png", 0)
    save(folder / "two.bmp", 255)
    (degrade,) = taken_from(folder).values()
    assert list(taken_from(folder)) == ["foggy"]
    clean = torch.zeros(3, 64, 64)
    assert degrade(clean, "street/a").unique().tolist() == pytest.approx([0.2])
    assert degrade(clean, "two_bmp").min() == 1
    with pytest.raises(PictureError, match=r"foggy: no picture is called a$"):
        degrade(clean, "a")
    with pytest.raises(PictureError, match=r"a\.png: 64x64 pixels, but the clean picture has 48x32"):
        degrade(torch.zeros(3, 32, 48), "street/a")
