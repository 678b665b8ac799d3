"""What cannot be written is refused before a model looks at anything."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor
from typer.testing import CliRunner

from mofme.cli.app import app
from mofme.errors import PictureError
from mofme.vision.batch import BatchSettings, restore_file, restore_tree
from mofme.vision.restorer import Restoration, Restorer


def never(image: Tensor, **_: object) -> Restoration:
    raise AssertionError("the net ran")


def as_it_is(image: Tensor, **_: object) -> Restoration:
    return Restoration(image, {"rain": 0.9}, torch.zeros(1, 1), (), 0.0)


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    (tmp_path / "in/sub").mkdir(parents=True)
    Image.new("RGB", (6, 4)).save(tmp_path / "in/sub/a.png")
    return tmp_path / "in/sub/a.png"


@pytest.mark.parametrize(
    ("format", "side", "most"), [("jpg", 65_501, "65,500"), ("webp", 16_384, "16,383"), ("avif", 32_769, "32,768")]
)
@pytest.mark.parametrize("upright", [True, False])
def test_larger_than_a_format_holds(tmp_path: Path, format: str, side: int, most: str, upright: bool) -> None:
    Image.new("L", (2, side) if upright else (side, 2)).save(tmp_path / "a.png")
    report = restore_file(never, tmp_path / "a.png", tmp_path / f"b.{format}", BatchSettings(format=format))
    assert f"holds, which is {most} a side: choose PNG or TIFF" in report.error


@pytest.mark.parametrize("size", [(5000, 4), (4, 5000), (100, 65_536)])
def test_what_no_heic_encoder_takes(tmp_path: Path, size: tuple[int, int]) -> None:
    Image.new("L", size).save(tmp_path / "a.png")
    report = restore_file(never, tmp_path / "a.png", tmp_path / "b.heic", BatchSettings(format="heic"))
    assert "choose PNG or TIFF" in report.error
    Image.new("L", (40, 30)).save(tmp_path / "a.png")
    assert restore_file(as_it_is, tmp_path / "a.png", tmp_path / "b.heic", BatchSettings(format="heic")).error == ""


@pytest.mark.parametrize("format", ["jpg", "webp"])
def test_as_large_as_a_format_holds(tmp_path: Path, format: str) -> None:
    side = {"jpg": 65_500, "webp": 16_383}[format]
    Image.new("L", (side, 2)).save(tmp_path / "a.png")
    assert (
        restore_file(as_it_is, tmp_path / "a.png", tmp_path / f"b.{format}", BatchSettings(format=format)).error == ""
    )


def test_an_output_that_is_a_folder_or_lies_below_a_file(tmp_path: Path, photo: Path) -> None:
    (tmp_path / "out/sub/a.png").mkdir(parents=True)
    (report,) = restore_tree(never, tmp_path / "in", tmp_path / "out")
    assert "a.png: is a folder" in report.error and not report.skipped
    (tmp_path / "other").mkdir()
    (tmp_path / "other/sub").write_text("a file")
    (report,) = restore_tree(never, tmp_path / "in", tmp_path / "other")
    assert "sub is no folder" in report.error


def test_a_target_that_cannot_be_made_is_said_at_once(tmp_path: Path, photo: Path) -> None:
    (tmp_path / "file").write_text("a file")
    for target in (tmp_path / "file", tmp_path / "file/deeper/out"):
        with pytest.raises(PictureError, match="file is no folder"):
            restore_tree(never, tmp_path / "in", target)


@pytest.fixture
def sealed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder that may not be written to, also for a user who may do anything."""
    folder = tmp_path / "sealed"
    folder.mkdir()
    ask = os.access
    monkeypatch.setattr(os, "access", lambda path, mode, **how: Path(path) != folder and ask(path, mode, **how))
    yield folder


def test_a_folder_that_may_not_be_written_to(tmp_path: Path, photo: Path, sealed: Path) -> None:
    with pytest.raises(PictureError, match="sealed may not be written to"):
        restore_tree(never, tmp_path / "in", sealed / "out")
    assert "sealed may not be written to" in restore_file(never, photo, sealed / "b.png").error


def test_a_name_that_is_too_long(photo: Path) -> None:
    assert "no file can have this name" in restore_file(never, photo, photo.with_name("n" * 300 + ".png")).error


@pytest.mark.parametrize("words", ["in out", "in/sub/a.png out/b.png", "in/sub/a.png file/b.png", "in file"])
def test_the_command_loads_no_model(tmp_path: Path, photo: Path, monkeypatch: pytest.MonkeyPatch, words: str) -> None:
    monkeypatch.setattr(Restorer, "from_pretrained", lambda *_: pytest.fail("a model was loaded"))
    (tmp_path / "file").write_text("a file")
    (tmp_path / "out").symlink_to(tmp_path / "file")
    result = CliRunner().invoke(app, ["restore", *(str(tmp_path / word) for word in words.split())])
    assert result.exit_code == 2 and "is no folder" in " ".join(result.stderr.split())


def test_a_measurement_does_not_begin_without_a_place_for_its_result(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("a file")
    result = CliRunner().invoke(app, ["bench", "--out", str(tmp_path / "file/results")])
    assert result.exit_code == 2 and "is no folder" in " ".join(result.stderr.split())
