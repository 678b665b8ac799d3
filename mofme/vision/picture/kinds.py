"""What files are that are no pictures to restore, and what to do with them; and what a file holds beside its picture
and loses (gain maps, depth, films), with the metadata that announce it.
"""

import re
from collections import Counter
from collections.abc import Iterable
from pathlib import PurePath
from typing import Any
from xml.dom import minidom
from xml.parsers.expat import ExpatError

from PIL import Image

_RAW = ("a raw photograph", "develop it to TIFF or JPEG first, as its camera's program does")
_GIF = ("a GIF, which has 256 colours", "save it as PNG or WebP first (animations too) or as a video")
_KINDS = {
    _GIF: "gif",
    _RAW: "cr2 cr3 crw nef nrw arw srf sr2 dng orf rw2 raf pef srw x3f iiq 3fr rwl raw erf mrw kdc dcr mef mos",
    ("a JPEG XL picture", "save it as PNG or JPEG first"): "jxl",
    ("a JPEG 2000 picture", "save it as PNG or TIFF first"): "jp2 j2k jpf jpx",
    ("a picture in layers", "export it as PNG or TIFF first"): "psd psb xcf kra afphoto clip",
    ("a drawing", "it has no weather in it; export it as PNG if need be"): "svg svgz eps ai wmf emf",
    (
        "a picture of a kind that is not read",
        "save it as PNG or TIFF first",
    ): "ico tga hdr exr pcx ppm pgm pbm pnm dds dcm",
    ("a document", "export its pictures first"): "pdf doc docx odt ppt pptx",
    ("an archive", "unpack it first"): "zip rar 7z tar gz tgz",
    ("a film of a kind that is not read", "convert it to MP4 first"): "vob rm rmvb m2v mxf divx f4v",
}
_BY_SUFFIX = {f".{suffix}": kind for kind, suffixes in _KINDS.items() for suffix in suffixes.split()}
_MAGIC = {
    b"GIF8": _GIF,
    b"FUJIFILMCCD-RAW": _RAW,
    b"IIRO": _RAW,
    b"IIU\0": _RAW,
    b"\xff\x0a": _BY_SUFFIX[".jxl"],
    b"\0\0\0\x0cJXL ": _BY_SUFFIX[".jxl"],
    b"\0\0\0\x0cjP": _BY_SUFFIX[".jp2"],
    b"8BPS": _BY_SUFFIX[".psd"],
    b"%PDF": _BY_SUFFIX[".pdf"],
    b"PK\3\4": _BY_SUFFIX[".zip"],
    b"Rar!": _BY_SUFFIX[".zip"],
}


def other_kind(path: PurePath, header: bytes) -> str:
    """What a file is, by its first bytes or else its name, and what to do; empty if that is not known here."""
    kind = _RAW if header[4:11] == b"ftypcrx" else None
    kind = kind or next((kind for start, kind in _MAGIC.items() if header.startswith(start)), None)
    return _in_words(kind or _BY_SUFFIX.get(path.suffix.lower()))


def raw_kind(path: PurePath) -> str:
    """As `other_kind` for raw photographs, by their names: they look like TIFF and hold a small picture."""
    kind = _BY_SUFFIX.get(path.suffix.lower())
    return _in_words(kind) if kind == _RAW else ""


def _in_words(kind: tuple[str, str] | None) -> str:
    return f"is {kind[0]}: {kind[1]}." if kind else ""


def left_out(paths: Iterable[PurePath]) -> str:
    """How many files of which kind are no pictures or videos, and what to do with them: one line, or nothing."""
    counts = Counter(path.suffix.lower() for path in paths)
    said = []
    for kind in dict.fromkeys(_BY_SUFFIX.get(suffix) for suffix in sorted(counts)):
        suffixes = [suffix for suffix in sorted(counts) if _BY_SUFFIX.get(suffix) == kind]
        number = sum(counts[suffix] for suffix in suffixes)
        named = ", ".join(suffix or "without a suffix" for suffix in suffixes[:5])
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
    if bits > 8:
        said.append(f"{bits} bits became 8")
    if image.mode == "CMYK":
        said.append("CMYK became sRGB")
    if (at := header.find(b"colrnclx")) >= 0 and header[at + 10 : at + 12] in (b"\0\x10", b"\0\x12"):  # PQ and HLG
        said.append("HDR colours are written as if they were ordinary ones, and look pale")
    return said


def lost_beside(image: Image.Image, header: bytes) -> list[str]:
    """What else an opened file holds that no written one will; `header` is its beginning."""
    lost, others = [], 0
    for number in range(getattr(image, "n_frames", 1) if image.format == "MPO" else 1):
        if number:
            image.seek(number)
        found = [
            what
            for _, data in getattr(image, "applist", ())
            for start, what in _SEGMENTS.items()
            if data.startswith(start)
        ]
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
    if 37724 in getattr(image, "tag_v2", ()):
        lost.append("Photoshop layers")
    return lost
