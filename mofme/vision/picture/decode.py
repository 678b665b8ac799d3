"""From the bytes of a picture file to its upright samples and what else it carries."""

import contextlib
import io
import itertools
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageCms, UnidentifiedImageError
from pillow_heif import register_heif_opener
from torch import Tensor

from mofme.errors import PictureError, PictureTooLargeError
from mofme.vision.picture.kinds import (
    RAW,
    cut_tiff,
    film_behind,
    lessened,
    lost_beside,
    odd_jpeg,
    other_kind,
    raw_kind,
    without_lost,
)
from mofme.vision.picture.mend import Mended, mend, without_padding
from mofme.vision.picture.metadata import (
    dpi_of,
    exif_of,
    iptc_of,
    orientation_of,
    png_chunks,
    upright,
    upright_exif,
    upright_xmp,
    webp_is_lossless,
)

_GREY_MODES = ("1", "L", "LA", "La", "I;16", "I;16B")
_PHOTOMETRIC, _PLANAR, _EXTRA_SAMPLES = 262, 284, 338  # TIFF tags
_SUBFILE, _ICC, _DNG_VERSION = 254, 34675, 50706
_COPY_OR_MASK = 1 | 4  # of what a page of a TIFF may be
_ANIMATED = ("PNG", "WEBP", "AVIF")  # several pictures in them are shown one after the other, and of one size
_BRANDS = (b"avif", b"avis", b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
_pillow_limit = threading.Lock()
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_ERROR)  # not of tags that it does not know

Image.init()  # Pillow otherwise registers its decoders one after the other, on demand
register_heif_opener()
_DECODERS = ["JPEG", "PNG", "WEBP", "TIFF", "BMP", "AVIF", "HEIF"]


@dataclass(frozen=True, eq=False)
class Picture:
    """A decoded picture, upright, and what its file carried (as raw blocks, whose orientation is 1)."""

    rgb: Tensor  # (3,H,W) float32 [0,1]
    alpha: Tensor | None = None  # (1,H,W) float32 [0,1]
    format: str = "png"  # a value of file.FORMATS
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
    present: Tensor | None = None  # (1,H,W) float32: 0 where a file that ends too early has no samples
    notes: tuple[str, ...] = ()  # what of the file is not in here
    frames: int = 1  # frames or pages of the file
    duration: float | None = None  # milliseconds, of the frame of an animation
    loop: int = 0  # how often an animation is shown; 0: without end
    is_still: bool = False  # shown where animations are not, and no part of this one

    @property
    def visible(self) -> Tensor | None:
        """How far (1,H,W) each pixel may be looked at; None if all may."""
        both = [one for one in (self.alpha, self.present) if one is not None]
        return both[0] if len(both) == 1 else both[0] * both[1] if both else None


def decode(file: BinaryIO, path: Path, max_megapixels: float) -> Picture:
    """The (first) picture of an open file, which messages call `path`; of one that ends too early what is there.

    Raises PictureTooLargeError from the header, PictureError for what is no picture, and whatever Pillow raises.
    """
    whole, file = file, without_padding(file)
    try:
        return _decode(file, path, max_megapixels)
    except PictureError:
        raise
    except Exception as error:
        file.seek(0)
        mended = mend(file.read(), error, max_megapixels)
    if file is not whole and mended.is_whole():  # its metadata end in zeros
        with contextlib.suppress(Exception):
            whole.seek(0)
            return _decode(whole, path, max_megapixels)
    picture = _decode(io.BytesIO(mended.data), path, max_megapixels, mended)
    return replace(picture, notes=(*picture.notes, mended.words()))


def _decode(file: BinaryIO, path: Path, max_megapixels: float, mended: Mended | None = None) -> Picture:
    beginning = file.read(2**14)
    file.seek(0)
    if what := raw_kind(path):  # before Pillow takes its small picture for it
        raise PictureError(f"{path}: {what}")
    with _open(file, path, beginning[:32]) as image:
        if _DNG_VERSION in getattr(image, "tag_v2", ()):
            raise PictureError(f"{path}: {RAW}")
        megapixels = image.width * image.height / 1e6
        if megapixels > max_megapixels:
            raise PictureTooLargeError(
                f"{path}: {image.width}x{image.height} is {megapixels:.1f} megapixels, over the limit of "
                f"{max_megapixels:g}: make it smaller, or raise the limit."
            )
        return _picture_of(image, file, path, beginning, len(_pages(image)), mended)


