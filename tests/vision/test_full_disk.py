"""A disk that is full: what was there before stays whole, what went wrong is said, and nothing is taken for done."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from mofme.cli.app import app
from mofme.errors import ArchiveError, PictureError
from mofme.vision.archive import pack
from mofme.vision.batch import FileReport, restore_file, write_report
from mofme.vision.picture.decode import Picture
from mofme.vision.picture.file import FORMATS, write_picture
from mofme.vision.restorer import Restoration
from mofme.vision.video_file import CONTAINERS
from tests.films import film
from tests.full_disk import room_for

EARLIER = b"an earlier result"


def only_the_earlier(path: Path) -> bool:
    return path.read_bytes() == EARLIER and list(path.parent.iterdir()) == [path]


# Some encoders write all at once, others keep the end of the file for last: so half of it, and all but one byte.
@pytest.mark.parametrize("share", [0.5, 1.0])
@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("suffix", FORMATS)
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
@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv", ".webm"])
def test_a_video_in_any_container(tmp_path, suffix, share):
    def as_it_is(image, **_):
        return Restoration(image, {"rain": 0.9}, torch.zeros(1, 1), (), 0.0)

    source, path = film(tmp_path / "a.mp4", frames=4, sound="aac"), tmp_path / f"out/b{suffix}"
    assert suffix in CONTAINERS and restore_file(as_it_is, source, path).error == ""
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
