"""Writers for what Pillow cannot write: 16-bit colour PNG, and TIFF of 8 or 16 bits with EXIF and ICC.

Arrays are (H,W,C), uint8 or uint16, C = 1 grey, 2 grey + alpha, 3 RGB, 4 RGB + alpha.
EXIF is a block without the prefix of JPEG ("Exif", two zeros).
"""

import contextlib
import struct
import zlib
from collections.abc import Iterable, Iterator
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from mofme.vision.exif import descriptive_tags

_ROWS = 64  # rows compressed at a time, which bounds the memory


def write_png16(
    file: BinaryIO,
    array: NDArray[np.uint16],
    exif: bytes | None = None,
    icc: bytes | None = None,
    xmp: bytes | None = None,
    dpi: tuple[float, float] | None = None,
    others: Iterable[tuple[bytes, bytes]] = (),
) -> None:
    """Write a 16-bit PNG; `others` are kind and data of further chunks."""
    height, width, channels = array.shape
    colour_type = {1: 0, 2: 4, 3: 2, 4: 6}[channels]

    def chunk(kind: bytes, data: bytes) -> None:
        file.write(struct.pack(">L", len(data)) + kind + data + struct.pack(">L", zlib.crc32(kind + data)))

    file.write(b"\x89PNG\r\n\x1a\n")
    chunk(b"IHDR", struct.pack(">LLBBBBB", width, height, 16, colour_type, 0, 0, 0))
    for other in others:
        chunk(*other)
    if icc:
        chunk(b"iCCP", b"ICC Profile\0\0" + zlib.compress(icc))
    if dpi:
        chunk(b"pHYs", struct.pack(">LLB", *(round(value / 0.0254) for value in dpi), 1))
    if exif:
        chunk(b"eXIf", exif)
    if xmp:
        chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + xmp)
    for data in _png_rows(array):
        chunk(b"IDAT", data)
    chunk(b"IEND", b"")


def _png_rows(array: NDArray[np.uint16]) -> Iterator[bytes]:
    compressor = zlib.compressobj()
    above = np.zeros((1, array[0].nbytes), np.uint8)
    for top in range(0, len(array), _ROWS):
        rows = np.ascontiguousarray(array[top : top + _ROWS], ">u2").view(np.uint8).reshape(-1, above.size)
        filtered = np.empty((len(rows), 1 + above.size), np.uint8)
        filtered[:, 0] = 2  # PNG's filter "Up": each byte minus the one above it
        filtered[:, 1:] = rows - np.concatenate([above, rows[:-1]])
        above = rows[-1:]
        yield compressor.compress(filtered.tobytes())
    yield compressor.flush()


def write_tiff(
    file: BinaryIO,
    array: NDArray[np.uint8] | NDArray[np.uint16],
    exif: bytes | None = None,
    icc: bytes | None = None,
    xmp: bytes | None = None,
    dpi: tuple[float, float] | None = None,
) -> None:
    """Write a deflated TIFF; of `exif` the descriptive tags, the camera's directory and GPS are kept."""
    height, width, channels = array.shape
    little_endian = array.dtype.newbyteorder("<")
    strips = [
        zlib.compress(array[top : top + _ROWS].astype(little_endian).tobytes()) for top in range(0, height, _ROWS)
    ]
    sizes = [len(strip) for strip in strips]
    directory = ImageFileDirectory_v2(prefix=b"II")
    if exif:
        carried = Image.Exif()
        carried.load(b"Exif\0\0" + exif)
        for tag, value in descriptive_tags(carried).items():
            with contextlib.suppress(Exception):  # some cameras write tags that nobody can write again
                probe = ImageFileDirectory_v2(prefix=b"II")
                probe[tag] = value
                probe.tobytes()
                directory[tag] = value
    directory[256], directory[257] = width, height
    directory[258] = (8 * array.dtype.itemsize,) * channels
    directory[259] = 8  # deflate
    directory[262] = 1 if channels < 3 else 2  # black is zero, or RGB
    directory[273] = tuple(np.cumsum([0, *sizes[:-1]]).tolist())  # Pillow adds where the data begin
    directory[277] = channels
    directory[278] = _ROWS
    directory[279] = tuple(sizes)
    if dpi:
        directory[282], directory[283], directory[296] = dpi[0], dpi[1], 2
    if channels in (2, 4):
        directory[338] = 2  # alpha, not multiplied into the colours
    if xmp:
        directory[700] = xmp
    if icc:
        directory[34675] = icc
    directory.save(file)
    for strip in strips:
        file.write(strip)
