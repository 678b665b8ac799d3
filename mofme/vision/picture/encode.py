"""From samples and what else a picture carries to the bytes of a file.

Pillow writes most formats; it cannot write 16-bit colour PNG, nor TIFF of 8 or 16 bits with EXIF and ICC: those are
written here, from arrays (H,W,C), uint8 or uint16, C = 1 grey, 2 grey + alpha, 3 RGB, 4 RGB + alpha.
"""

import contextlib
import io
import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, BinaryIO

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from PIL.TiffImagePlugin import ImageFileDirectory_v2
from torch import Tensor

from mofme.vision.picture.decode import Picture
from mofme.vision.picture.metadata import IPTC_TAG, descriptive_tags, iptc_segment, png_chunk

_PNG_HEAD = 8 + 25  # bytes of a PNG up to the end of its first chunk
_ROWS = 64  # rows compressed at a time, which bounds the memory
JPEG_SEGMENT = 65_500  # bytes of EXIF or XMP that one JPEG segment holds
_JPEG_95_LUMA_SUM = 369  # sum of libjpeg's luminance table at quality 95: a lower one is finer


def encode(rgb: Tensor, like: Picture, kind: str) -> bytes:
    """The file of `rgb` (3,H,W) float [0,1] and what `like` carried, as `kind`, a value of `file.FORMATS`."""
    array, icc = _array_of(rgb, like, kind)
    file = io.BytesIO()  # Pillow takes a short write to a real file, as on a full disk, for a whole one
    if kind == "tiff":
        _write_tiff(file, array, icc, like)
    elif array.dtype == np.uint16:
        _write_png16(file, array, like, icc)
    else:
        image = Image.fromarray(array[..., 0] if array.shape[2] == 1 else array)
        image.save(file, format=kind.upper(), icc_profile=icc, **_save_options(like, kind))
        return _with_chunks(file.getvalue(), like, kind)
    return file.getvalue()


def encode_frames(frames: Sequence[Picture], kind: str) -> bytes:
    """The file of several pictures as frames of an animation or pages, with what each and the first carried."""
    file = io.BytesIO()
    if kind == "tiff":
        link = 4  # where the place of the next directory belongs
        file.write(b"II*\0\0\0\0\0")
        for page in frames:
            file.write(bytes(file.tell() % 2))
            start = file.tell()
            file.seek(link)
            file.write(struct.pack("<L", start))
            file.seek(0, io.SEEK_END)
            count = _write_tiff(file, *_array_of(page.rgb, page, kind), page)
            link = start + 2 + 12 * count
        return file.getvalue()
    first = frames[0]
    alphas = [one.alpha for one in frames if one.alpha is not None]
    images = []
    for one in frames:
        # Frames are of one kind, pages each of their own.
        opaque = torch.ones_like(one.rgb[:1]) if alphas and one.alpha is None and kind != "heif" else one.alpha
        array, own = _array_of(one.rgb, replace(one, alpha=opaque, grey=False, bits=8), kind)
        images.append(Image.fromarray(array))
        if kind == "heif":
            images[-1].info.update(_save_options(one, kind), icc_profile=own)
    # Of HEIC they would be those of every page, in place of its own.
    options = _save_options(Picture(first.rgb) if kind == "heif" else first, kind)
    shown = frames[1:] if first.is_still and kind == "png" else frames
    times = [one.duration or 0 for one in shown]
    if kind == "png":
        options |= {"duration": times, "loop": first.loop, "default_image": first.is_still, "blend": 0}
    elif kind != "heif":
        options |= {"duration": [round(time) for time in times], "loop": first.loop}
    if kind != "heif":
        _, options["icc_profile"] = _array_of(first.rgb[:, :1, :1], replace(first, alpha=None), kind)
    images[0].save(file, format=kind.upper(), save_all=True, append_images=images[1:], **options)
    data = bytearray(file.getvalue())
    if kind == "webp" and alphas and data[12:16] == b"VP8X":
        data[20] |= 0x10  # "has alpha", which Pillow forgets, and then does not show
    return _with_chunks(bytes(data), first, kind)


def _with_chunks(data: bytes, like: Picture, kind: str) -> bytes:
    """A PNG with the chunks that `like` carried, of which Pillow leaves out those it does not know (HDR)."""
    chunks = like.png_chunks if kind == "png" else ()
    return data[:_PNG_HEAD] + b"".join(png_chunk(*chunk) for chunk in chunks) + data[_PNG_HEAD:]


