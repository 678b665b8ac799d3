"""ZIP archives from strangers: opened within limits, refused whole if anything in them is hostile."""

import contextlib
import errno
import io
import lzma
import os
import re
import stat
import zipfile
import zlib
from collections.abc import Collection
from datetime import datetime
from pathlib import Path, PurePath, PurePosixPath

from mofme.errors import ArchiveError
from mofme.files import atomic_file, in_words
from mofme.vision.picture.file import READABLE_SUFFIXES
from mofme.vision.picture.kinds import is_left_out, left_out, other_kind

MAX_ENTRIES = 2_000
MAX_TOTAL_BYTES = 2 * 2**30
MAX_RATIO = 100  # unpacked to packed size of an entry
RATIO_FREE_BYTES = 2**20  # up to this size, any ratio is harmless
_MAX_READ = 8 * 2**20  # the table of contents is read in one go: 2,000 entries need far less
_CHUNK = 2**20
_PART_MISSING = "a part of the archive is missing or damaged"
_DAMAGE = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, NotImplementedError)  # bzip2 raises OSError


class _BoundedFile(io.FileIO):
    """A file that refuses to load an absurd table of contents into memory."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > _MAX_READ:
            raise ArchiveError(f"{self.name}: holds too many files; the limit is {MAX_ENTRIES}.")
        return super().read(size) or b""


def extract(
    zip_path: Path,
    folder: Path,
    suffixes: Collection[str] = READABLE_SUFFIXES,
    damaged: dict[PurePosixPath, str] | None = None,
) -> list[Path]:
    """Unpack what has one of these suffixes into `folder`, keeping the ZIP's tree; all else stays packed.

    Raises ArchiveError, naming archive and entry, for: no ZIP, damage, encryption, paths that lead out of `folder`,
    links, names that occur twice, more than MAX_ENTRIES, MAX_TOTAL_BYTES or MAX_RATIO, and a ZIP without pictures.
    Of two names that differ by case alone one gets a number.
    An entry that is damaged, or cannot be kept, stops nothing where `damaged` is given, which gets the reason; else
    pictures unpacked before it stay in `folder`, that one does not.
    """
    unpacked = []
    try:
        with _BoundedFile(zip_path) as file, zipfile.ZipFile(file) as archive:
            pictures = _safe_pictures(zip_path, archive.infolist(), suffixes)
            total = 0
            for path, entry in pictures.items():
                try:
                    total += _unpack(archive, entry, folder / path, MAX_TOTAL_BYTES - total)
                    unpacked.append(folder / path)
                except (*_DAMAGE, OSError, ValueError) as error:
                    if damaged is None:
                        raise
                    why = _PART_MISSING if _leads_nowhere(error) else getattr(error, "strerror", None) or error
                    damaged[path] = f"cannot be unpacked ({why})."
    except (*_DAMAGE, OSError, ValueError) as error:
        raise ArchiveError(f"{zip_path}: cannot be unpacked ({_why(zip_path, error)}).") from error
    return unpacked


def _leads_nowhere(error: Exception) -> bool:
    """Whether no file begins where the archive's list says, or that place lies before the archive."""
    is_before = isinstance(error, OSError) and error.errno == errno.EINVAL
    return is_before or any(words in str(error) for words in ("negative seek", "Bad magic number for file header"))


def _why(zip_path: Path, error: Exception) -> str:
    if _leads_nowhere(error):
        return f"{_PART_MISSING}; fetch it again, or pack it anew"
    if not isinstance(error, zipfile.BadZipFile) or zipfile.is_zipfile(zip_path):
        return in_words(error).removesuffix(".") if isinstance(error, OSError) else str(error)
    with zip_path.open("rb") as file:
        header = file.read(32)
    if header.startswith(b"PK"):
        return "it is cut off or damaged: the list of its files is missing at its end; fetch it again, or pack it anew"
    kind = other_kind(PurePath(), header).removesuffix(".") if header else "is empty"
    return f"it {kind}" if kind else "it is no ZIP archive"


