"""A disk that is full: what was there before stays whole, what went wrong is said, and nothing is taken for done."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from typer.testing import CliRunner

from mofme.cli.app import app
from mofme.errors import ArchiveError, PictureError
from mofme.vision.archive import pack
from mofme.vision.batch import BatchSettings, restore_file, restore_tree
from mofme.vision.picture.decode import Picture
from mofme.vision.picture.file import FORMATS, write_picture
from mofme.vision.report import FileReport, write_report
from mofme.vision.restorer import Restoration, Restorer
from tests.films import as_it_is, film
from tests.full_disk import room_for

EARLIER = b"an earlier result"


def only_the_earlier(path: Path) -> bool:
    return path.read_bytes() == EARLIER and list(path.parent.iterdir()) == [path]


# Some encoders write all at once, others keep the end of the file for last: so half of it, and all but one byte.
@pytest.mark.parametrize("share", [0.5, 1.0])
@pytest.mark.parametrize(
    ("suffix", "bits"),
    [(f".{kind}", 8) for kind in ("jpg", "png", "webp", "tif", "bmp", "heic", "avif")] + [(".png", 16), (".tif", 16)],
)
def test_a_picture_in_any_format(tmp_path, suffix, bits, share):
    rgb = torch.rand(3, 40, 60, generator=torch.Generator().manual_seed(0))
    like, path = Picture(rgb=rgb, bits=bits), tmp_path / f"a{suffix}"
    write_picture(path, rgb, like)
    size = path.stat().st_size
    path.write_bytes(EARLIER)
    with room_for(int(size * share) - 1), pytest.raises(PictureError, match=rf"a\{suffix}: cannot be written"):
        write_picture(path, rgb, like)
    assert only_the_earlier(path)
    with room_for(size):
        write_picture(path, rgb, like)
    assert path.stat().st_size == size


@pytest.mark.parametrize("share", [0.5, 1.0])
@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])  # as is .mov, as is .webm
def test_a_video_in_any_container(tmp_path, suffix, share):
    source, path = film(tmp_path / "a.mp4", frames=4, sound="aac"), tmp_path / f"out/b{suffix}"
    assert restore_file(as_it_is, source, path).error == ""
    size = path.stat().st_size
    path.write_bytes(EARLIER)
    with room_for(int(size * share) - 1):
        assert "this video cannot be written" in restore_file(as_it_is, source, path).error
    assert only_the_earlier(path)


def test_a_report(tmp_path):
    path = tmp_path / "report.csv"
    write_report(path, [FileReport("a.png", "a.png", 4, 3)])
    earlier = path.read_bytes()
    with room_for(500), pytest.raises(PictureError, match=r"report\.csv: the report cannot be written"):
        write_report(path, [FileReport(f"{number}.png", "b.png", 4, 3) for number in range(20)])
    assert path.read_bytes() == earlier and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("missing", [1, 50, 3000])  # the end of the table of contents, all of it, a picture's half
def test_an_archive(tmp_path, missing):
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.png").write_bytes(bytes(5000))
    path = tmp_path / "out/a.zip"
    pack(tmp_path / "in", path)
    size = path.stat().st_size
    path.write_bytes(EARLIER)
    with room_for(size - missing), pytest.raises(ArchiveError, match=r"a\.zip: cannot be written"):
        pack(tmp_path / "in", path)
    assert only_the_earlier(path)


def test_the_command_fails_and_says_why(tmp_path):
    source, target = tmp_path / "in", tmp_path / "out"
    source.mkdir(), target.mkdir()
    samples = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    for suffix in FORMATS:
        Image.fromarray(samples).save(source / f"{suffix[1:]}{suffix}")
        (target / f"{suffix[1:]}{suffix}").write_bytes(EARLIER)
    words = ["restore", str(source), str(target), "--overwrite", "--device", "cpu", "--runtime", "torch"]
    with room_for(3000):
        ended = CliRunner().invoke(app, words)
    assert ended.exit_code == 1
    assert f"0 restored, {len(FORMATS)} failed" in ended.stderr
    for suffix in FORMATS:
        assert f"{suffix[1:]}{suffix}: cannot be written as" in ended.stderr
        assert (target / f"{suffix[1:]}{suffix}").read_bytes() == EARLIER
    assert not list(target.glob(".*"))


def never(image: Tensor, **_: object) -> Restoration:
    raise AssertionError("the net ran")


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    (tmp_path / "in/sub").mkdir(parents=True)
    Image.new("RGB", (6, 4)).save(tmp_path / "in/sub/a.png")
    return tmp_path / "in/sub/a.png"


@pytest.mark.parametrize(
    ("format", "size", "why"),
    [
        ("jpg", (65_501, 2), "holds, which is 65,500 a side: choose PNG or TIFF"),
        ("webp", (2, 16_384), "holds, which is 16,383 a side: choose PNG or TIFF"),
        ("avif", (32_769, 2), "holds, which is 32,768 a side: choose PNG or TIFF"),
        ("heic", (100, 65_536), "choose PNG or TIFF"),
        ("heic", (5000, 4), "too flat for HEIC's encoder: choose PNG or TIFF"),
        ("heic", (4, 5000), "too flat for HEIC's encoder: choose PNG or TIFF"),
        ("heic", (40, 30), ""),
        ("jpg", (65_500, 2), ""),
        ("webp", (16_383, 2), ""),
    ],
)
def test_larger_than_a_format_holds(tmp_path: Path, format: str, size: tuple[int, int], why: str) -> None:
    Image.new("L", size).save(tmp_path / "a.png")
    settings, restorer = BatchSettings(format=format), never if why else as_it_is
    report = restore_file(restorer, tmp_path / "a.png", tmp_path / f"b.{format}", settings)
    assert why in report.error and bool(why) == bool(report.error)


def test_an_output_that_is_a_folder_or_lies_below_a_file(tmp_path: Path, photo: Path) -> None:
    (tmp_path / "out/sub/a.png").mkdir(parents=True)
    (report,) = restore_tree(never, tmp_path / "in", tmp_path / "out")
    assert "a.png: is a folder" in report.error and not report.skipped
    (tmp_path / "other").mkdir()
    (tmp_path / "other/sub").write_text("a file")
    (report,) = restore_tree(never, tmp_path / "in", tmp_path / "other")
    assert "sub is no folder" in report.error
    for target in (tmp_path / "other/sub", tmp_path / "other/sub/deeper/out"):
        with pytest.raises(PictureError, match="sub is no folder"):
            restore_tree(never, tmp_path / "in", target)
    assert "no file can have this name" in restore_file(never, photo, photo.with_name("n" * 300 + ".png")).error


def test_a_folder_that_may_not_be_written_to(tmp_path: Path, photo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sealed, ask = tmp_path / "sealed", os.access
    sealed.mkdir()
    # Also for a user who may do anything.
    monkeypatch.setattr(os, "access", lambda path, mode, **how: Path(path) != sealed and ask(path, mode, **how))
    with pytest.raises(PictureError, match="sealed may not be written to"):
        restore_tree(never, tmp_path / "in", sealed / "out")
    assert "sealed may not be written to" in restore_file(never, photo, sealed / "b.png").error


@pytest.mark.parametrize(
    "words",
    [
        "restore in out",
        "restore in/sub/a.png out/b.png",
        "restore in/sub/a.png file/b.png",
        "restore in file",
        "bench --out file/results",
    ],
)
def test_commands_load_no_model_and_measure_nothing(
    tmp_path: Path, photo: Path, monkeypatch: pytest.MonkeyPatch, words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Restorer, "from_pretrained", lambda *_: pytest.fail("a model was loaded"))
    (tmp_path / "file").write_text("a file")
    (tmp_path / "out").symlink_to(tmp_path / "file")
    result = CliRunner().invoke(app, words.split())
    assert result.exit_code == 2 and "is no folder" in " ".join(result.stderr.split())
