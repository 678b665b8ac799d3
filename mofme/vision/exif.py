"""EXIF and XMP of a picture whose pixels have been turned upright. Blocks are raw bytes, patched in place, so maker notes survive."""

import re
import struct

_ORIENTATION = 0x0112
_XMP_ORIENTATION = re.compile(rb"""(tiff:Orientation(?:=["']|>))\d""")


def upright_exif(exif: bytes) -> bytes | None:
    """The EXIF block without its `Exif\\0\\0` prefix, orientation 1, thumbnail (it shows the old picture) unlinked.

    Every other byte stays. None if the block is damaged.
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
    """The XMP packet with its own copy of the orientation, if any, set to 1."""
    return _XMP_ORIENTATION.sub(rb"\g<1>1", xmp)
