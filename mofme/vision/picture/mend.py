"""Picture files that end too early or are damaged: made whole with something, so that what is there can be decoded."""

import io
import struct
import zlib
from collections.abc import Callable
from typing import BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mofme.vision.picture.metadata import png_chunk

_LEAST = 0.1  # share of a picture that is worth restoring
_UNLIKE = 24  # of 255: what two fillings make of one pixel, if it was decoded from them
_PADDING = 512  # bytes of zeros that end no file of these kinds which is whole
_JPEG_END = b"\xff\xd9"
CUT = "the file is cut off or damaged"
_STEP = 256  # bytes: the rows in a part that does not unpack are lost
_PNG_NEEDED = (b"IHDR", b"PLTE", b"tRNS")
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # of the colour types of PNG


class Mended(NamedTuple):
    """A file that decodes, and which of the rows that it should have are in it; of columns if it is `turned`."""

    data: bytes
    first: int
    stop: int
    height: int
    coarse: bool = False  # a progressive JPEG without all its passes
    doubtful: bool = False  # a checksum over its samples is wrong
    fewer: bool = False  # frames than it had
    turned: bool = False

    def is_whole(self) -> bool:
        return self.stop - self.first == self.height and not self.coarse

    def words(self) -> str:
        if missing := self.height - (self.stop - self.first):
            rows = "columns" if self.turned else "rows"
            return f"{CUT}: {missing} of its {self.height} {rows} are missing"
        if self.fewer:
            return f"{CUT}: its last frames are missing"
        if self.coarse:
            return f"{CUT}: its finer details are missing"
        return f"{CUT}: all its rows are there" + (", but may not all be right" if self.doubtful else "")


def without_padding(file: BinaryIO) -> BinaryIO:
    """The file without the zeros at its end that a copy leaves which reserved the space and was stopped."""
    head = file.read(12)
    if head.startswith((b"\xff\xd8", b"\x89PNG", b"RIFF")) or head[4:8] == b"ftyp":
        file.seek(-min(_PADDING, file.seek(0, io.SEEK_END)), io.SEEK_END)
        if not any(file.read()):
            file.seek(0)
            return io.BytesIO(file.read().rstrip(b"\0"))
    file.seek(0)
    return file


def mend(data: bytes, error: Exception, max_megapixels: float) -> Mended:
    """Of a file that ends too early. Raises `error` for another fault, for too little in it, or if it is too large."""
    if data.startswith(b"RIFF") and (frames := _whole_frames(data)):
        return frames
    if fill := next((fill for start, fill in _FILLINGS.items() if data.startswith(start)), None):
        found = _compared(data, fill, error)
    elif data[4:8] == b"ftyp" and 0 < (missing := _missing_of_boxes(data)) < len(data) / _LEAST:
        found = _compared(data, lambda data, more: _filled(data, more, missing), error)
    elif data.startswith(b"\x89PNG") and data[12:16] == b"IHDR" and not any(data[28:29]):  # not interlaced: row by row
        width, height = struct.unpack_from(">LL", data, 16)
        if width * height > max_megapixels * 1e6 or data[25] not in _CHANNELS:  # of which nothing was asked so far
            raise error
        found = _png(data, width, height)
    elif data.startswith(b"\x89PNG") and b"IEND" not in data[-12:]:
        raise OSError("it is interlaced and cut off, of which nothing can be made here") from error
    elif data.startswith((b"II*\0", b"MM\0*")):
        found = _tiff(data, error)
    else:
        raise error
    if found.stop - found.first < max(1, _LEAST * found.height):
        raise error
    return found


def _compared(data: bytes, fill: Callable[[bytes, bytes], bytes], error: Exception) -> Mended:
    """What comes out alike of two fillings was decoded from the file itself."""
    junk = np.random.default_rng(0).integers(1, 255, len(data) + 2**16, np.uint8).tobytes()
    try:
        plain = _samples(fill(data, bytes(len(junk))))
        try:
            other = _samples(fill(data, junk))
        except OSError:  # a lossless WebP notices that it is none
            other = _samples(fill(data, b"\xff" * len(junk)))
    except Exception:
        raise error from None
    unlike = np.abs(plain.astype(np.int16) - other).max(2) > _UNLIKE
    # Phones write their pictures lying, and HEIC is turned while it is decoded.
    turned = data[4:8] == b"ftyp" and bool(unlike.any(1).all())
    apart = unlike.any(0 if turned else 1)
    coarse = data.startswith(b"\xff\xd8") and _scans(data) > 1 and bool(apart.any())
    if coarse:  # a first pass over all of it is there
        apart[:] = False
    rows = np.flatnonzero(~apart)
    first, stop = (int(rows[0]), int(rows[-1]) + 1) if len(rows) else (0, 0)
    if first == 0 and apart.any():
        stop = int(apart.argmax())
    if apart[first:stop].any():  # no part in one piece
        raise error
    return Mended(fill(data, bytes(len(junk))), first, stop, len(apart), coarse, turned=turned)


