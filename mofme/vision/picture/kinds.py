"""What files are that are no pictures to restore, and what to do with them; and what a file holds beside its picture
and loses (gain maps, depth, films), with the metadata that announce it.
"""

import contextlib
import io
import re
import struct
from collections import Counter
from collections.abc import Collection, Iterable
from pathlib import PurePath
from typing import Any, BinaryIO
from xml.dom import minidom
from xml.parsers.expat import ExpatError

from PIL import Image

_RAW = ("a raw photograph", "develop it to TIFF or JPEG first, as its camera's program does")
_GIF = ("a GIF, which has 256 colours", "save it as PNG or WebP first (animations too) or as a video")
_TIFF = ("a TIFF of a kind that is not read (32 bits or five channels, say)", "save it as PNG first")
_JPEG_LS = 0xF7
_FRAMES = {_JPEG_LS, *range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}  # markers of JPEG behind which a picture is described
_TIFFS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_PAGE = ("a page of the web, which came in place of the picture", "fetch it again")
_HIDDEN = ("hidden by the dot that its name begins with", "rename it to have it restored")
_FILM = ("a film", "give it the suffix of one, .mp4 say")
_KINDS = {
    _GIF: "gif",
    _RAW: "cr2 cr3 crw nef nrw arw srf sr2 dng gpr orf rw2 raf pef ptx srw x3f iiq cap eip 3fr fff rwl rwz raw erf "
    "mrw kdc dcr k25 mef mos bay",
    ("a JPEG by another name", "rename it to .jpg"): "mpo jps insp",
    ("edits and captions that belong to a photograph", "the results are without them"): "xmp aae pp3 dop cos",
    ("a JPEG XL picture", "save it as PNG or JPEG first"): "jxl",
    ("a JPEG 2000 picture", "save it as PNG or TIFF first"): "jp2 j2k j2c jpf jpx jpm",
    ("a picture in layers", "export it as PNG or TIFF first"): "psd psb xcf kra afphoto clip",
    ("a drawing", "it has no weather in it; export it as PNG if need be"): "svg svgz eps ai wmf emf",
    (
        "a picture of a kind that is not read",
        "save it as PNG or TIFF first",
    ): "jls ico cur icns tga hdr exr pfm pcx ppm pgm pbm pnm dds ktx2 dcm jxr wdp hdp qoi bpg flif sgi pcd",
    ("a document", "export its pictures first"): "pdf doc docx odt ppt pptx",
    ("an archive", "unpack it first"): "zip cbz rar 7z tar gz tgz bz2 xz zst",
    ("a film of a kind that is not read", "convert it to MP4 first"): "rm rmvb m2v mxf divx dv ogm mjpeg y4m r3d swf",
    ("a film by another name", "rename it to .mp4"): "insv 360 lrv",
}
_BY_SUFFIX = {f".{suffix}": kind for kind, suffixes in _KINDS.items() for suffix in suffixes.split()}
_BEGINNINGS = {
    _GIF: (b"GIF8",),
    _RAW: (b"FUJIFILMCCD-RAW", b"IIRO", b"IIU\0"),
    _PAGE: (b"<!DOCTYPE html", b"<!doctype html", b"<html"),
    _FILM: (b"\x1aE\xdf\xa3",),
    _BY_SUFFIX[".jxl"]: (b"\xff\x0a", b"\0\0\0\x0cJXL "),
    _BY_SUFFIX[".jp2"]: (b"\0\0\0\x0cjP",),
    _BY_SUFFIX[".psd"]: (b"8BPS",),
    _BY_SUFFIX[".exr"]: (b"v/1\x01", b"II\xbc", b"#?RADIANCE"),  # of its kind, JPEG XR and Radiance
    _BY_SUFFIX[".svg"]: (b"<svg",),
    _BY_SUFFIX[".pdf"]: (b"%PDF",),
    _BY_SUFFIX[".zip"]: (b"PK\3\4", b"Rar!"),
}


