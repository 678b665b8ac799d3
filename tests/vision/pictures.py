"""Pictures to write and read again, for tests of files."""

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms

from mofme.errors import PictureError
from mofme.vision.picture.decode import Picture
from mofme.vision.picture.file import read_picture, write_picture
from mofme.vision.picture.metadata import png_chunk

GPS, CAMERA = 34853, 34665


def noise(height=37, width=53, channels=3, dtype=np.uint8, seed=0):
    return np.random.default_rng(seed).integers(0, np.iinfo(dtype).max + 1, (height, width, channels), dtype)


def smooth(height=48, width=64):
    """A colour gradient, which lossy formats keep almost unchanged."""
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([x * 255 // width, y * 255 // height, (x + y) * 255 // (width + height)], -1).astype(np.uint8)


def exif_block(orientation=1):
    exif = Image.Exif()
    exif[0x0112] = orientation
    exif[0x010F] = "Maker"
    exif[GPS] = {1: "N", 2: (48.0, 8.0, 14.5)}
    exif[CAMERA] = {36867: "2024:02:29 12:00:00", 37500: b"maker\0note"}
    return exif.tobytes()


def srgb_profile():
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def as_bytes(picture):
    return (picture.rgb * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()


def as_16_bits(picture):
    return (picture.rgb * 65535).round().permute(1, 2, 0).numpy().astype(np.uint16)


def refused(path: Path, match: str, error: type[PictureError] = PictureError) -> None:
    with pytest.raises(error, match=match):
        read_picture(path)


def written(path: Path, rgb: torch.Tensor, **carried: object) -> Path:
    write_picture(path, rgb, Picture(rgb=rgb, **carried))
    return path


def resave(path, name):
    picture = read_picture(path)
    target = path.with_name(name)
    write_picture(target, picture.rgb, picture)
    return target


def png(bits, colour_type, row, *chunks):
    """A PNG of one row and 3 pixels."""
    header = struct.pack(">LLBBBBB", 3, 1, bits, colour_type, 0, 0, 0)
    return png_of((b"IHDR", header), *chunks, (b"IDAT", zlib.compress(b"\0" + row)), (b"IEND", b""))


def png_of(*chunks):
    return b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(*each) for each in chunks)


def save_grey(path: Path, level: int = 100, size: tuple[int, int] = (40, 32)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (level,) * 3).save(path)
    return path
