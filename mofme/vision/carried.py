"""What files say of a picture besides EXIF and XMP: captions in JPEG, text and colour spaces in PNG."""

import struct
from typing import BinaryIO

from PIL import Image

_IPTC = 0x0404  # among Photoshop's resources
_PNG_CHUNKS = (b"gAMA", b"cHRM", b"sRGB", b"tEXt", b"zTXt", b"iTXt")
# Text that holds what is read and written elsewhere, in older programs' ways.
_ELSEWHERE = tuple(
    name + b"\0"
    for name in (b"XML:com.adobe.xmp", b"Raw profile type exif", b"Raw profile type APP1", b"Raw profile type xmp")
)


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
