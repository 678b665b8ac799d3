"""Files of other kinds are named for what they are, with what to do, and once for a folder."""

import zipfile
from pathlib import Path, PurePath

import av
import numpy as np
import pillow_heif
import pytest
import torch
from PIL import Image
from torch import Tensor
from typer.testing import CliRunner

from mofme.cli.app import app
from mofme.errors import ArchiveError, PictureError
from mofme.vision.archive import extract, others_packed
from mofme.vision.picture.file import READABLE_SUFFIXES, read_picture
from mofme.vision.picture.kinds import left_out
from mofme.vision.restorer import Restoration, Restorer


@pytest.mark.parametrize("name", ["a.gif", "a.jpg"])  # by its content, whatever it is called
def test_a_gif_is_called_one(tmp_path: Path, name: str) -> None:
    Image.new("P", (4, 4)).save(tmp_path / name, format="GIF")
    with pytest.raises(PictureError, match=r"is a GIF, which has 256 colours: save it as PNG or WebP") as told:
        read_picture(tmp_path / name)
    assert "damaged" not in str(told.value)


@pytest.mark.parametrize("name", ["a.NEF", "a.dng", "a.cr2"])
def test_the_small_picture_in_a_raw_photograph_is_not_taken_for_it(tmp_path: Path, name: str) -> None:
    Image.new("RGB", (16, 12)).save(tmp_path / name, format="TIFF")
    with pytest.raises(PictureError, match="is a raw photograph: develop it"):
        read_picture(tmp_path / name)


def test_kinds_are_counted_once() -> None:
    paths = [PurePath(name) for name in ("a.GIF", "b.gif", "c.cr2", "d.nef", "e.txt", "noend")]
    said = left_out(paths)
    assert "2 files (.gif): a GIF" in said and "2 files (.cr2, .nef): a raw photograph, develop it" in said
    assert "2 files (without a suffix, .txt): no pictures or videos" in said
    assert left_out([]) == ""


def run(*words: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["restore", *map(str, words)])
    return result.exit_code, " ".join(result.stderr.split())


def test_the_command_tells_of_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def as_it_is(image: Tensor, **_: object) -> Restoration:
        return Restoration(image, {"rain": 0.9}, torch.zeros(1, 1), (), 0.0)

    monkeypatch.setattr(Restorer, "from_pretrained", lambda *_: as_it_is)
    (tmp_path / "in").mkdir()
    Image.new("P", (4, 4)).save(tmp_path / "in/a.gif")
    code, said = run(tmp_path / "in", tmp_path / "out")
    assert code == 2 and "no pictures or videos found. Left out: 1 file (.gif): a GIF" in said
    Image.new("RGB", (4, 4)).save(tmp_path / "in/a.png")
    code, said = run(tmp_path / "in", tmp_path / "in/out")
    assert code == 0 and said.count("left out: 1 file (.gif)") == 1 and "1 restored" in said
    code, said = run(tmp_path / "in/a.gif", tmp_path / "b.png")
    assert code == 1 and "a.gif: is a GIF" in said


def test_archives_tell_of_them(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("sub/a.gif", b"GIF89a")
        archive.writestr("__MACOSX/x.txt", b"")
    with pytest.raises(ArchiveError, match=r"holds no pictures\. Left out: 1 file \(\.gif\)"):
        extract(tmp_path / "a.zip", tmp_path / "out")
    Image.new("RGB", (4, 4)).save(tmp_path / "b.png")
    with zipfile.ZipFile(tmp_path / "a.zip", "a") as archive:
        archive.write(tmp_path / "b.png", "b.png")
    (path,) = extract(tmp_path / "a.zip", tmp_path / "out")
    assert others_packed(tmp_path / "a.zip", READABLE_SUFFIXES) == [PurePath("sub/a.gif")]
    # Times come along, to the two seconds that a ZIP knows.
    assert abs(path.stat().st_mtime - (tmp_path / "b.png").stat().st_mtime) <= 2


def test_finer_colours_than_a_result_holds_are_told(tmp_path: Path) -> None:
    deep = np.random.default_rng(0).integers(0, 1024, (64, 64, 3), np.uint16) << 6
    pillow_heif.from_bytes("RGB;16", (64, 64), deep.tobytes()).save(tmp_path / "deep.heic")
    with av.open(str(tmp_path / "deep.avif"), "w", format="avif") as file:
        stream = file.add_stream("libsvtav1", 1, {"svtav1-params": "lp=1"})
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p10le"
        file.mux(stream.encode(av.VideoFrame.from_ndarray((deep >> 8).astype(np.uint8), "rgb24")))
        file.mux(stream.encode(None))
    Image.new("CMYK", (8, 8)).save(tmp_path / "print.jpg")
    Image.new("RGB", (64, 64)).save(tmp_path / "plain.heic")
    plain = (tmp_path / "plain.heic").read_bytes()
    at = plain.index(b"colrnclx") + 10
    (tmp_path / "hdr.heic").write_bytes(plain[:at] + b"\0\x10" + plain[at + 2 :])
    told = {path.name: read_picture(path).notes for path in tmp_path.iterdir()}
    assert told.pop("hdr.heic")[0].startswith("HDR colours are written as if")
    assert told == {
        "deep.heic": ("10 bits became 8",),
        "deep.avif": ("10 bits became 8",),
        "print.jpg": ("CMYK became sRGB",),
        "plain.heic": (),
    }
