"""What a picture file carries besides its samples: EXIF and XMP, captions in JPEG, text and colour spaces in PNG."""

import re
import struct
import zlib
from typing import Any, BinaryIO

from numpy.typing import NDArray
from PIL import Image

from mofme.vision.picture.kinds import photoshop_blocks, turned_sizes

_TURNS = (5, 6, 7, 8)  # orientations by a quarter
_ORIENTATION, _RESOLUTION, _EXIF_IFD, _GPS_IFD = 0x0112, 282, 34665, 34853
# Tags that describe the scene; all others in a TIFF's directory say how its samples are stored.
_DESCRIPTIVE_TAGS = (269, 270, 271, 272, 285, 297, 305, 306, 315, 316, 18246, 18249, 33432, *range(40091, 40096))
_DESCRIPTIVE_TAGS += (33550, 33922, 34264, 34735, 34736, 34737, 42112, 42113)  # of maps: which place on earth it shows
IPTC_TAG = 33723
_XMP_ORIENTATION = re.compile(rb"""(tiff:Orientation(?:=["']|>))\d""")
_IPTC = 0x0404  # among Photoshop's resources
# What the chunks of a PNG hold that is in sRGB.
_SRGB = {
    b"gAMA": struct.pack(">L", 45_455),
    b"cHRM": struct.pack(">8L", 31_270, 32_900, 64_000, 33_000, 30_000, 60_000, 15_000, 6_000),
    b"cICP": b"\1\x0d",
}
_PNG_CHUNKS = (b"gAMA", b"cHRM", b"sRGB", b"cICP", b"mDCV", b"cLLI", b"tEXt", b"zTXt", b"iTXt")
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
    """Return the block without its prefix, with orientation 1, the sizes of the picture as it was turned to it, and
    its thumbnail, the old picture, unlinked.

    Patched in place, so that maker notes, which point into the block, survive. None if the block is damaged.
    """
    block = bytearray(exif.removeprefix(b"Exif\0\0"))
    try:
        order = {b"II": "<", b"MM": ">"}[bytes(block[:2])]
        first, end = _entries(block, order, *struct.unpack_from(order + "L", block, 4))
        turned = _ORIENTATION in first and struct.unpack_from(order + "H", block, first[_ORIENTATION] + 8)[0] in _TURNS
        if _ORIENTATION in first:
            struct.pack_into(order + "HHLHH", block, first[_ORIENTATION], _ORIENTATION, 3, 1, 1, 0)  # one SHORT
        if end + 4 <= len(block):
            struct.pack_into(order + "L", block, end, 0)
        if turned:
            _swap(block, first, (256, 257), (282, 283))  # width and height, resolution across and down
            if _EXIF_IFD in first:
                camera, _ = _entries(block, order, *struct.unpack_from(order + "L", block, first[_EXIF_IFD] + 8))
                _swap(block, camera, (0xA002, 0xA003), (0xA20E, 0xA20F))
    except (KeyError, struct.error):
        return None
    return bytes(block)


def _entries(block: bytearray, order: str, directory: int) -> tuple[dict[int, int], int]:
    """Where each tag of a directory stands, and where the directory ends."""
    (count,) = struct.unpack_from(order + "H", block, directory)
    end = directory + 2 + 12 * count
    places = range(directory + 2, end, 12)
    return {struct.unpack_from(order + "H", block, place)[0]: place for place in places}, end


def _swap(block: bytearray, places: dict[int, int], *pairs: tuple[int, int]) -> None:
    """Exchange the values of two tags, where both are there."""
    for one, other in pairs:
        if one in places and other in places:
            a, b = (slice(places[tag] + 2, places[tag] + 12) for tag in (one, other))
            block[a], block[b] = block[b], block[a]


def upright_xmp(xmp: bytes, orientation: int) -> bytes:
    """Return the XMP packet with its own copies of the orientation and of the sizes, if any, as the picture is now."""
    return _XMP_ORIENTATION.sub(rb"\g<1>1", turned_sizes(xmp) if orientation in _TURNS else xmp)


def descriptive_tags(exif: Image.Exif) -> dict[int, Any]:
    """Return what describes the scene and the camera, sub-directories as dicts: what a new TIFF may keep."""
    tags = {tag: exif[tag] for tag in _DESCRIPTIVE_TAGS if tag in exif}
    for tag in (_EXIF_IFD, _GPS_IFD):
        if directory := exif.get_ifd(tag):
            tags[tag] = {key: value for key, value in directory.items() if not isinstance(value, dict)}
    return tags


def dpi_of(image: Image.Image, orientation: int) -> tuple[float, float] | None:
    """Pixels per inch across and down of the picture once it is upright, unless they are absurd or Pillow's guess."""
    if _RESOLUTION not in getattr(image, "tag_v2", (_RESOLUTION,)):
        return None
    dpi = tuple(float(value) for value in image.info.get("dpi", ()))
    dpi = dpi[::-1] if orientation in _TURNS else dpi
    return (dpi[0], dpi[1]) if len(dpi) == 2 and all(1 <= value <= 60_000 for value in dpi) else None


def orientation_of(image: Image.Image) -> int:
    """The EXIF orientation, 1 to 8; 1 where there is none or it cannot be read."""
    try:
        return image.getexif().get(_ORIENTATION, 1)
    except (SyntaxError, OSError, ValueError):  # damaged EXIF: no reason to refuse the picture
        return 1


def upright(array: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Apply an EXIF orientation (1-8) to (H,W,C), as a view."""
    if orientation in (5, 6, 7, 8):
        array = array.transpose(1, 0, 2)
    if orientation in (2, 3, 6, 7):
        array = array[:, ::-1]
    if orientation in (3, 4, 7, 8):
        array = array[::-1]
    return array


def iptc_of(image: Image.Image) -> bytes | None:
    """The IPTC block of a JPEG or TIFF, if it has one."""
    if image.format == "TIFF":
        iptc = image.tag_v2.get(IPTC_TAG)  # type: ignore[attr-defined]
        iptc = iptc or photoshop_blocks(image).get(_IPTC, {}).get("data")
        return iptc if isinstance(iptc, bytes) else None
    return photoshop_blocks(image).get(_IPTC) or None


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


def png_chunk(kind: bytes, data: bytes) -> bytes:
    """A chunk of a PNG as a file holds it."""
    return struct.pack(">L", len(data)) + kind + data + struct.pack(">L", zlib.crc32(kind + data))


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
        # A frame of an animation begins with 16 bytes, then the chunks of a picture.
        position += 24 if head[:4] == b"ANMF" else 8 + length + length % 2


def lost_chunks(chunks: tuple[tuple[bytes, bytes], ...], icc: bytes | None) -> list[str]:
    """What another format leaves out of `png_chunks`, in words; colours only where they are not those of sRGB."""
    text = any(kind in (b"tEXt", b"zTXt", b"iTXt") for kind, _ in chunks)
    own = any(kind in _SRGB and data[: len(_SRGB[kind])] != _SRGB[kind] for kind, data in chunks)
    own &= not icc and not any(kind == b"sRGB" for kind, _ in chunks)
    hdr = any(kind in (b"mDCV", b"cLLI") for kind, _ in chunks)
    lost = ["text of the PNG is left out"] * text + ["how bright the PNG's HDR is meant to be is left out"] * hdr
    return lost + ["the PNG's own colour space is left out: it may look other"] * own
