"""Picture files <-> RGB float [0,1]: with decoders and encoders the only place that knows uint8, EXIF, ICC.

What a file carries besides its colours travels in `Picture` and is written again by `write_picture`.
"""

import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from mofme.errors import PictureError, PictureTooLargeError
from mofme.files import atomic_file, find_files
from mofme.vision.carried import iptc_of, iptc_segment, png_chunks
from mofme.vision.decoders import bit_depth, is_grey, samples, spread_clear_grey, upright, webp_is_lossless
from mofme.vision.encoders import write_png16, write_tiff
from mofme.vision.exif import descriptive_tags, upright_exif, upright_xmp

FORMATS = {
    ".jpg": "jpeg",
    ".jpeg": "jpeg",
    ".jfif": "jpeg",
    ".png": "png",
    ".webp": "webp",
    ".tif": "tiff",
    ".tiff": "tiff",
    ".bmp": "bmp",
    ".heic": "heif",
    ".heif": "heif",
    ".avif": "avif",
}
READABLE_SUFFIXES = frozenset(FORMATS)
MAX_BYTES = 2**30
_JPEG_SEGMENT = 65_500  # bytes of EXIF or XMP that one JPEG segment holds
_JPEG_95_LUMA_SUM = 369  # sum of libjpeg's luminance table at quality 95: a lower one is finer
_pillow_limit = threading.Lock()

Image.init()  # Pillow otherwise registers its decoders one after the other, on demand
_DECODERS = ["JPEG", "PNG", "WEBP", "TIFF", "BMP", "AVIF"]
try:
    from pillow_heif import register_heif_opener

    register_heif_opener()
    _DECODERS.append("HEIF")
except ImportError:  # reading HEIC then fails with a message of its own
    pass


@dataclass(frozen=True, eq=False)
class Picture:
    """A decoded picture, upright, and what its file carried (as raw blocks, whose orientation is 1)."""

    rgb: Tensor  # (3,H,W) float32 [0,1]
    alpha: Tensor | None = None  # (1,H,W) float32 [0,1]
    format: str = "png"  # a value of FORMATS
    bits: int = 8  # per sample: 8 or 16
    grey: bool = False
    lossless: bool = False  # of WebP
    exif: bytes | None = None  # without the prefix "Exif\0\0"
    icc: bytes | None = None
    xmp: bytes | None = None
    dpi: tuple[float, float] | None = None
    jpeg_tables: dict[int, list[int]] | None = None
    iptc: bytes | None = None  # of JPEG, as is the comment
    comment: bytes | None = None
    png_chunks: tuple[tuple[bytes, bytes], ...] = ()  # gamma, primaries and text


def read_picture(path: Path, max_megapixels: float = 100) -> Picture:
    """Read the (first) picture of a file by its content, whatever its suffix, with EXIF orientation applied.

    Palettes become RGB, CMYK becomes sRGB through its own profile, 10-bit HEIC and AVIF become 8 bits.
    Raises PictureTooLargeError from the header, before decoding, and PictureError for a file that is missing,
    damaged, truncated or no picture.
    """
    path = Path(path)
    try:
        if path.is_dir():
            raise PictureError(f"{path}: is a folder, not a picture.")
        size = path.stat().st_size
        if size == 0:
            raise PictureError(f"{path}: the file is empty.")
        if size > MAX_BYTES:
            raise PictureTooLargeError(f"{path}: {size / 2**30:.1f} GiB is over the limit of 1 GiB a file.")
        with path.open("rb") as file:
            return _decode(file, path, max_megapixels)
    except PictureError:
        raise
    except FileNotFoundError as error:
        raise PictureError(f"{path}: no such file.") from error
    except PermissionError as error:
        raise PictureError(f"{path}: no permission to read it.") from error
    # Decoders meet hostile bytes with any kind of exception, and one bad file must never stop a folder.
    except Exception as error:
        raise PictureError(f"{path}: damaged or incomplete picture ({error}).") from error


def write_picture(path: Path, rgb: Tensor, like: Picture, format: str | None = None) -> None:
    """Write `rgb` (3,H,W) float [0,1] atomically, with what `like` carried: alpha, grey, depth, EXIF, ICC.

    The format is `format` ("png", "jpg", ...), else the path's suffix, else that of `like`. Lost: alpha in
    JPEG and BMP (put on white), 16 bits outside PNG and TIFF, grey and its profile in WebP, HEIC and AVIF,
    EXIF or XMP beyond JPEG's 64 KiB, metadata in BMP, IPTC and comments outside JPEG, text,
    gamma and primaries outside PNG. Raises PictureError if it cannot be written.
    """
    path = Path(path)
    suffix = f".{format.lower()}" if format else path.suffix.lower()
    if format and suffix not in FORMATS:
        raise PictureError(f"{path}: cannot write {format!r}; choose one of {', '.join(FORMATS)}.")
    kind = FORMATS.get(suffix, like.format)
    try:
        with atomic_file(path) as file:
            _encode(file, rgb.detach().cpu(), like, kind)
    except Exception as error:  # encoders, too, raise anything
        raise PictureError(f"{path}: cannot be written as {kind} ({error}).") from error


def find_pictures(folder: Path) -> list[Path]:
    """Return every picture under `folder` by suffix, sorted; no hidden names, no links to folders."""
    return find_files(folder, READABLE_SUFFIXES)


