"""Folders at addresses of fsspec, such as s3://bucket/photos. They are planned like others: a mirror on this machine
holds empty files of the same names, sizes and times. What they hold is fetched when its turn comes, one file at a time.
"""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import Any

from fsspec.core import url_to_fs

from mofme.errors import PictureError
from mofme.files import address_of
from mofme.vision.batch import File
from mofme.vision.picture.file import READABLE_SUFFIXES
from mofme.vision.report import REPORT, FileReport, earlier_rows_if_any, time_of_source
from mofme.vision.video_file import VIDEO_SUFFIXES

_TIMES = ("LastModified", "last_modified", "mtime", "updated")  # what file systems call it
_SAME_TIME = 2  # seconds


class Mirror:
    """Mirrors of folders at addresses, in one temporary folder: `s3://b/in` in `s3/b/in`, so that those within one
    another are so here as well. Paths on disk stand for themselves.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def path(self, folder: Path) -> Path:
        """Where the mirror of a folder is."""
        address = address_of(folder)
        return self.root / address.replace("://", "/", 1) if address else folder

    def address(self, path: Path) -> str:
        """The address of a mirrored file; empty for any other."""
        return path.relative_to(self.root).as_posix().replace("/", "://", 1) if self.root in path.parents else ""

    def in_words(self, text: str) -> str:
        """A message, with addresses in the place of mirrors."""
        return re.sub(re.escape(f"{self.root.as_posix()}/") + r"(\w+)/", r"\1://", text)

    def fill(self, folder: Path) -> None:
        """List what lies at an address. Raises PictureError if that cannot be had, or a name would lead elsewhere."""
        if not (address := address_of(folder)):
            return
        mirror = self.path(folder)
        mirror.mkdir(parents=True, exist_ok=True)
        try:
            system, root = url_to_fs(address)
            system.invalidate_cache()
            is_there = system.exists(root)
            found = system.find(root, detail=True) if is_there else {}
            # Of one file some list the file itself, others, which know no folders, nothing.
            if is_there and not set(found) - {root} and folder.suffix.lower() in READABLE_SUFFIXES | VIDEO_SUFFIXES:
                raise PictureError(f"{address}: is one file; fetch it first, or give the folder it lies in.")
            for full, about in found.items():
                if full.endswith("/"):  # stands for a folder: consoles and tools put it into object stores
                    continue
                name = full[len(root.rstrip("/")) :].lstrip("/")
                if not name or ".." in PurePosixPath(name).parts or "\\" in name or "\0" in name:
                    raise PictureError(f"{address}: holds {name!r}, which no file in a folder can be called.")
                path = mirror / name
                path.parent.mkdir(parents=True, exist_ok=True)
                if path.exists() and path.name not in os.listdir(path.parent):
                    raise PictureError(f"{address}: {name!r} and another differ by case alone; this system holds one.")
                with path.open("wb") as file:
                    file.truncate(about["size"] or 0)
                os.utime(path, (_time(about),) * 2)
                if path.name == REPORT and path.parent != mirror:  # it tells of earlier results, which are no inputs
                    fetch(f"{address}/{name}", path)
            self._recall(mirror, address)
        except PictureError:
            raise
        except Exception as error:  # every file system raises its own kinds
            raise PictureError(f"{address}: cannot be read ({error or type(error).__name__}).") from error

    def _recall(self, mirror: Path, address: str) -> None:
        """Get the report of an earlier run. What is not younger has the time of what it was made of, as on disk."""
        report = mirror / REPORT
        if not report.is_file():
            return
        time = report.stat().st_mtime
        fetch(f"{address}/{REPORT}", report)
        for (_, output), row in earlier_rows_if_any(report).items():
            path = mirror / output
            if not path.resolve().is_relative_to(mirror.resolve()):  # anybody may have written the report
                continue
            made = time_of_source(row)
            if made is not None and path.is_file() and path.stat().st_mtime <= time + _SAME_TIME:
                os.utime(path, (made, made))

    def file(self, path: Path, output: Path, *others: Any) -> File:
        """One that is fetched and sent where it has an address: what `restore_tree` takes as `kind`."""
        if not (self.address(path) or self.address(output)):
            return File(path, output, *others)
        return RemoteFile(self, path, output, *others)


@contextmanager
def mirrored(*folders: Path) -> Iterator[Mirror]:
    """The mirror of these folders, until the end of the block. Errors inside it name addresses."""
    with TemporaryDirectory(prefix="mofme-") as root:
        mirror = Mirror(Path(root))
        for folder in folders:
            mirror.fill(folder)
        try:
            yield mirror
        except PictureError as error:
            raise type(error)(mirror.in_words(str(error))) from error


class RemoteFile(File):
    """A file whose source or output has an address. It goes through the mirror's folder, on whatever machine."""

    def __init__(self, mirror: Mirror, path: Path, output: Path, *others: Any) -> None:
        super().__init__(path, output, *others)
        self._mirror = mirror
        self._time = path.stat().st_mtime_ns
        self._source, self._target = mirror.address(path), mirror.address(output)

    def read(self) -> None:
        if self._source and not (self.report.skipped or self.report.error):
            with self._step():
                self.path.parent.mkdir(parents=True, exist_ok=True)
                fetch(self._source, self.path)
                os.utime(self.path, ns=(self._time, self._time))
        super().read()

    def write(self) -> FileReport:
        super().write()
        if self._target and self._is_written and self.report.source:
            with self._step():
                send(self.output, self._target)
        if not self.report.skipped:
            for path in (self.path,) * bool(self._source) + (self.output,) * bool(self._target):
                path.unlink(missing_ok=True)
        return replace(self.report, error=self._mirror.in_words(self.report.error))


def fetch(address: str, path: Path) -> None:
    """Copy what lies at an address to `path`."""
    system, name = url_to_fs(address)
    system.get_file(name, str(path))


def send(path: Path, address: str) -> None:
    """Copy a file to an address. In an object store such as S3 it appears whole or not at all."""
    system, name = url_to_fs(address)
    system.put_file(str(path), name)


def _time(about: dict[str, Any]) -> float:
    """Seconds since 1970, or 0 where the file system does not tell."""
    time = next((about[name] for name in _TIMES if about.get(name)), 0.0)
    time = datetime.fromisoformat(time) if isinstance(time, str) else time
    return time.timestamp() if isinstance(time, datetime) else float(time)