def pack(folder: Path, zip_path: Path) -> None:
    """Store every file under `folder` except hidden ones in a ZIP, atomically and uncompressed, as pictures are."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.resolve() != zip_path.resolve())
    try:
        with atomic_file(zip_path) as file, zipfile.ZipFile(file, "w", strict_timestamps=False) as archive:
            for path in files:
                name = path.relative_to(folder)
                if not is_hidden(name):
                    archive.write(path, name.as_posix())
    except (OSError, ValueError) as error:  # ValueError: a name that is not Unicode
        why = getattr(error, "strerror", None) or error
        raise ArchiveError(f"{zip_path}: cannot be written ({why}).") from error


def _safe_pictures(
    zip_path: Path, entries: list[zipfile.ZipInfo], suffixes: Collection[str]
) -> dict[PurePosixPath, zipfile.ZipInfo]:
    if len(entries) > MAX_ENTRIES:
        raise ArchiveError(f"{zip_path}: holds {len(entries)} files; the limit is {MAX_ENTRIES}.")
    if sum(entry.file_size for entry in entries) > MAX_TOTAL_BYTES:
        raise ArchiveError(f"{zip_path}: unpacks to more than {MAX_TOTAL_BYTES / 2**30:g} GiB.")
    pictures: dict[PurePosixPath, zipfile.ZipInfo] = {}
    seen = set[str]()
    for entry in entries:
        name = _name(entry)
        path, reason = PurePosixPath(name), _danger(entry, name)
        is_picture = path.suffix.lower() in suffixes and not (is_hidden(path) or entry.is_dir())
        if is_picture and path in pictures:
            reason = reason or "occurs twice: rename one and pack them anew"
        if reason:
            raise ArchiveError(f"{zip_path}: refused, because its entry {name!r} {reason}.")
        if is_picture:
            path = _apart(path, seen)
            seen.add(str(path).casefold())
            pictures[path] = entry
    if not pictures:
        others = left_out(_others(entries, suffixes))
        raise ArchiveError(f"{zip_path}: holds no pictures." + (f" Left out: {others}." if others else ""))
    return pictures


def others_packed(zip_path: Path, suffixes: Collection[str]) -> list[PurePosixPath]:
    """What else a ZIP holds that `extract` took, and one should know of."""
    with _BoundedFile(zip_path) as file, zipfile.ZipFile(file) as archive:
        return _others(archive.infolist(), suffixes)


def _others(entries: list[zipfile.ZipInfo], suffixes: Collection[str]) -> list[PurePosixPath]:
    paths = [PurePosixPath(_name(entry)) for entry in entries if not entry.is_dir()]
    return [path for path in paths if is_left_out(path, suffixes) and not is_hidden(path.parent)]


def _name(entry: zipfile.ZipInfo) -> str:
    name = entry.filename
    if not entry.flag_bits & 0x800:  # not declared as UTF-8, which many tools write all the same
        with contextlib.suppress(UnicodeError):
            name = name.encode("cp437").decode("utf-8")
    return name.replace("\\", "/")


def _apart(path: PurePosixPath, seen: Collection[str]) -> PurePosixPath:
    """The path, with a number where another one is seen that differs by case alone: some systems hold only one."""
    number, apart = 1, path
    while str(apart).casefold() in seen:
        number += 1
        apart = path.with_stem(f"{path.stem} ({number})")
    return apart


def _danger(entry: zipfile.ZipInfo, name: str) -> str:
    kind = stat.S_IFMT(entry.external_attr >> 16)
    if name.startswith("/") or re.match(r"[A-Za-z]:", name) or ".." in name.split("/"):
        return "leads out of its folder"
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "is a link or a special file"
    if entry.flag_bits & 0x1:
        return "is encrypted: unpack it yourself and zip it without a password"
    if entry.file_size > max(RATIO_FREE_BYTES, MAX_RATIO * entry.compress_size):
        return f"expands more than {MAX_RATIO}-fold"
    return ""


def _unpack(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, path: Path, allowance: int) -> int:
    """Copy one entry, counting what really comes out: the sizes in the headers are only claims."""
    size = 0
    path.parent.mkdir(parents=True, exist_ok=True)
    with archive.open(entry) as packed, path.open("xb") as file:
        try:
            while chunk := packed.read(_CHUNK):
                size += len(chunk)
                if size > allowance:
                    raise ArchiveError(f"{archive.filename}: unpacks to more than {MAX_TOTAL_BYTES / 2**30:g} GiB.")
                file.write(chunk)
        except BaseException:
            file.close()
            path.unlink()
            raise
    with contextlib.suppress(ValueError, OverflowError, OSError):  # times that no calendar has
        os.utime(path, (datetime(*entry.date_time).timestamp(),) * 2)
    return size


def is_hidden(path: PurePath) -> bool:
    return any(part.startswith((".", "__MACOSX")) for part in path.parts)