def other_kind(path: PurePath, header: bytes) -> str:
    """What a file is, by its first bytes or else its name, and what to do; empty if that is not known here."""
    kind = {b"ftypcrx ": _RAW, b"ftypisom": _FILM, b"ftypmp42": _FILM, b"ftypqt  ": _FILM}.get(header[4:12])
    kind = kind or next((kind for kind, starts in _BEGINNINGS.items() if header.startswith(starts)), None)
    return _in_words(kind or _BY_SUFFIX.get(path.suffix.lower()) or (_TIFF if header.startswith(_TIFFS) else None))


def cut_tiff(file: BinaryIO, header: bytes) -> str:
    """In words, if the first directory of an open TIFF lies behind its end; empty for others."""
    order, (kind, start) = "<" if header[:1] == b"I" else ">", ("Q", 8) if b"+" in header[:4] else ("L", 4)
    place = struct.Struct(order + kind)
    known = header[start : start + place.size].ljust(place.size, b"\xff")
    if header.startswith(_TIFFS) and place.unpack(known)[0] >= file.seek(0, io.SEEK_END):
        return "is cut off, and what tells how it is to be read stood behind."
    return ""


def odd_jpeg(file: BinaryIO) -> str:
    """What an open JPEG is that nothing here decodes, by its frame header, and what to do; empty for others."""
    file.seek(0)
    at = 2 if file.read(2) == b"\xff\xd8" else -1
    while at > 0:
        file.seek(at)
        head = file.read(5).ljust(5, b"\0")
        if head[0] != 0xFF:
            break
        if head[1] in _FRAMES and (head[1] == _JPEG_LS or 8 < head[4] <= 16):
            kind = "JPEG-LS picture" if head[1] == _JPEG_LS else f"JPEG of {head[4]} bits, and only those of 8 are read"
            return _in_words((f"a {kind}", "save it as PNG or TIFF first, of 16 bits if it has more than 8"))
        at += 1 if head[1] == 0xFF else 2 + int.from_bytes(head[2:4])
    return ""


def raw_kind(path: PurePath) -> str:
    """As `other_kind` for raw photographs, by their names: they look like TIFF and hold a small picture."""
    kind = _BY_SUFFIX.get(path.suffix.lower())
    return _in_words(kind) if kind == _RAW else ""


def _in_words(kind: tuple[str, str] | None) -> str:
    return f"is {kind[0]}: {kind[1]}." if kind else ""


RAW, HIDDEN = _in_words(_RAW), _in_words(_HIDDEN)


def is_left_out(path: PurePath, suffixes: Collection[str]) -> bool:
    """Whether to tell of a file that is not restored: of another kind than these, or hidden. Others that are hidden,
    and what macOS keeps beside files (._a.jpg), nobody misses.
    """
    is_hidden = path.name.startswith(".")
    return (path.suffix.lower() in suffixes) == is_hidden and not path.name.startswith("._")


def left_out(paths: Iterable[PurePath]) -> str:
    """How many files of which kind are no pictures or videos, and what to do with them: one line, or nothing."""
    counts = dict[Any, Counter[str]]()
    for suffix, is_hidden in sorted((path.suffix.lower(), path.name.startswith(".")) for path in paths):
        counts.setdefault(_HIDDEN if is_hidden else _BY_SUFFIX.get(suffix), Counter())[suffix] += 1
    said = []
    for kind, suffixes in counts.items():
        number = suffixes.total()
        named = ", ".join(suffix or "without a suffix" for suffix in list(suffixes)[:5])
        what = f"{number} {'file' if number == 1 else 'files'} ({named})"
        said.append(f"{what}: {kind[0]}, {kind[1]}" if kind else f"{what}: no pictures or videos")
    return "; ".join(said)


