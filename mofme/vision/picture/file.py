"""Reading, writing and finding picture files."""

import errno
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO, TypeVar

import torch
from torch import Tensor

from mofme.errors import PictureError, PictureTooLargeError
from mofme.files import atomic_file, find_files, in_words
from mofme.vision.picture.decode import Picture, decode, decode_frames
from mofme.vision.picture.encode import JPEG_SEGMENT, encode, encode_frames, takes_exif
from mofme.vision.picture.metadata import iptc_segment, lost_chunks

_SUFFIXES = {
    "jpeg": "jpg jpeg jpe jfif",
    "png": "png apng",
    "webp": "webp",
    "tiff": "tif tiff",
    "bmp": "bmp",
    "heif": "heic heif hif",
    "avif": "avif",
}
FORMATS = {f".{suffix}": kind for kind, suffixes in _SUFFIXES.items() for suffix in suffixes.split()}
FORMATS_AS_TYPED = ", ".join(FORMATS).replace(".", "")
READABLE_SUFFIXES = frozenset(FORMATS)
MAX_BYTES = 2**30
# Pixels a side that a format holds, or its encoder takes.
_LARGEST = {"jpeg": 65_500, "webp": 16_383, "avif": 32_768, "heif": 65_535}
_FLAT = 64  # pixels: beside longer ones, shorter sides than this are more than HEIC's encoder takes
_ABSURD = 4  # what is beyond [0, 1] is clipped; this far, it is of another range
_ANIMATIONS, _PAGES = ("png", "webp", "avif"), ("tiff", "heif")
T = TypeVar("T")


def read_picture(path: Path, max_megapixels: float = 100) -> Picture:
    """Read the (first) picture of a file by its content, whatever its suffix, with EXIF orientation applied.

    Palettes become RGB, CMYK becomes sRGB through its own profile, 10-bit HEIC and AVIF become 8 bits. `frames` says
    how many there are: see `read_frames`. Of a file that is cut off it is what is there; `notes` say what is not.
    Raises PictureTooLargeError from the header, and PictureError for what is missing, no picture, or too damaged.
    """
    return _read(path, lambda file: decode(file, Path(path), max_megapixels))


def read_frames(path: Path, max_megapixels: float = 100) -> list[Picture]:
    """Every frame of an animation or page of a file, as by `read_picture`; the limit is on all of them together."""
    return _read(path, lambda file: list(decode_frames(file, Path(path), max_megapixels)))


def _read(path: Path, read: Callable[[BinaryIO], T]) -> T:
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
            return read(file)
    except PictureError:
        raise
    # Decoders meet hostile bytes with any kind of exception, and one bad file must never stop a folder.
    except Exception as error:
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):  # which are a decoder's
            raise PictureError(in_words(error, path)) from error
        raise PictureError(f"{path}: damaged or incomplete picture ({error}).") from error


def read_to_keep(path: Path, output: Path, kind: str | None = None, max_megapixels: float = 100) -> list[Picture]:
    """The picture of a file, and its other frames or pages where a file of this kind holds them, to go to `output`.

    `kind` is a value of FORMATS; None stands for the file's own. The first one's notes tell what is left out. Raises
    PictureError as `read_picture` does, and if a file of this kind cannot be as large.
    """
    first = read_picture(path, max_megapixels)
    kind = kind or first.format
    # Pages shown one after the other would be no pages, and Pillow reads animations of 16 bits in 8.
    is_held = kind in _PAGES or (kind in _ANIMATIONS and first.duration is not None and first.bits == 8)
    several = first.frames > 1 and first.present is None and is_held
    try:
        frames = read_frames(path, max_megapixels) if several else [first]
    except PictureTooLargeError:
        raise
    except PictureError:  # cut off behind its first
        frames = [first]
    _check_holds(output, frames, kind)
    frames[0] = replace(frames[0], notes=first.notes)  # which tell of the file
    return [replace(frames[0], notes=_lost_in(frames, kind)), *frames[1:]]


def read_whole(path: Path, max_megapixels: float = 100) -> Picture:
    """As `read_picture`, for what is measured or learnt from: raises PictureError also for one that is cut off."""
    picture = read_picture(path, max_megapixels)
    if picture.present is not None:
        raise PictureError(f"{path}: {picture.notes[-1]}; fetch it anew.")
    return picture


def read_first(path: Path, max_megapixels: float = 100, kind: str | None = "png") -> Picture:
    """As `read_picture`; its notes tell what a file of it alone (of `kind`, or its own) leaves out, as other frames."""
    first = read_picture(path, max_megapixels)
    return replace(first, notes=_lost_in([first], kind or first.format))


