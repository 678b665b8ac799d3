"""EXIF and XMP of a picture whose pixels have been turned upright."""

import re
import struct
from typing import Any

from PIL import Image

_ORIENTATION, _EXIF_IFD, _GPS_IFD = 0x0112, 34665, 34853
# Tags that describe the scene; all others in a TIFF's directory say how its samples are stored.
_DESCRIPTIVE_TAGS = (270, 271, 272, 305, 306, 315, 316, 18246, 18249, 33432, *range(40091, 40096))
_XMP_ORIENTATION = re.compile(rb"""(tiff:Orientation(?:=["']|>))\d""")


def upright_exif(exif: bytes) -> bytes | None:
    """Return the block without its prefix, with orientation 1 and its thumbnail, the old picture, unlinked.

    Patched in place, so that maker notes, which point into the block, survive. None if the block is damaged.
    """
    block = bytearray(exif.removeprefix(b"Exif\0\0"))
    try:
        order = {b"II": "<", b"MM": ">"}[bytes(block[:2])]
        (directory,) = struct.unpack_from(order + "L", block, 4)
        (count,) = struct.unpack_from(order + "H", block, directory)
        end = directory + 2 + 12 * count
        for entry in range(directory + 2, end, 12):
            if struct.unpack_from(order + "H", block, entry) == (_ORIENTATION,):
                struct.pack_into(order + "HHLHH", block, entry, _ORIENTATION, 3, 1, 1, 0)  # one SHORT
        if end + 4 <= len(block):
            struct.pack_into(order + "L", block, end, 0)
    except (KeyError, struct.error):
        return None
    return bytes(block)


def upright_xmp(xmp: bytes) -> bytes:
    """Return the XMP packet with its own copy of the orientation, if any, set to 1."""
    return _XMP_ORIENTATION.sub(rb"\g<1>1", xmp)


def descriptive_tags(exif: Image.Exif) -> dict[int, Any]:
    """Return what describes the scene and the camera, sub-directories as dicts: what a new TIFF may keep."""
    tags = {tag: exif[tag] for tag in _DESCRIPTIVE_TAGS if tag in exif}
    for tag in (_EXIF_IFD, _GPS_IFD):
        if directory := exif.get_ifd(tag):
            tags[tag] = {key: value for key, value in directory.items() if not isinstance(value, dict)}
    return tags