def _scans(data: bytes) -> int:
    """How many passes of a JPEG's own picture have begun; those of a thumbnail stand in a segment before it."""
    at = 2
    while data[at : at + 1] == b"\xff" and data[at + 1 : at + 2] not in (b"\xda", b""):
        at += 1 if data[at + 1] == 0xFF else 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    end = data.find(_JPEG_END, at)
    return data.count(b"\xff\xda", at, end if end >= 0 else len(data))


def _samples(data: bytes) -> NDArray[np.uint8]:
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image.convert("RGB"))


def _missing_of_boxes(data: bytes) -> int:
    """How many bytes HEIC and AVIF lack of what their boxes say."""
    at = 0
    while at + 8 <= len(data) and (size := int.from_bytes(data[at : at + 4], "big")):
        size = int.from_bytes(data[at + 8 : at + 16], "big") if size == 1 else size
        if size < 8:  # no box is as small: nobody knows where the next one begins
            break
        at += size
    return at - len(data)


def _filled(data: bytes, more: bytes, missing: int) -> bytes:
    missing = max(min(missing, int(len(data) / _LEAST)), 0)  # of more nothing useful is left
    return data + (more * (missing // len(more) + 1))[:missing]


_FILLINGS: dict[bytes, Callable[[bytes, bytes], bytes]] = {
    # Half a marker would swallow what follows.
    b"\xff\xd8": lambda data, more: data.rstrip(b"\xff") + (more if more[0] else b"") + _JPEG_END,
    b"RIFF": lambda data, more: _filled(data, more, 8 + int.from_bytes(data[4:8], "little") - len(data)),
    b"BM": lambda data, more: _filled(data, more, int.from_bytes(data[2:6], "little") - len(data)),
}


def _whole_frames(data: bytes) -> Mended | None:
    """An animated WebP as far as its frames are whole; None if not one is."""
    end, frames, at = 12, 0, 12
    while at + 8 <= len(data):
        length = int.from_bytes(data[at + 4 : at + 8], "little")
        if (next_at := at + 8 + length + length % 2) > len(data):
            break
        end, frames, at = next_at, frames + (data[at : at + 4] == b"ANMF"), next_at
    height = 1 + int.from_bytes(data[27:30], "little")
    whole = data[:4] + struct.pack("<L", end - 8) + data[8:end]
    return Mended(whole, 0, height, height, fewer=True) if frames else None


def _png(data: bytes, width: int, height: int) -> Mended:
    """Its rows as far as they unpack, and black ones for the rest."""
    kept, parts, position = bytearray(data[:8]), list[bytes](), 8
    while position + 8 <= len(data):
        length, kind = struct.unpack_from(">L4s", data, position)
        chunk = data[position : position + 12 + length]
        if kind == b"IDAT":
            parts.append(chunk[8 : 8 + length])
        elif len(chunk) == 12 + length and kind != b"IEND" and not parts:
            whole = png_chunk(kind, chunk[8:-4])
            if kind in _PNG_NEEDED or chunk == whole:
                kept += whole
        position += 12 + length
    packed = b"".join(parts)
    unpacker = zlib.decompressobj(-15)  # without the checksum over all
    row = 1 + -(-width * data[24] * _CHANNELS[data[25]] // 8)
    rows = bytearray()
    for start in range(2, len(packed), _STEP):
        try:
            rows += unpacker.decompress(packed[start : start + _STEP], row * height - len(rows) + 1)
        except zlib.error:
            break
    count = min(len(rows) // row, height)
    doubtful = struct.pack(">L", zlib.adler32(rows)) != unpacker.unused_data[:4]
    black = bytes((height - count) * row)
    kept += png_chunk(b"IDAT", zlib.compress(bytes(rows[: count * row]) + black, 1)) + png_chunk(b"IEND", b"")
    return Mended(bytes(kept), 0, count, height, doubtful=unpacker.eof and doubtful)


def _tiff(data: bytes, error: Exception) -> Mended:
    """Cut after the last strip that is whole, or where nothing is packed after the last row."""
    try:
        with Image.open(io.BytesIO(data), formats=["TIFF"]) as image:
            tags = image.tag_v2  # type: ignore[attr-defined]
            height = int(tags[257])  # as it is stored: Pillow tells of what it turns it to
    except Exception:
        raise error from None
    strips, each = list(zip(tags.get(273, ()), tags.get(279, ()), strict=False)), int(tags.get(278, height))
    whole = next((number for number, (start, size) in enumerate(strips) if start + size > len(data)), len(strips))
    rows = whole * each
    if whole < len(strips) and tags.get(259) == 1:
        start, size = strips[whole]
        rows += max(len(data) - start, 0) * min(each, height - rows) // max(size, 1)
    rows = min(rows, height)
    order = "<" if data[:2] == b"II" else ">"
    (directory,) = struct.unpack_from(order + "L", data, 4)
    (count,) = struct.unpack_from(order + "H", data, directory)
    for entry in range(directory + 2, directory + 2 + 12 * count, 12):
        if rows and struct.unpack_from(order + "H", data, entry) == (257,):
            cut = bytearray(data)
            struct.pack_into(order + "HHLL", cut, entry, 257, 4, 1, rows)
            return Mended(bytes(cut), 0, rows, height)
    raise error
