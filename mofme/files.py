"""Files: written whole or not at all, found by suffix, and where what the project keeps lies."""

import csv
import errno
import hashlib
import os
import platform
import re
import sys
import time
import uuid
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import IO, Any
from unicodedata import category
from urllib.request import url2pathname

if sys.platform != "win32":
    import fcntl

WEIGHTS_FILE = "model.safetensors"
CARD_FILE = "card.json"
DEFAULT_MODEL = "small-real"  # of those that restore pictures


def _shipped(name: str) -> Path:
    """A folder that ships with the project: beside the package in a clone, within it once it is installed."""
    package = Path(__file__).resolve().parent
    return package / name if (package / name).is_dir() else package.parent / name


WEIGHTS = _shipped("weights")
ASSETS = _shipped("assets")

_PART = re.compile(r"\.mofme-(?P<process>\d+)-((?P<machine>[0-9a-f]{8})-)?[0-9a-f]+\.part")
_ADDRESS = re.compile(r"([a-z][a-z0-9+]+):/+(.+)")  # drives of Windows have one letter
_LEFT_FOR_LONG = 86_400  # seconds
_FAULTS = {
    errno.ENOENT: "no such file (any more)",
    errno.EACCES: "no permission to read or write it",
    errno.EPERM: "no permission to read or write it",
    errno.EISDIR: "is a folder, not a file",
    errno.ELOOP: "is a link that leads back to itself",
    errno.ESTALE: "the network drive that it lies on was lost; connect it anew and start again",
    errno.EIO: "the drive that it lies on does not read or write it; it may be damaged or was unplugged",
    errno.ENOSPC: "the disk is full",
}
_JOINERS = "\u200c\u200d"


