"""Reading, writing and finding picture files."""

from pathlib import Path

from torch import Tensor

from mofme.errors import PictureError, PictureTooLargeError
from mofme.files import atomic_file, find_files
from mofme.vision.picture.decode import Picture, decode
from mofme.vision.picture.encode import encode

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


def read_picture(path: Path, max_megapixels: float = 100) -> Picture:
    """Read the (first) picture of a file by its content, whatever its suffix, with EXIF orientation applied.

    Palettes become RGB, CMYK becomes sRGB through its own profile, 10-bit HEIC and AVIF become 8 bits.
    Of a file that is cut off what is there; `notes` say what is not. Raises PictureTooLargeError from the header,
    before decoding, and PictureError for a file that is missing, no picture, or too damaged for anything useful.
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
            return decode(file, path, max_megapixels)
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
        encoded = encode(rgb.detach().cpu(), like, kind)
        with atomic_file(path) as file:
            file.write(encoded)
    except Exception as error:  # encoders, too, raise anything
        raise PictureError(f"{path}: cannot be written as {kind} ({error}).") from error


def find_pictures(folder: Path) -> list[Path]:
    """Return every picture under `folder` by suffix, sorted; no hidden names, no links to folders."""
    return find_files(folder, READABLE_SUFFIXES)