def decode_frames(file: BinaryIO, path: Path, max_megapixels: float) -> Iterator[Picture]:
    """Every frame or page of an open file, as `decode` reads the first; the limit is on all of them together.

    A file that ends too early ends here with what is there of it. Pages of kinds that are not read are left out.
    """
    beginning = file.read(2**14)
    file.seek(0)
    try:
        opened = _open(file, path, beginning[:32])
    except PictureError:
        raise
    except Exception as error:
        file.seek(0)
        file = io.BytesIO(mend(file.read(), error, max_megapixels).data)
        opened = _open(file, path, beginning[:32])
    with opened as image:
        first, pages = image.tell(), _pages(image)
        count = len(pages)
        is_animated = image.format in _ANIMATED  # all of one size, so that the limit is held against what the file says
        pixels = image.width * image.height * count if is_animated else 0
        for number in itertools.chain([first], (one for one in pages if one != first)):
            with contextlib.suppress(Exception):
                image.seek(number)
            if image.tell() != number:  # fewer than the file says
                return
            pixels += 0 if is_animated else image.width * image.height
            if pixels > max_megapixels * 1e6:
                raise PictureTooLargeError(
                    f"{path}: its {count} frames or pages are together over the limit of {max_megapixels:g} "
                    f"megapixels: take some of them out, make them smaller, or raise the limit."
                )
            try:
                yield _picture_of(image, file, path, beginning, count)
            except Exception as error:
                if number == first:
                    raise
                if not isinstance(error, PictureError):
                    return


def _pages(image: Image.Image) -> Sequence[int]:
    """The numbers of all pictures of their own right in an opened file; if it is cut off the last may not be there.

    Others of a JPEG belong to its first; smaller copies and masks of a TIFF belong to the page before.
    """
    if image.format != "TIFF":
        return range(1 if image.format == "MPO" else int(getattr(image, "n_frames", 1)))
    pages = [image.tell()]
    for number in itertools.count(1):
        try:
            image.seek(number)
        except EOFError:
            break
        except Exception:  # one whose directory is cut off
            pages.append(number)
            break
        if not image.tag_v2.get(_SUBFILE, 0) & _COPY_OR_MASK:  # type: ignore[attr-defined]
            pages.append(number)
    image.seek(pages[0])
    return pages


def _picture_of(
    image: Image.Image, file: BinaryIO, path: Path, beginning: bytes, frames: int, mended: Mended | None = None
) -> Picture:
    """Of the frame that an opened file of so many `frames` stands at."""
    header, number, orientation = beginning[:32], image.tell(), 0
    icc = image.info.get("icc_profile")
    if image.format == "TIFF":  # of which Pillow keeps what it read of another page
        orientation = orientation_of(image)  # which is forgotten once it is loaded, and turned by that
        icc = image.tag_v2.get(_ICC)  # type: ignore[attr-defined]
        if image.mode not in ("P", "PA"):
            image.palette = None
    image.load()
    orientation = orientation or orientation_of(image)
    exif, xmp, lost = exif_of(image), image.info.get("xmp"), list[str]()
    if isinstance(xmp, bytes):
        xmp, lost = without_lost(xmp)
    depth = _bit_depth(image, header)
    grey = image.mode in _GREY_MODES or (image.format == "PNG" and header[25] == 4)  # 4: grey with alpha
    if image.format == "PNG" and image.mode == "L" and header[24] < 8 and "transparency" in image.info:
        # The one grey that is not seen, spread over 8 bits as Pillow does with greys of 2 and 4.
        image.info["transparency"] *= 255 // (2 ** header[24] - 1)
    array = _samples(image, file, path, depth)
    array = array.reshape(*array.shape[:2], -1)
    present, turn = None, orientation_of(image)
    if mended:
        if image.format == "TIFF":  # which Pillow has turned: back, as its rows are stored
            turn = orientation
            array = upright(array, {6: 8, 8: 6}.get(turn, turn))
        if not mended.turned:
            array = np.pad(array, ((0, mended.height - len(array)), (0, 0), (0, 0)))
        rows = np.zeros((*array.shape[:2], 1), np.float32)
        (rows.swapaxes(0, 1) if mended.turned else rows)[mended.first : mended.stop] = 1
        present = torch.from_numpy(upright(rows, turn).copy()).permute(2, 0, 1)
    array = upright(array, turn)
    alpha = array.shape[2] in (2, 4)
    planes = torch.empty(array.shape[2], *array.shape[:2])
    for channel, plane in enumerate(planes):  # one at a time, to spare memory
        plane.copy_(torch.from_numpy(array[..., channel].copy()))
    planes.div_(2 ** max(depth, 8) - 1)
    picture = Picture(
        rgb=(planes[:1] if grey else planes[:3]).expand(3, -1, -1).contiguous(),
        alpha=planes[-1:] if alpha else None,
        format="jpeg" if image.format == "MPO" else str(image.format).lower(),
        bits=16 if depth > 8 else 8,
        grey=grey,
        lossless=header.startswith(b"RIFF") and webp_is_lossless(file),
        exif=upright_exif(exif) if exif else None,
        icc=None if image.mode in ("CMYK", "LAB") else icc or None,
        xmp=upright_xmp(xmp, orientation) if isinstance(xmp, bytes) and xmp else None,
        dpi=dpi_of(image, orientation),
        jpeg_tables=getattr(image, "quantization", None),
        iptc=iptc_of(image),
        comment=image.info.get("comment") if image.format in ("JPEG", "MPO") else None,
        png_chunks=png_chunks(file) if image.format == "PNG" and not number else (),
        present=None if present is None or bool(present.all()) else present,
        frames=frames,
        duration=float(image.info.get("duration", 0)) if frames > 1 and image.format in _ANIMATED else None,
        loop=int(image.info.get("loop", 0)),
        is_still=not number and bool(getattr(image, "default_image", False)),
    )
    lost = list(dict.fromkeys([*lost, *lost_beside(image, beginning), *film_behind(image, file)]))
    left_out = [f"left out: {', '.join(lost)}"] if lost else []
    return replace(picture, notes=(*left_out, *lessened(image, beginning)))


