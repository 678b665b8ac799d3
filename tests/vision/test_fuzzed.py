"""Files whose bytes were changed at random: each is restored whole, or refused in words that name it; none hangs.

The suite tries a few of each kind; `MOFME_FUZZED=500 pytest tests/vision/test_fuzzed.py` tries as many in all.
"""

import io
import os
import random
import time
import zipfile
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mofme.errors import ArchiveError
from mofme.vision.archive import extract
from mofme.vision.batch import restore_file
from mofme.vision.picture.file import read_picture
from mofme.vision.video_file import read_video
from tests.films import film, inverted

FILES = int(os.environ.get("MOFME_FUZZED", "60"))
LONGEST = 20.0  # seconds for a file of a few kilobytes, on a machine that does other things too
KINDS = ("jpg", "png", "webp", "tif", "gif", "avif", "bmp", "mp4", "mkv", "zip")


@cache
def whole(kind: str, folder: Path) -> bytes:
    if kind in ("mp4", "mkv"):
        codec = "libx264" if kind == "mp4" else "mpeg4"
        return film(folder / f"whole.{kind}", frames=4, codec=codec).read_bytes()
    if kind == "zip":
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("a/one.png", whole("png", folder))
            archive.writestr("two.jpg", whole("jpg", folder))
        return file.getvalue()
    rows, columns = np.mgrid[:40, :56]
    image = Image.fromarray(np.stack([rows * 6, columns * 4, (rows * columns) % 256], -1).astype(np.uint8))
    file, exif = io.BytesIO(), Image.Exif()
    exif[274], exif[271] = 6, "maker"
    more: dict[str, Any] = {} if kind in ("gif", "bmp") else {"exif": exif}
    if kind in ("png", "webp", "tif", "gif"):  # several frames or pages
        more |= {"save_all": True, "append_images": [image.rotate(180)]}
    image.save(file, {"jpg": "jpeg", "tif": "tiff"}.get(kind, kind), **more)
    return file.getvalue()


def mutated(data: bytes, draw: random.Random) -> bytes:
    """Cut off, or with a few bytes changed, left out, put in or repeated; mostly near the start, where headers are."""
    found = bytearray(data)
    for _ in range(draw.choice((1, 1, 2, 8))):
        at = int(len(found) * draw.random() ** draw.choice((1, 4)))
        length = draw.choice((1, 2, 4, 64))
        match draw.randrange(6):
            case 0:
                found[at : at + 1] = bytes([draw.randrange(256)])
            case 1:
                found[at : at + length] = draw.choice((b"\xff", b"\0", b"\x7f")) * length
            case 2:
                del found[at : at + length]
            case 3:
                found[at:at] = draw.randbytes(length)
            case 4:
                found[at:at] = found[at : at + length]
            case 5:
                del found[max(at, 1) :]
        if not found:
            break
    return bytes(found)


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::RuntimeWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize("kind", KINDS)
def test_a_changed_file_is_restored_whole_or_refused_in_words(kind: str, tmp_path: Path) -> None:
    draw, good, told = random.Random(f"mofme {kind}"), whole(kind, tmp_path), []
    for number in range(FILES // len(KINDS)):
        path, out, error = tmp_path / f"{number}.{kind}", tmp_path / "out" / str(number), ""
        path.write_bytes(mutated(good, draw) if number else good)
        start = time.monotonic()
        if kind == "zip":
            try:
                extract(path, out)
            except ArchiveError as refused:
                error = str(refused)
            came = {one.read_bytes() for one in out.rglob("*") if one.is_file()}
            assert came <= {whole("png", tmp_path), whole("jpg", tmp_path)}, (number, error)  # as their sums say
        else:
            output = out / f"clear.{kind if kind != 'gif' else 'png'}"
            error = restore_file(inverted, path, output).error
            if not output.exists():
                assert error, number
            elif kind in ("mp4", "mkv"):  # whole: it can be read to its end
                with read_video(output) as video:
                    assert list(video) and not video.damaged, number
            else:
                assert not read_picture(output).notes, number
            assert not list(out.glob(".*")), number
        assert time.monotonic() - start < LONGEST, number
        if error:
            assert f"{number}.{kind}: " in error and error[-1] in ".)", (number, error)
            assert "Traceback" not in error and " object at 0x" not in error, (number, error)
        told.append(bool(error))
    assert told[0] == (kind == "gif")  # nothing was changed in the first; no GIF is restored
    print(f"{kind}: {len(told)} files, {sum(told)} refused, {len(told) - sum(told)} restored")
