"""From a picture that Pillow has opened to its upright samples: integers (H,W,C) at the file's full depth."""

import io
from pathlib import Path
from typing import Any, BinaryIO

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

from mofme.errors import PictureError

_GREY_MODES = ("1", "L", "LA", "La", "I;16", "I;16B")
_PHOTOMETRIC, _PLANAR, _EXTRA_SAMPLES = 262, 284, 338  # TIFF tags


def is_grey(image: Image.Image, header: bytes) -> bool:
    """Whether the file holds no colour; `header` is its first 32 bytes."""
    return image.mode in _GREY_MODES or (image.format == "PNG" and header[25] == 4)  # 4: grey with alpha


def bit_depth(image: Image.Image, header: bytes) -> int:
    """Bits per sample that `samples` will give: 8, or what a PNG or TIFF has above that."""
    depth = 8
    if image.format == "PNG":
        depth = header[24]
    elif image.format == "TIFF":
        depth = int(max(image.tag_v2.get(258, (1,))))  # type: ignore[attr-defined]
    return depth if image.mode in ("I;16", "I;16B", "LA", "RGB", "RGBA") else 8


def spread_clear_grey(image: Image.Image, header: bytes) -> None:
    """Spread the one grey of a PNG that is not seen over 8 bits, as Pillow does with greys of 2 and 4."""
    if image.format == "PNG" and image.mode == "L" and header[24] < 8 and "transparency" in image.info:
        image.info["transparency"] *= 255 // (2 ** header[24] - 1)


def samples(image: Image.Image, file: BinaryIO, path: Path, depth: int) -> NDArray[Any]:
    """(H,W) or (H,W,C): grey, grey + alpha, RGB or RGB + alpha; palettes, CMYK and the like become RGB."""
    if depth > 8:
        return _deep_samples(image, file, path, depth)
    if image.mode in ("I", "F"):
        raise PictureError(f"{path}: 32-bit samples are not supported; save it with 8 or 16 bits.")
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
        array = cv2.imdecode(np.frombuffer(file.read(), np.uint8), cv2.IMREAD_UNCHANGED)
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
    if icc := image.info.get("icc_profile"):
        try:
            srgb = ImageCms.createProfile("sRGB")
            converted = ImageCms.profileToProfile(image, io.BytesIO(icc), srgb, outputMode="RGB")
            if converted is not None:
                return converted
        except (ImageCms.PyCMSError, OSError):
            pass  # a damaged profile: the plain formula is the best guess left
    return image.convert("RGB")


def upright(array: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Apply an EXIF orientation (1-8) to (H,W,C), as a view."""
    if orientation in (5, 6, 7, 8):
        array = array.transpose(1, 0, 2)
    if orientation in (2, 3, 6, 7):
        array = array[:, ::-1]
    if orientation in (3, 4, 7, 8):
        array = array[::-1]
    return array


def webp_is_lossless(file: BinaryIO) -> bool:
    """Whether the first picture chunk of a WebP file is the lossless kind."""
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
