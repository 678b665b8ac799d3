import os
import sys
from pathlib import Path

import numpy as np
import pytest
import typer
from PIL import Image
from typer.testing import CliRunner

from mofme.cli.train import synthesize

app = typer.Typer()
app.command()(synthesize)


def run(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    return result.exit_code, " ".join(result.output.replace("│", " ").split())


def save(path: Path, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB")).astype(int)


def names(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_one_picture_becomes_an_aligned_pair_of_one_weather_of_several_or_of_none(tmp_path: Path) -> None:
    clean, inputs = save(tmp_path / "a.png"), {}
    for weathers in ("rain", "haze", "rain haze", "clean"):
        out = tmp_path / weathers
        assert run(clean, out, *(word for name in weathers.split() for word in ("--weather", name)))[0] == 0
        assert names(out) == ["input/a.png", "target/a.png"]
        assert (pixels(out / "target/a.png") == pixels(clean)).all()
        inputs[weathers] = pixels(out / "input/a.png")
    assert (inputs["clean"] == pixels(clean)).all()
    assert np.abs(inputs["rain"] - pixels(clean)).max() > 10
    assert all((inputs["rain haze"] != inputs[one]).any() for one in ("rain", "haze"))


def test_a_folder_is_mirrored_in_every_weather_and_number(tmp_path: Path) -> None:
    save(tmp_path / "clean/a.png")
    save(tmp_path / "clean/deep/ö b.png", seed=1)
    assert run(tmp_path / "clean", tmp_path / "out", "--weather", "all", "--count", 2)[0] == 0
    expected = [
        f"{name}_{weather}_{number:03d}.png"
        for name in ("a", "deep/ö b")
        for weather in ("haze", "rain", "raindrop", "snow")
        for number in (0, 1)
    ]
    assert names(tmp_path / "out/input") == names(tmp_path / "out/target") == expected
    first, second = (pixels(tmp_path / f"out/input/a_snow_00{number}.png") for number in (0, 1))
    assert (first != second).any()


def test_the_seed_decides_whatever_else_is_in_the_folder(tmp_path: Path) -> None:
    clean = save(tmp_path / "clean/b.png")
    run(clean, tmp_path / "one", "--weather", "snow", "--seed", 5)
    save(tmp_path / "clean/a.png", seed=1)
    for folder, seed in (("two", 5), ("three", 6)):
        run(tmp_path / "clean", tmp_path / folder, "--weather", "snow", "--seed", seed)
    one, two, three = (pixels(tmp_path / folder / "input/b.png") for folder in ("one", "two", "three"))
    assert (one == two).all() and (one != three).any()


def test_a_bad_file_is_reported_and_skipped(tmp_path: Path) -> None:
    save(tmp_path / "clean/good.png")
    (tmp_path / "clean/bad.png").write_bytes(b"not a picture")
    code, output = run(tmp_path / "clean", tmp_path / "out", "--weather", "haze")
    assert code == 1 and "bad.png" in output.replace(" ", "")
    assert names(tmp_path / "out") == ["input/good.png", "target/good.png"]


def test_same_name_in_two_formats_makes_two_pairs(tmp_path: Path) -> None:
    save(tmp_path / "clean/a.png")
    save(tmp_path / "clean/a.jpg", seed=1)
    assert run(tmp_path / "clean", tmp_path / "out", "--weather", "snow")[0] == 0
    assert names(tmp_path / "out/input") == ["a_jpg.png", "a_png.png"]


@pytest.mark.parametrize("clean", ["photos/a.png", "photos"])
@pytest.mark.parametrize("out", [".", "photos"])
def test_pairs_may_lie_beside_or_around_the_pictures(tmp_path: Path, clean: str, out: str) -> None:
    save(tmp_path / "photos/a.png")
    for _ in range(2):
        assert run(tmp_path / clean, tmp_path / out, "--weather", "rain")[0] == 0
    assert names(tmp_path / out / "input") == names(tmp_path / out / "target") == ["a.png"]


def test_pictures_of_pairs_are_not_replaced_by_themselves(tmp_path: Path) -> None:
    before = save(tmp_path / "target/a.png").read_bytes()
    code, output = run(tmp_path / "target", tmp_path, "--weather", "rain")
    assert code == 2 and "but those of the pairs themselves" in output
    assert names(tmp_path) == ["target/a.png"]
    assert (tmp_path / "target/a.png").read_bytes() == before


@pytest.mark.skipif(sys.platform != "linux", reason="other systems allow no such names")
def test_a_name_that_is_not_unicode(tmp_path: Path) -> None:
    save(tmp_path / "clean" / os.fsdecode(b"caf\xe9.png"))
    assert run(tmp_path / "clean", tmp_path / "out", "--weather", "rain")[0] == 0
    assert (tmp_path / "out/input" / os.fsdecode(b"caf\xe9.png")).is_file()


@pytest.mark.parametrize(("weathers", "message"), [("hail", "no such weather: hail"), ("all rain", "leave the other")])
def test_wrong_weathers_are_explained(tmp_path: Path, weathers: str, message: str) -> None:
    words = [word for name in weathers.split() for word in ("--weather", name)]
    code, output = run(save(tmp_path / "a.png"), tmp_path / "out", *words)
    assert code == 2 and message in output