def _decode(file: BinaryIO, path: Path, max_megapixels: float) -> Picture:
    header = file.read(32)
    lossless = header.startswith(b"RIFF") and webp_is_lossless(file)
    file.seek(0)
    with _open(file, path, header) as image:
        megapixels = image.width * image.height / 1e6
        if megapixels > max_megapixels:
            raise PictureTooLargeError(
                f"{path}: {image.width}x{image.height} is {megapixels:.1f} megapixels, over the limit of "
                f"{max_megapixels:g}: make it smaller, or raise the limit."
            )
        image.load()
        exif, xmp = _exif_block(image), image.info.get("xmp")
        depth, grey = bit_depth(image, header), is_grey(image, header)
        spread_clear_grey(image, header)
        array = samples(image, file, path, depth)
        array = upright(array.reshape(*array.shape[:2], -1), _orientation(image))
        alpha = array.shape[2] in (2, 4)
        planes = _to_tensor(array, 2**depth - 1 if depth > 8 else 255)
        return Picture(
            rgb=(planes[:1] if grey else planes[:3]).expand(3, -1, -1).contiguous(),
            alpha=planes[-1:] if alpha else None,
            format="jpeg" if image.format == "MPO" else str(image.format).lower(),
            bits=16 if depth > 8 else 8,
            grey=grey,
            lossless=lossless,
            exif=upright_exif(exif) if exif else None,
            icc=None if image.mode == "CMYK" else image.info.get("icc_profile") or None,
            xmp=upright_xmp(xmp) if isinstance(xmp, bytes) else None,
            dpi=_dpi(image),
            jpeg_tables=getattr(image, "quantization", None),
            iptc=iptc_of(image),
            comment=image.info.get("comment") if image.format in ("JPEG", "MPO") else None,
            png_chunks=png_chunks(file) if image.format == "PNG" else (),
        )


def _open(file: BinaryIO, path: Path, header: bytes) -> Image.Image:
    # Pillow's own limit is one number for the whole process; while we open, the caller's takes its place.
    with _pillow_limit:
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            return Image.open(file, formats=_DECODERS)
        except UnidentifiedImageError as error:
            if header[4:8] == b"ftyp" and "HEIF" not in _DECODERS:
                raise PictureError(f"{path}: reading HEIC needs `pip install pillow-heif`.") from error
            raise PictureError(f"{path}: not a picture of a known kind, or damaged at its start.") from error
        finally:
            Image.MAX_IMAGE_PIXELS = limit


def _exif_block(image: Image.Image) -> bytes | None:
    if "exif" in image.info:
        return image.info["exif"]
    block = Image.Exif()  # of a TIFF, whose directory is the file's own, and of PNGs from before the eXIf chunk
    block.update(descriptive_tags(image.getexif()))
    return block.tobytes() if block else None


def _dpi(image: Image.Image) -> tuple[float, float] | None:
    dpi = tuple(float(value) for value in image.info.get("dpi", ()))
    return (dpi[0], dpi[1]) if len(dpi) == 2 and all(1 <= value <= 60_000 for value in dpi) else None


def _orientation(image: Image.Image) -> int:
    try:
        return image.getexif().get(0x0112, 1)
    except (SyntaxError, OSError, ValueError):  # damaged EXIF: no reason to refuse the picture
        return 1


def _to_tensor(array: NDArray[Any], peak: int) -> Tensor:
    """(H,W,C) integers 0..peak -> (C,H,W) float32 [0,1], channel by channel to spare memory."""
    height, width, channels = array.shape
    planes = torch.empty(channels, height, width)
    for channel in range(channels):
        planes[channel].copy_(torch.from_numpy(array[..., channel].copy()))
    return planes.div_(peak)


def _to_array(planes: list[Tensor], bits: int) -> NDArray[Any]:
    """Planes (H,W) float [0,1] -> (H,W,C) integers."""
    array = np.empty((*planes[0].shape, len(planes)), np.uint16 if bits == 16 else np.uint8)
    for channel, plane in enumerate(planes):
        array[..., channel] = plane.float().clamp(0, 1).mul_(2**bits - 1).round_().numpy()
    return array


def _encode(file: BinaryIO, rgb: Tensor, like: Picture, kind: str) -> None:
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
    array = _to_array(planes, bits)
    icc = like.icc if grey or not like.icc or like.icc[16:20] != b"GRAY" else None
    if kind == "tiff":
        write_tiff(file, array, like.exif, icc, like.xmp, like.dpi)
    elif bits == 16:
        write_png16(file, array, like.exif, icc, like.xmp, like.dpi, like.png_chunks)
    else:
        image = Image.fromarray(array[..., 0] if len(planes) == 1 else array)
        image.save(file, format=kind.upper(), icc_profile=icc, **_save_options(like, kind))


def _takes_exif(kind: str, exif: bytes) -> bool:
    if kind == "avif":  # Pillow writes the block anew, which not every camera's bears
        try:
            block = Image.Exif()
            block.load(exif)
            block.tobytes()
        except Exception:
            return False
    return kind != "jpeg" or len(exif) < _JPEG_SEGMENT


def _save_options(like: Picture, kind: str) -> dict[str, Any]:
    options: dict[str, Any] = {}
    if like.exif and _takes_exif(kind, like.exif):
        options["exif"] = b"Exif\0\0" + like.exif
    if like.xmp and (kind != "jpeg" or len(like.xmp) < _JPEG_SEGMENT):
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
    elif kind == "png":
        options["pnginfo"] = chunks = PngInfo()
        for name, data in like.png_chunks:
            chunks.add(name, data)
        if like.xmp:
            chunks.add_itxt("XML:com.adobe.xmp", like.xmp.decode("utf-8", "replace"))
    return options
