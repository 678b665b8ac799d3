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
    return result.exit_code, result.output


def save(path: Path, size: tuple[int, int] = (40, 30), seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB")).astype(int)


def names(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_one_picture_becomes_an_aligned_pair(tmp_path: Path) -> None:
    clean = save(tmp_path / "a.png")
    code, _ = run(clean, tmp_path / "out", "--weather", "rain")
    assert code == 0
    assert names(tmp_path / "out") == ["input/a.png", "target/a.png"]
    assert (pixels(tmp_path / "out/target/a.png") == pixels(clean)).all()
    assert np.abs(pixels(tmp_path / "out/input/a.png") - pixels(clean)).max() > 10


def test_a_folder_is_mirrored_in_every_weather_and_number(tmp_path: Path) -> None:
    save(tmp_path / "clean/a.png")
    save(tmp_path / "clean/deep/ö b.png", seed=1)
    code, _ = run(tmp_path / "clean", tmp_path / "out", "--weather", "all", "--count", 2)
    assert code == 0
    expected = [
        f"{name}_{weather}_{number:03d}.png"
        for name in ("a", "deep/ö b")
        for weather in ("haze", "rain", "raindrop", "snow")
        for number in (0, 1)
    ]
    assert names(tmp_path / "out/input") == expected
    assert names(tmp_path / "out/target") == expected
    first, second = (pixels(tmp_path / f"out/input/a_snow_00{number}.png") for number in (0, 1))
    assert (first != second).any()


def test_the_seed_decides_whatever_else_is_in_the_folder(tmp_path: Path) -> None:
    clean = save(tmp_path / "clean/b.png")
    run(clean, tmp_path / "one", "--weather", "snow", "--seed", 5)
    save(tmp_path / "clean/a.png", seed=1)
    run(tmp_path / "clean", tmp_path / "two", "--weather", "snow", "--seed", 5)
    run(tmp_path / "clean", tmp_path / "three", "--weather", "snow", "--seed", 6)
    one, two, three = (pixels(tmp_path / folder / "input/b.png") for folder in ("one", "two", "three"))
    assert (one == two).all()
    assert (one != three).any()


def test_several_weathers_are_mixed_on_one_picture(tmp_path: Path) -> None:
    clean = save(tmp_path / "a.png")
    code, _ = run(clean, tmp_path / "out", "--weather", "rain", "--weather", "haze")
    assert code == 0
    assert names(tmp_path / "out/input") == ["a.png"]
    mixed = pixels(tmp_path / "out/input/a.png")
    for weather in ("rain", "haze"):
        assert run(clean, tmp_path / weather, "--weather", weather)[0] == 0
        assert (pixels(tmp_path / weather / "input/a.png") != mixed).any()


def test_a_bad_file_is_reported_and_skipped(tmp_path: Path) -> None:
    save(tmp_path / "clean/good.png")
    (tmp_path / "clean/bad.png").write_bytes(b"not a picture")
    code, output = run(tmp_path / "clean", tmp_path / "out", "--weather", "haze")
    assert code == 1
    assert "bad.png" in output.replace("\n", "")
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
    assert code == 2
    assert "but those of the pairs themselves" in " ".join(output.split())
    assert names(tmp_path) == ["target/a.png"]
    assert (tmp_path / "target/a.png").read_bytes() == before


@pytest.mark.skipif(sys.platform != "linux", reason="other systems allow no such names")
def test_a_name_that_is_not_unicode(tmp_path: Path) -> None:
    save(tmp_path / "clean" / os.fsdecode(b"caf\xe9.png"))
    assert run(tmp_path / "clean", tmp_path / "out", "--weather", "rain")[0] == 0
    assert (tmp_path / "out/input" / os.fsdecode(b"caf\xe9.png")).is_file()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["--weather", "hail"], "no such weather: hail"), (["--weather", "all", "--weather", "rain"], "leave the other")],
)
def test_wrong_weathers_are_explained(tmp_path: Path, arguments: list[str], message: str) -> None:
    code, output = run(save(tmp_path / "a.png"), tmp_path / "out", *arguments)
    assert code == 2
    assert message in " ".join(output.replace("│", " ").split())


def test_clean_makes_pairs_that_are_equal(tmp_path: Path) -> None:
    clean = save(tmp_path / "a.png")
    assert run(clean, tmp_path / "out", "--weather", "clean")[0] == 0
    assert (pixels(tmp_path / "out/input/a.png") == pixels(clean)).all()
    assert (pixels(tmp_path / "out/target/a.png") == pixels(clean)).all()
