"""Picture files <-> RGB float [0,1]: the only place that knows uint8, 16 bits, EXIF, ICC and alpha.

What a file carries besides its colours travels in `Picture` and is written again by `write_picture`.
"""

import io
import os
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageCms
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from mofme.errors import PictureError, PictureTooLargeError
from mofme.vision.encoders import write_png16, write_tiff
from mofme.vision.exif import upright_exif, upright_xmp

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
_JPEG_SEGMENT = 65_500  # what one JPEG segment holds of EXIF or XMP
_JPEG_95_LUMA_SUM = 369  # sum of libjpeg's luminance table at quality 95: a lower one is finer
_pillow_guard = threading.Lock()

Image.init()  # Pillow otherwise registers its decoders one after the other, on demand
_DECODERS = ["JPEG", "PNG", "WEBP", "TIFF", "BMP", "AVIF"]
try:
    from pillow_heif import register_heif_opener

    register_heif_opener()
    _DECODERS.append("HEIF")
except ImportError:  # HEIC then fails with a message of its own
    pass


@dataclass(frozen=True, eq=False)
class Picture:
    """A decoded picture, upright, and what its file carried. Blocks are raw bytes; EXIF orientation is already 1."""

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
            raise PictureTooLargeError(f"{path}: {size / 2**30:.1f} GiB is more than the limit of 1 GiB a file.")
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
    """Write `rgb` (3,H,W) float [0,1] with the alpha, greyness, bit depth, EXIF, ICC, XMP and dpi of `like`, atomically.

    The format is `format` ("png", "jpg", ...), else the path's suffix, else that of `like`. Lost on the way:
    alpha in JPEG and BMP (put on white), 16 bits outside PNG and TIFF, a grey profile in formats without grey,
    EXIF or XMP beyond JPEG's 64 KiB, metadata in BMP. Raises PictureError if the file cannot be written.
    """
    path = Path(path)
    suffix = f".{format.lower()}" if format else path.suffix.lower()
    kind = FORMATS.get(suffix, like.format)
    if format and suffix not in FORMATS:
        raise PictureError(f"{path}: cannot write the format {format!r}; choose one of {', '.join(FORMATS)}.")
    try:
        with atomic_file(path) as file:
            _encode(file, rgb.detach().cpu(), like, kind)
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise PictureError(f"{path}: cannot be written as {kind} ({error}).") from error


def find_pictures(folder: Path) -> list[Path]:
    """Every readable picture under `folder`, by suffix, sorted; hidden files and folders and links to folders are skipped."""
    found = []
    for root, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [
            path
            for name in files
            if not name.startswith(".") and (path := Path(root, name)).suffix.lower() in READABLE_SUFFIXES
        ]
    return sorted(path for path in found if path.is_file())