GAIN_MAP, DEPTH, FILM = "HDR gain map", "depth map", "film of a motion photo"
_NAMES = "http://ns.google.com/photos/1.0/"
# Namespaces of XMP whose properties speak of nothing but what is lost, by how they begin; and which of the others do.
_LOST = {
    "http://ns.adobe.com/hdr-gain-map/": GAIN_MAP,
    "http://ns.apple.com/HDRGainMap/": GAIN_MAP,
    "http://ns.apple.com/pixeldatainfo/": GAIN_MAP,
    f"{_NAMES}depthmap/": DEPTH,
    "http://ns.google.com/photos/dd/1.0/": DEPTH,
    f"{_NAMES}container/": "",  # the list of what follows the picture
    f"{_NAMES}image/": "original from before an effect",
    f"{_NAMES}audio/": "sound",
}
_LOST_PROPERTIES = {
    ("http://ns.adobe.com/xap/1.0/", "Thumbnails"): "",
    ("http://ns.adobe.com/xmp/note/", "HasExtendedXMP"): "long part of its XMP",
    ("http://purl.org/dc/terms/", "provenance"): "content credentials",
}
_ITEMS = {"GainMap": GAIN_MAP, "Depth": DEPTH, "MotionPhoto": FILM}
_FILMS = re.compile("MotionPhoto|MicroVideo")
_FILM_BEGINS = re.compile(rb"ftyp(?:mp4|iso|qt  |avc1)")
_HINTS = re.compile(
    rb"hdr-gain-map|ns\.apple\.com|ns\.google\.com/photos|MotionPhoto|MicroVideo|Thumbnails|"
    rb"HasExtendedXMP|dc/terms"
)
_SEGMENTS = {b"urn:iso:std:iso:ts:21496": GAIN_MAP, b"JP": "content credentials"}  # of JPEG: APP2, APP11
_SIZES = re.compile(
    rb"""\b(tiff:ImageWidth|tiff:ImageLength|exif:PixelXDimension|exif:PixelYDimension)(=["']|>)(\d+)"""
)
_TURNED = {b"tiff:ImageWidth": b"tiff:ImageLength", b"exif:PixelXDimension": b"exif:PixelYDimension"}
_TURNED |= {other: name for name, other in _TURNED.items()}


def without_lost(xmp: bytes) -> tuple[bytes, list[str]]:
    """The packet without properties that announce what is lost, and what that is; unchanged if there are none."""
    if not _HINTS.search(xmp):
        return xmp, []
    start, stop = xmp.find(b"<x:xmpmeta"), xmp.rfind(b">") + 1
    start = start if start >= 0 else xmp.find(b"<rdf:RDF")
    end = xmp.rfind(b"</x:xmpmeta>")
    stop = end + len(b"</x:xmpmeta>") if end >= 0 else stop
    try:
        if start < 0 or b"<!DOCTYPE" in xmp:
            raise ValueError("no XMP")
        document = minidom.parseString(xmp[start:stop])
    except (ExpatError, ValueError):
        return b"", ["XMP, which is damaged"]
    lost: list[str] = []
    for element in document.getElementsByTagName("*"):
        for attribute in list(element.attributes.values()):
            if (what := _lost(attribute)) is not None:
                lost.append(what)
                element.removeAttributeNode(attribute)
        if element.parentNode and (what := _lost(element)) is not None:
            lost.append(what)
            element.parentNode.removeChild(element)
    if not lost:
        return xmp, []
    left = document.toxml()
    for element in document.getElementsByTagName("*"):  # nor are their names announced
        for name in [name for name in element.attributes.keys() if name.startswith("xmlns:")]:  # noqa: SIM118
            if f"{name.removeprefix('xmlns:')}:" not in left:
                element.removeAttribute(name)
    cleaned = "".join(node.toxml() for node in document.childNodes).encode()
    return xmp[:start] + cleaned + xmp[stop:], [what for what in dict.fromkeys(lost) if what]


def _lost(node: Any) -> str | None:
    space, name = node.namespaceURI or "", node.localName or ""
    if (space, name) in _LOST_PROPERTIES:
        return _LOST_PROPERTIES[space, name]
    if _FILMS.match(name):
        return FILM
    if name == "Semantic" and node.nodeType == node.ATTRIBUTE_NODE:
        return _ITEMS.get(node.value, "")
    return next((what for start, what in _LOST.items() if space.startswith(start)), None)