def _open(file: BinaryIO, path: Path, header: bytes) -> Image.Image:
    # Pillow's own limit is one number for the whole process; while we open, the caller's takes its place.
    with _pillow_limit:
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            return Image.open(file, formats=_DECODERS)
        except OSError as error:
            if why := cut_tiff(file, header) or odd_jpeg(file):
                raise PictureError(f"{path}: {why}") from error
            if not isinstance(error, UnidentifiedImageError):
                raise
            if header[4:8] == b"ftyp" and header[8:12] in _BRANDS:
                raise OSError("image file is truncated") from error
            if header.startswith(b"\x89PNG"):  # one of its checksums is wrong, say, which can be mended
                raise OSError("the chunks before its picture are damaged") from error
            what = other_kind(path, header) or "not a picture of a known kind, or damaged at its start."
            raise PictureError(f"{path}: {what}") from error
        finally:
            Image.MAX_IMAGE_PIXELS = limit


def _bit_depth(image: Image.Image, header: bytes) -> int:
    """Bits per sample that `_samples` will give: 8, or what a PNG or TIFF has above that."""
    if image.mode in ("I;16", "I;16B", "LA", "RGB", "RGBA"):
        if image.format == "PNG" and not image.tell():  # the frames after the first Pillow makes of 8 bits
            return header[24]
        if image.format == "TIFF":
            return int(max(image.tag_v2.get(258, (1,))))  # type: ignore[attr-defined]
    return 8


def _samples(image: Image.Image, file: BinaryIO, path: Path, depth: int) -> NDArray[Any]:
    """(H,W) or (H,W,C): grey, grey + alpha, RGB or RGB + alpha; palettes, CMYK and the like become RGB."""
    if depth > 8:
        return _deep_samples(image, file, path, depth)
    if image.mode in ("I", "F"):
        raise PictureError(f"{path}: 32-bit and signed samples are not supported; save it with 8 or 16 bits.")
    if image.mode == "CMYK":
        image = _cmyk_to_srgb(image)
    mode = "L" if image.mode in _GREY_MODES else "RGB"
    if image.has_transparency_data:
        mode += "A"
    return np.asarray(image if image.mode == mode else image.convert(mode))


def _deep_samples(image: Image.Image, file: BinaryIO, path: Path, depth: int) -> NDArray[Any]:
    # Pillow has checked the whole file by now, but keeps more than 8 bits for plain grey only.
    tags: Any = getattr(image, "tag_v2", {})
    if image.mode in ("I;16", "I;16B"):
        grey = np.asarray(image).astype(np.uint16)
        if (clear := image.info.get("transparency")) is not None:  # of a PNG: the one grey that is not seen
            return np.stack([grey, np.where(grey == clear, 0, 65535).astype(np.uint16)], axis=2)
        return 2**depth - 1 - grey if tags.get(_PHOTOMETRIC) == 0 else grey  # 0: white is zero
    array: NDArray[Any] | None = None
    if depth == 16 and tags.get(_PLANAR, 1) == 1:
        file.seek(0)
        data, page = np.frombuffer(file.read(), np.uint8), image.tell()
        if page:
            _, pages = cv2.imdecodemulti(data, cv2.IMREAD_UNCHANGED, range=(page, page + 1))
            array = pages[0] if pages else None
        else:
            array = cv2.imdecode(data, cv2.IMREAD_UNCHANGED)
    if array is None and image.format == "PNG":
        raise OSError("image file is truncated")
    if array is None or array.dtype != np.uint16 or array.shape[:2] != (image.height, image.width):
        raise PictureError(f"{path}: {depth}-bit samples in this layout are not supported; save as PNG.")
    if array.ndim == 2:
        return array
    colours, alpha = array[..., 2::-1], array[..., 3:]
    if not image.has_transparency_data:
        return colours
    if tags.get(_EXTRA_SAMPLES) == (1,):  # colours stored multiplied by alpha
        colours = (colours * (65535.0 / np.maximum(alpha, 1))).clip(0, 65535).round().astype(np.uint16)
    return np.concatenate([colours, alpha], axis=2)


def _cmyk_to_srgb(image: Image.Image) -> Image.Image:
    converted = None
    if icc := image.info.get("icc_profile"):
        with contextlib.suppress(ImageCms.PyCMSError, OSError):  # damaged: the plain formula is the best guess left
            srgb = ImageCms.createProfile("sRGB")
            converted = ImageCms.profileToProfile(image, io.BytesIO(icc), srgb, outputMode="RGB")
    return converted or image.convert("RGB")