@contextmanager
def atomic_file(path: Path) -> Iterator[BinaryIO]:
    """A binary file that takes the place of `path` when the block ends well, and leaves no trace when it does not."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.parent / f".{uuid.uuid4().hex}.part"
    try:
        with part.open("xb") as file:
            yield file
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def _decode(file: BinaryIO, path: Path, max_megapixels: float) -> Picture:
    header = file.read(32)
    lossless = header.startswith(b"RIFF") and _webp_is_lossless(file)
    file.seek(0)
    with _open(file, path, header) as image:
        megapixels = image.width * image.height / 1e6
        if megapixels > max_megapixels:
            raise PictureTooLargeError(
                f"{path}: {image.width}x{image.height} is {megapixels:.1f} megapixels, more than the limit of "
                f"{max_megapixels:g}; raise it with --max-megapixels."
            )
        image.load()
        grey = image.mode in ("1", "L", "LA", "La", "I;16", "I;16B")
        exif = image.info.get("exif") or (image.format == "TIFF" and image.getexif().tobytes()) or b""
        orientation = image.getexif().get(0x0112, 1)
        icc = image.info.get("icc_profile") or None
        depth = _depth(image, header)
        if depth > 8 and image.mode in ("I;16", "I;16B", "LA", "RGB", "RGBA"):
            array, peak = _samples_16(image, file, path, depth), 2**depth - 1
        else:
            depth = 8
            if image.mode == "CMYK":
                image, icc = _cmyk_to_srgb(image, icc), None
            array, peak = np.asarray(_plain(image, path)), 255
        samples = _to_tensor(_upright(array.reshape(*array.shape[:2], -1), orientation), peak)
        colours = samples.shape[0] - (samples.shape[0] in (2, 4))
        xmp = image.info.get("xmp")
        return Picture(
            rgb=samples[:colours].expand(3, -1, -1).contiguous(),
            alpha=samples[colours:].clone() if colours < samples.shape[0] else None,
            format={"MPO": "jpeg"}.get(image.format or "", (image.format or "png").lower()),
            bits=16 if depth > 8 else 8,
            grey=grey,
            lossless=lossless,
            exif=upright_exif(exif) if exif else None,
            icc=icc,
            xmp=upright_xmp(xmp) if isinstance(xmp, bytes) else None,
            dpi=image.info.get("dpi"),
            jpeg_tables=getattr(image, "quantization", None),
        )


def _open(file: BinaryIO, path: Path, header: bytes) -> Image.Image:
    # Pillow's own limit is one number for the whole process; the caller's limit takes its place while we open.
    with _pillow_guard:
        guarded, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            return Image.open(file, formats=_DECODERS)
        except Image.UnidentifiedImageError as error:
            if header[4:8] == b"ftyp" and "HEIF" not in _DECODERS:
                raise PictureError(f"{path}: reading HEIC needs `pip install pillow-heif`.") from error
            raise PictureError(f"{path}: not a picture of a known kind, or damaged at its start.") from error
        finally:
            Image.MAX_IMAGE_PIXELS = guarded


def _webp_is_lossless(file: BinaryIO) -> bool:
    position = 12
    while True:
        file.seek(position)
        head = file.read(8)
        if len(head) < 8 or head[:4] == b"VP8 ":
            return False
        if head[:4] == b"VP8L":
            return True
        length = int.from_bytes(head[4:], "little")
        position += 8 + length + length % 2


def _depth(image: Image.Image, header: bytes) -> int:
    if image.format == "PNG":
        return header[24]
    if image.format == "TIFF":
        return int(max(image.tag_v2.get(258, (1,))))  # type: ignore[attr-defined]
    return 8


def _samples_16(image: Image.Image, file: BinaryIO, path: Path, depth: int) -> NDArray[np.uint16]:
    """(H,W) or (H,W,C) RGB(A) at full depth. Pillow, which has decoded the whole file by now, keeps it for grey only."""
    if image.mode in ("I;16", "I;16B"):
        return np.asarray(image).astype(np.uint16)
    tags: Any = getattr(image, "tag_v2", {})
    if tags.get(284, 1) != 1 or depth != 16:
        raise PictureError(f"{path}: a TIFF of {depth} bits in this layout cannot be read; save it as 16-bit PNG.")
    file.seek(0)
    array = cv2.imdecode(np.frombuffer(file.read(), np.uint8), cv2.IMREAD_UNCHANGED)
    if array is None or array.dtype != np.uint16 or array.ndim != 3 or array.shape[:2] != (image.height, image.width):
        raise PictureError(f"{path}: this kind of 16-bit picture cannot be read; save it as 16-bit PNG.")
    with_alpha = array.shape[2] == 4 and (image.mode in ("LA", "RGBA") or "transparency" in image.info)
    colours = array[..., :1] if image.mode == "LA" else array[..., 2::-1]
    if not with_alpha:
        return colours
    alpha = array[..., 3:]
    if tags.get(338) == (1,):  # colours are stored multiplied by alpha
        colours = (colours * (65535.0 / np.maximum(alpha, 1))).clip(0, 65535).round().astype(np.uint16)
    return np.concatenate([colours, alpha], axis=2)


def _plain(image: Image.Image, path: Path) -> Image.Image:
    """The picture as L, LA, RGB or RGBA."""
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        raise PictureError(f"{path}: samples of this depth ({image.mode}) are not supported; save 8 or 16 bits.")
    if image.mode in ("1", "L", "LA", "La"):
        mode = "L"
    else:
        mode = "RGB"
    if image.has_transparency_data:
        mode += "A"
    return image if image.mode == mode else image.convert(mode)


def _cmyk_to_srgb(image: Image.Image, icc: bytes | None) -> Image.Image:
    if icc:
        try:
            srgb = ImageCms.createProfile("sRGB")
            converted = ImageCms.profileToProfile(image, io.BytesIO(icc), srgb, outputMode="RGB")  # type: ignore[arg-type]
            if converted is not None:
                return converted
        except (ImageCms.PyCMSError, OSError):
            pass  # a damaged profile: the plain formula is the best guess left
    return image.convert("RGB")


def _upright(array: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Apply an EXIF orientation (1-8) to (H,W,C), as a view."""
    if orientation in (5, 6, 7, 8):
        array = array.transpose(1, 0, 2)
    if orientation in (2, 3, 6, 7):
        array = array[:, ::-1]
    if orientation in (3, 4, 7, 8):
        array = array[::-1]
    return array


