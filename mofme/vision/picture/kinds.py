"""What files are that are no pictures to restore, and what to do with them."""

from collections import Counter
from collections.abc import Iterable
from pathlib import PurePath

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