def _check_holds(path: Path, frames: Sequence[Picture], kind: str) -> None:
    """Raise PictureError if a file of this kind, which is called `path`, cannot be as large."""
    largest = _LARGEST.get(kind, 2**31 - 1)
    for frame in frames:
        height, width = frame.rgb.shape[1:]
        if max(height, width) > largest:
            why = (
                f"more than {kind.upper()} holds, which is {largest:,} a side: choose PNG or TIFF, or make it smaller."
            )
            raise PictureError(f"{path}: {width}x{height} pixels are {why}")
        if kind == "heif" and min(height, width) < _FLAT:
            try:
                encode(torch.zeros_like(frame.rgb), Picture(frame.rgb), kind)
            except Exception as error:
                why = "too flat for HEIC's encoder: choose PNG or TIFF."
                raise PictureError(f"{path}: {width}x{height} pixels are {why}") from error


def _lost_in(frames: Sequence[Picture], kind: str) -> tuple[str, ...]:
    """What is left out if these frames of one file are written as this kind, a value of FORMATS: in words."""
    picture, is_animated = frames[0], frames[0].duration is not None
    exif, xmp, icc = (each or b"" for each in (picture.exif, picture.xmp, picture.icc))
    what = "frames" if is_animated else "pages"
    was_clear = picture.alpha is not None and kind in ("jpeg", "bmp")
    greys = icc[16:20] == b"GRAY" and (
        kind in ("webp", "heif", "avif")
        or (kind == "png" and len(frames) > 1)
        or (kind == "tiff" and picture.bits > 8 and picture.alpha is not None)
    )
    holds_captions = kind == "tiff" or (kind == "jpeg" and iptc_segment(picture.iptc or b""))
    lost = {
        f"{len(frames)} of {picture.frames} {what} restored, the others are left out": len(frames) < picture.frames,
        "the animation became pages, its times are left out": len(frames) > 1 and is_animated and kind in _PAGES,
        f"transparency became white, which {kind.upper()} has instead": was_clear,
        "16 bits became 8": picture.bits == 16 and kind not in ("png", "tiff"),
        "metadata and colour profile are left out": kind == "bmp" and (exif or xmp or icc),
        "metadata too long for JPEG are left out": kind == "jpeg" and max(len(exif), len(xmp)) >= JPEG_SEGMENT,
        "metadata that AVIF's encoder refuses are left out": kind == "avif" and exif and not takes_exif(kind, exif),
        "the profile of its greys is left out: it may look other": greys,
        "IPTC captions are left out": picture.iptc and not holds_captions,
        "the comment of the JPEG is left out": picture.comment and kind != "jpeg",
    }
    chunks = [] if kind == "png" else lost_chunks(picture.png_chunks, picture.icc)
    return (*picture.notes, *(words for words, is_lost in lost.items() if is_lost), *chunks)


def write_picture(path: Path, rgb: Tensor, like: Picture, format: str | None = None) -> None:
    """Write `rgb` (3,H,W) float [0,1] atomically, with what `like` carried: alpha, grey, depth, EXIF, ICC.

    The format is `format` ("png", "jpg", ...), else the path's suffix, else that of `like`; what it has no place for is
    lost, such as alpha in JPEG, which is put on white. Raises PictureError if it cannot be written.
    """
    write_frames(path, [replace(like, rgb=rgb)], format)


def write_frames(path: Path, frames: Sequence[Picture], format: str | None = None) -> None:
    """Write one picture as `write_picture` does, several as frames of an animation or pages."""
    path = Path(path)
    suffix = f".{format.lower()}" if format else path.suffix.lower()
    if format and suffix not in FORMATS:
        raise PictureError(f"{path}: cannot write {format!r}; choose one of {FORMATS_AS_TYPED}.")
    kind = FORMATS.get(suffix, frames[0].format)
    frames = [replace(one, rgb=torch.as_tensor(one.rgb).detach().cpu()) for one in frames]
    try:
        for one in frames:
            if not one.rgb.is_floating_point() or one.rgb.isnan().any() or one.rgb.abs().max() > _ABSURD:
                raise ValueError(f"a picture holds floats in [0, 1]; these are {one.rgb.dtype}, or far beyond, or NaN")
        encoded = encode(frames[0].rgb, frames[0], kind) if len(frames) == 1 else encode_frames(frames, kind)
        with atomic_file(path) as file:
            file.write(encoded)
    except Exception as error:  # encoders, too, raise anything
        why = getattr(error, "strerror", None) or error
        raise PictureError(f"{path}: cannot be written as {kind} ({why}).") from error


def find_pictures(folder: Path) -> list[Path]:
    """Return every picture under `folder` by suffix, sorted; no hidden names, no links to folders."""
    return find_files(folder, READABLE_SUFFIXES)