def _array_of(rgb: Tensor, like: Picture, kind: str) -> tuple[NDArray[Any], bytes | None]:
    """Samples (H,W,C) as a file of this kind holds them, and the profile that it takes."""
    alpha = like.alpha
    if alpha is not None and alpha.shape[1:] != rgb.shape[1:]:
        raise ValueError(f"alpha is {tuple(alpha.shape[1:])}, the picture {tuple(rgb.shape[1:])}")
    if alpha is not None and kind in ("jpeg", "bmp"):
        rgb, alpha = rgb * alpha + (1 - alpha), None
    bits = like.bits if kind in ("png", "tiff") else 8
    # Of 16-bit TIFF with grey and alpha there are hardly any readers.
    grey = like.grey and (kind in ("jpeg", "png", "bmp") or (kind == "tiff" and (alpha is None or bits == 8)))
    planes = [0.299 * rgb[0] + 0.587 * rgb[1] + 0.114 * rgb[2]] if grey else list(rgb)  # BT.601 luma
    if alpha is not None:
        planes.append(alpha[0])
    icc = like.icc if grey or not like.icc or like.icc[16:20] != b"GRAY" else None
    array = np.empty((*planes[0].shape, len(planes)), np.uint16 if bits == 16 else np.uint8)
    for channel, plane in enumerate(planes):
        array[..., channel] = plane.float().clamp(0, 1).mul_(2**bits - 1).round_().numpy()
    return array, icc


def takes_exif(kind: str, exif: bytes) -> bool:
    if kind == "avif":  # Pillow writes the block anew, which not every camera's bears
        try:
            block = Image.Exif()
            block.load(exif)
            block.tobytes()
        except Exception:
            return False
    return kind != "jpeg" or len(exif) < JPEG_SEGMENT


def _save_options(like: Picture, kind: str) -> dict[str, Any]:
    options: dict[str, Any] = {}
    if like.exif and takes_exif(kind, like.exif):
        options["exif"] = b"Exif\0\0" + like.exif
    if like.xmp and (kind != "jpeg" or len(like.xmp) < JPEG_SEGMENT):
        options["xmp"] = like.xmp
    if like.dpi:
        options["dpi"] = like.dpi
    if kind == "jpeg":
        options |= {"quality": 95, "subsampling": 0, "comment": like.comment or b""}
        options["extra"] = iptc_segment(like.iptc) if like.iptc else b""
        # Not by number: a file may begin with table 1, and Pillow writes none that stands behind a gap.
        tables = [table for _, table in sorted((like.jpeg_tables or {}).items())]
        if tables and sum(tables[0]) < _JPEG_95_LUMA_SUM:
            options |= {"quality": -1, "qtables": tables}
    elif kind == "webp":
        options |= {"lossless": like.lossless, "quality": 95, "exact": True}
    elif kind == "heif":
        options |= {"quality": 95, "chroma": 444}
    elif kind == "avif":
        options |= {"quality": 95, "subsampling": "4:4:4"}
    elif kind == "png" and like.xmp:
        options["pnginfo"] = PngInfo()
        options["pnginfo"].add_itxt("XML:com.adobe.xmp", like.xmp.decode("utf-8", "replace"))
    return options


def _write_png16(file: BinaryIO, array: NDArray[np.uint16], like: Picture, icc: bytes | None) -> None:
    height, width, channels = array.shape
    colour_type = {1: 0, 2: 4, 3: 2, 4: 6}[channels]

    chunks = [(b"IHDR", struct.pack(">LLBBBBB", width, height, 16, colour_type, 0, 0, 0)), *like.png_chunks]
    if icc:
        chunks.append((b"iCCP", b"ICC Profile\0\0" + zlib.compress(icc)))
    if like.dpi:
        chunks.append((b"pHYs", struct.pack(">LLB", *(round(value / 0.0254) for value in like.dpi), 1)))
    if like.exif:
        chunks.append((b"eXIf", like.exif))
    if like.xmp:
        chunks.append((b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + like.xmp))
    file.write(b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(*chunk) for chunk in chunks))
    for rows in _png_rows(array):
        file.write(png_chunk(b"IDAT", rows))
    file.write(png_chunk(b"IEND", b""))


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


def _write_tiff(file: BinaryIO, array: NDArray[np.uint8 | np.uint16], icc: bytes | None, like: Picture) -> int:
    """Deflated; of EXIF the descriptive tags, the camera's directory and GPS are kept. Returns the number of tags."""
    height, width, channels = array.shape
    little_endian = array.dtype.newbyteorder("<")
    strips = [
        zlib.compress(array[top : top + _ROWS].astype(little_endian).tobytes()) for top in range(0, height, _ROWS)
    ]
    sizes = [len(strip) for strip in strips]
    directory = ImageFileDirectory_v2(prefix=b"II")
    if like.exif:
        whole = Image.Exif()
        whole.load(b"Exif\0\0" + like.exif)
        for tag, value in descriptive_tags(whole).items():
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
    if like.dpi:
        directory[282], directory[283], directory[296] = *like.dpi, 2
    if channels in (2, 4):
        directory[338] = 2  # alpha, not multiplied into the colours
    if like.xmp:
        directory[700] = like.xmp
    if icc:
        directory[34675] = icc
    if like.iptc:
        directory[IPTC_TAG] = like.iptc
    directory.save(file)
    for strip in strips:
        file.write(strip)
    return len(directory)