def turned_sizes(xmp: bytes) -> bytes:
    """The packet of a picture that was turned by a quarter: what it says of width and height exchanged."""
    sizes = {match[1]: match[3] for match in _SIZES.finditer(xmp)}
    return _SIZES.sub(lambda match: match[1] + match[2] + sizes.get(_TURNED[match[1]], match[3]), xmp)


def lessened(image: Image.Image, header: bytes) -> list[str]:
    """What of an opened file's colours no written one holds, in words; `header` is its beginning."""
    said, bits = [], int(image.info.get("bit_depth", 8))
    if image.format == "AVIF" and (at := header.find(b"av1C")) >= 0:
        deep = header[at + 6 : at + 7] or b"\0"
        bits = 12 if deep[0] & 0x20 else 10 if deep[0] & 0x40 else 8
    if image.format == "TIFF" and image.mode == "CMYK":
        bits = max(image.tag_v2.get(258, (8,)))  # type: ignore[attr-defined]
    if bits > 8:
        said.append(f"{bits} bits became 8")
    if image.mode in ("CMYK", "LAB"):
        said.append(f"{image.mode} became sRGB")
    if (at := header.find(b"colrnclx")) >= 0 and header[at + 10 : at + 12] in (b"\0\x10", b"\0\x12"):  # PQ and HLG
        said.append("HDR colours are written as if they were ordinary ones, and look pale")
    return said


def film_behind(image: Image.Image, file: BinaryIO) -> list[str]:
    """The film of a motion photo, which not every phone or messenger announces in XMP."""
    if image.format not in ("JPEG", "MPO", "HEIF"):
        return []
    file.seek(0)
    return [FILM] if _FILM_BEGINS.search(file.read()) else []


def photoshop_blocks(image: Image.Image) -> dict[int, Any]:
    """Photoshop's resources in a JPEG or TIFF, by number."""
    blocks = image.info.get("photoshop")
    if image.format == "TIFF":
        with contextlib.suppress(Exception):  # odd metadata are no reason to refuse the picture
            blocks = image.get_photoshop_blocks()  # type: ignore[attr-defined]
    return blocks if isinstance(blocks, dict) else {}


def lost_beside(image: Image.Image, header: bytes) -> list[str]:
    """What else an opened file holds that no written one will; `header` is its beginning."""
    lost, others = [], 0
    for number in range(getattr(image, "n_frames", 1) if image.format == "MPO" else 1):
        if number:
            try:
                image.seek(number)
            except Exception:  # it is cut off
                others += 1
                continue
        segments = [data for _, data in getattr(image, "applist", ())]
        found = [what for data in segments for start, what in _SEGMENTS.items() if data.startswith(start)]
        if number:
            xmp = image.info.get("xmp")
            found += without_lost(xmp)[1] if isinstance(xmp, bytes) else []
            others += not found
        lost += found
    if others:
        lost.append("second picture" if others == 1 else f"{others} other pictures")
    for kind in image.info.get("aux", ()):
        lost.append(GAIN_MAP if "gainmap" in kind.lower() else kind.rpartition(":")[2])
    if header[4:8] == b"ftyp" and b"tmap" in header:
        lost.append(GAIN_MAP)
    if image.info.get("depth_images"):
        lost.append(DEPTH)
    if any(2000 <= number < 3000 for number in photoshop_blocks(image)):
        lost.append("clipping paths")
    tags = getattr(image, "tag_v2", {})
    if 37724 in tags:
        lost.append("Photoshop layers")
    if extra := sum(kind == 0 for kind in tags.get(338, ())):  # neither colours nor what is transparent
        lost.append("another channel" if extra == 1 else f"{extra} other channels")
    if header.startswith(b"\x89PNG") and b"caBX" in header:
        lost.append("content credentials")
    return lost