def _to_tensor(array: NDArray[Any], peak: int) -> Tensor:
    """(H,W,C) integers 0..peak -> (C,H,W) float32 [0,1], channel by channel to spare memory."""
    height, width, channels = array.shape
    samples = torch.empty(channels, height, width)
    for channel in range(channels):
        samples[channel].copy_(torch.from_numpy(np.ascontiguousarray(array[..., channel])))
    return samples.div_(peak)


def _to_array(planes: list[Tensor], bits: int) -> NDArray[Any]:
    """Planes (H,W) float [0,1] -> (H,W,C) integers."""
    array = np.empty((*planes[0].shape, len(planes)), np.uint16 if bits == 16 else np.uint8)
    for channel, plane in enumerate(planes):
        array[..., channel] = plane.float().clamp(0, 1).mul_(2**bits - 1).round_().numpy()
    return array


def _encode(file: BinaryIO, rgb: Tensor, like: Picture, kind: str) -> None:
    alpha = like.alpha
    if alpha is not None and alpha.shape[1:] != rgb.shape[1:]:
        raise ValueError(f"alpha is {tuple(alpha.shape[1:])} but the picture {tuple(rgb.shape[1:])}")
    if alpha is not None and kind in ("jpeg", "bmp"):
        rgb, alpha = rgb * alpha + (1 - alpha), None
    planes = list(rgb)
    if like.grey:
        planes = [0.299 * rgb[0] + 0.587 * rgb[1] + 0.114 * rgb[2]]  # BT.601 luma
    if alpha is not None:
        planes.append(alpha[0])
    bits = like.bits if kind in ("png", "tiff") else 8
    array = _to_array(planes, bits)
    metadata: dict[str, Any] = {"exif": like.exif, "icc": like.icc, "xmp": like.xmp, "dpi": like.dpi}
    if kind == "tiff":
        write_tiff(file, array, **metadata)
    elif bits == 16:
        write_png16(file, array, **metadata)
    else:
        image = Image.fromarray(array[..., 0] if array.shape[2] == 1 else array)
        image.save(file, format=kind.upper(), **_save_options(like, kind, image.mode))


def _save_options(like: Picture, kind: str, mode: str) -> dict[str, Any]:
    options: dict[str, Any] = {}
    if like.icc and (mode in ("L", "LA") and kind in ("jpeg", "png") or like.icc[16:20] != b"GRAY"):
        options["icc_profile"] = like.icc
    if like.exif and (kind != "jpeg" or len(like.exif) < _JPEG_SEGMENT):
        options["exif"] = b"Exif\0\0" + like.exif
    if like.xmp and (kind != "jpeg" or len(like.xmp) < _JPEG_SEGMENT):
        options["xmp"] = like.xmp
    if like.dpi:
        options["dpi"] = like.dpi
    if kind == "jpeg":
        options |= {"quality": 95, "subsampling": 0}
        if like.jpeg_tables and sum(like.jpeg_tables[0]) < _JPEG_95_LUMA_SUM:
            options |= {"quality": -1, "qtables": like.jpeg_tables}
    elif kind == "webp":
        options |= {"lossless": like.lossless, "quality": 95, "exact": True}
    elif kind == "heif":
        options |= {"quality": 95, "chroma": 444}
    elif kind == "avif":
        options |= {"quality": 95, "subsampling": "4:4:4"}
    elif kind == "png" and like.xmp:
        options["pnginfo"] = _png_xmp(like.xmp)
    return options


def _png_xmp(xmp: bytes) -> PngInfo:
    text = PngInfo()
    text.add_itxt("XML:com.adobe.xmp", xmp.decode("utf-8", "replace"))
    return text
