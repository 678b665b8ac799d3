"""What a picture file carries besides its samples: EXIF and XMP, captions in JPEG, text and colour spaces in PNG."""

import re
import struct
from typing import Any, BinaryIO

from PIL import Image

_ORIENTATION, _EXIF_IFD, _GPS_IFD = 0x0112, 34665, 34853
# Tags that describe the scene; all others in a TIFF's directory say how its samples are stored.
_DESCRIPTIVE_TAGS = (270, 271, 272, 305, 306, 315, 316, 18246, 18249, 33432, *range(40091, 40096))
_XMP_ORIENTATION = re.compile(rb"""(tiff:Orientation(?:=["']|>))\d""")
_IPTC = 0x0404  # among Photoshop's resources
_PNG_CHUNKS = (b"gAMA", b"cHRM", b"sRGB", b"tEXt", b"zTXt", b"iTXt")
# Text that holds what is read and written elsewhere, in older programs' ways.
_ELSEWHERE = tuple(
    name + b"\0"
    for name in (b"XML:com.adobe.xmp", b"Raw profile type exif", b"Raw profile type APP1", b"Raw profile type xmp")
)


def exif_of(image: Image.Image) -> bytes | None:
    """The EXIF block of an opened picture, or one made of what a TIFF tells in its own directory."""
    if "exif" in image.info:
        return image.info["exif"]
    block = Image.Exif()  # of a TIFF, whose directory is the file's own, and of PNGs from before the eXIf chunk
    block.update(descriptive_tags(image.getexif()))
    return block.tobytes() if block else None


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


def dpi_of(image: Image.Image) -> tuple[float, float] | None:
    """Pixels per inch across and down, unless they are absurd."""
    dpi = tuple(float(value) for value in image.info.get("dpi", ()))
    return (dpi[0], dpi[1]) if len(dpi) == 2 and all(1 <= value <= 60_000 for value in dpi) else None


def orientation_of(image: Image.Image) -> int:
    """The EXIF orientation, 1 to 8; 1 where there is none or it cannot be read."""
    try:
        return image.getexif().get(_ORIENTATION, 1)
    except (SyntaxError, OSError, ValueError):  # damaged EXIF: no reason to refuse the picture
        return 1


def iptc_of(image: Image.Image) -> bytes | None:
    """The IPTC block of a JPEG, if it has one."""
    resources = image.info.get("photoshop")
    return resources.get(_IPTC) or None if isinstance(resources, dict) else None


def iptc_segment(iptc: bytes) -> bytes:
    """The block as a JPEG holds it; empty if it is too long for a segment."""
    resource = b"8BIM" + struct.pack(">HHL", _IPTC, 0, len(iptc)) + iptc + bytes(len(iptc) % 2)
    data = b"Photoshop 3.0\0" + resource
    return b"\xff\xed" + struct.pack(">H", len(data) + 2) + data if len(data) + 2 < 2**16 else b""


def png_chunks(file: BinaryIO) -> tuple[tuple[bytes, bytes], ...]:
    """Kind and data of the chunks of a whole PNG that hold its gamma, primaries and text."""
    found = []
    file.seek(8)
    while len(head := file.read(8)) == 8:
        length, kind = struct.unpack(">L4s", head)
        if kind in _PNG_CHUNKS:
            found.append((kind, file.read(length)))
            length = 0
        file.seek(length + 4, 1)
    return tuple((kind, data) for kind, data in found if not data.startswith(_ELSEWHERE))