@contextmanager
def atomic_file(path: Path, mode: str = "wb", errors: str = "strict") -> Iterator[Any]:
    """Open a file that takes the place of `path` if the block ends well and leaves no trace if not.

    Bytes, or with mode "w" UTF-8 text, whose line ends stay as they are written; `errors` is that of `open`. Folders
    above `path` are made. Whatever fails, also on a full disk (OSError), an earlier file at `path` stays as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    _clear_once(path.parent)
    # Only a killed process leaves one behind, for `clear_left` to find: the name tells whose it is.
    part = path.parent / f".mofme-{os.getpid()}-{_machine()}-{uuid.uuid4().hex}.part"
    how: dict[str, Any] = {} if mode == "wb" else {"encoding": "utf-8", "newline": "", "errors": errors}
    try:
        with part.open(mode.replace("w", "x"), **how) as file:
            yield file
        # Without it a crash of the machine could keep the new name and lose what is in it. Opened anew, because
        # writers of archives and tables may have closed the file.
        with part.open("r+b") as whole:
            os.fsync(whole.fileno())
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def clear_left(folder: Path) -> None:
    """Remove what killed processes left in `folder` of files that they were writing, unless one may still be at it."""
    for part in folder.glob(".mofme-*.part"):
        if found := _PART.fullmatch(part.name):
            with suppress(OSError, OverflowError):
                if found["machine"] in (None, _machine()):
                    is_left = not _runs(int(found["process"]))
                else:  # nobody here knows whether it runs there
                    is_left = time.time() - part.stat().st_mtime > _LEFT_FOR_LONG
                if is_left:
                    part.unlink()


_clear_once = lru_cache(maxsize=256)(clear_left)


def _machine() -> str:
    """Tells machines apart that share a folder, and containers, whose processes have numbers of their own."""
    space = os.readlink("/proc/self/ns/pid") if os.path.exists("/proc/self/ns/pid") else ""
    return hashlib.sha256(f"{platform.node()} {space}".encode()).hexdigest()[:8]


def _runs(process: int) -> bool:
    if sys.platform == "win32":  # where a file that is in use cannot be removed
        return False
    try:
        os.kill(process, 0)  # psutil looks into /proc, which may hide what others run
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True


def only_one(path: Path) -> IO[bytes] | None:
    """The file at `path`, which nobody else has until it is closed; None if somebody has it. Windows has no such locks.

    Raises OSError if it cannot be made.
    """
    file = path.open("ab")
    try:
        if sys.platform != "win32":
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        file.close()
        if isinstance(error, BlockingIOError):
            return None
        raise
    return file


def printable(text: str) -> str:
    """A line as it may be shown: a name on disk may hold codes that move the cursor, turn letters round or hide what is
    said. Spaces of all widths stay, and what joins letters and emoji.
    """

    def is_plain(char: str) -> bool:
        return char.isprintable() or char in _JOINERS or category(char) == "Zs"

    return "".join(char if is_plain(char) else char.encode("unicode_escape").decode() for char in text)


def without_name(error: str, name: str) -> str:
    """An error without the file `name` at its start, of whatever folder: for where the name stands already."""
    named = re.match(rf"(?:(?:(?!: ).)*[/\\])?{re.escape(os.path.basename(name))}: ", error, re.DOTALL)
    return error[named.end() :] if named else error


def in_words(error: OSError, path: Path | None = None) -> str:
    """An error of the system for people, beginning with its file, else with `path`; other errors as they are."""
    if error.errno is None:
        return str(error)
    what, file = _FAULTS.get(error.errno, error.strerror), error.filename or path
    return f"{file}: {what}." if file else f"{what}."


def check_can_hold(path: Path) -> None:
    """Raise OSError, in words, if no file can be written at `path`; folders above it need not be there yet."""
    try:
        path.exists()
    except OSError as error:  # of a name that is too long, say
        raise OSError(f"{path}: no file can have this name ({error.strerror}).") from error
    if path.is_dir():
        raise IsADirectoryError(f"{path}: is a folder; give the name of a file, or another folder.")
    folder = path.parent
    while not os.path.lexists(folder) and folder != folder.parent:
        folder = folder.parent
    if not folder.is_dir():
        raise NotADirectoryError(f"{path}: cannot be written, because {folder} is no folder.")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise PermissionError(f"{path}: cannot be written, because {folder} may not be written to; choose another.")


def write_table(path: Path, lines: Iterable[Sequence[object]]) -> None:
    """Write a CSV file, its headings first, whole or not at all. Bytes of names that are no text are escaped."""
    with atomic_file(path, "w", errors="backslashreplace") as file:
        csv.writer(file).writerows(lines)


def _walk(folder: Path, closed: list[str], hidden: bool = False) -> Iterator[tuple[list[Path], list[Path]]]:
    """Folders and files in each folder below, but hidden folders (files too, if not `hidden`) and what lies behind
    links to folders.
    """
    for root, folders, files in os.walk(folder, onerror=lambda error: closed.append(error.filename)):
        if not os.access(root, os.X_OK):  # its names may be read, but no file in it
            closed.append(root)
            folders.clear()
            continue
        folders[:] = [name for name in folders if not name.startswith(".")]
        files = [name for name in files if hidden or not name.startswith(".")]
        yield [Path(root, name) for name in folders], [Path(root, name) for name in files]


def find_files(folder: Path, suffixes: Collection[str] | None, hidden: bool = False) -> list[Path]:
    """Every file under `folder` with one of these suffixes, in small letters, or with any; sorted, no hidden names but
    those of files if they are wanted, no links to folders.
    """
    found = (path for _, files in _walk(folder, [], hidden) for path in files)
    wanted = (path for path in found if suffixes is None or path.suffix.lower() in suffixes)
    return sorted(filter(os.path.isfile, wanted))


def passed_by(folder: Path) -> str:
    """What `find_files` does not see under `folder`, in one line: what cannot be opened, and where links lead."""
    closed, linked, empty = list[str](), list[Path](), list[Path]()
    for folders, files in _walk(folder, closed):
        linked += [path for path in folders if path.is_symlink()]
        empty += [path for path in files if not os.path.isfile(path)]
    kinds = {
        "folders that cannot be opened": map(Path, closed),
        "links to folders": linked,
        "links and pipes without a file": empty,
    }
    named = {what: [str(path.relative_to(folder)) for path in sorted(paths)[:5]] for what, paths in kinds.items()}
    return "; ".join(f"{what} ({', '.join(names)})" for what, names in named.items() if names)


def address_of(path: Path) -> str:
    """The address that a path was typed as, s3://bucket/photos say, of whose slashes it keeps one; empty for others."""
    found = _ADDRESS.fullmatch(path.as_posix())
    return f"{found[1]}://{found[2]}" if found else ""


def on_disk(path: Path) -> Path:
    """The path itself, or the one that an address like file:///photos stands for."""
    found = _ADDRESS.fullmatch(path.as_posix())
    return Path(url2pathname(f"/{found[2]}")) if found and found[1] == "file" else path


def model_folder(name: str) -> Path:
    """The folder of a model that ships with the project, or else the folder that is called so."""
    return WEIGHTS / name if (WEIGHTS / name / CARD_FILE).is_file() else Path(name)


def cache_root() -> Path:
    """Where files that can be made again are kept: MOFME_CACHE, or else `mofme` in XDG_CACHE_HOME or ~/.cache."""
    own = os.environ.get("MOFME_CACHE")
    return Path(own) if own else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mofme"
