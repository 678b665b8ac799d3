"""What became of each file of a folder, as a table beside the results: it also tells the next run whose they are."""

import csv
import os
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from mofme.errors import PictureError
from mofme.files import write_table

REPORT = "report.csv"
_FIRST = ("file", "output", "size", "seconds", "weather", "uncertainty", "error", "skipped")
_COLUMNS = (*_FIRST, "note", "source", "settings")
_SAME_TIME = 2.0  # seconds: what the coarsest file systems keep of a file's time

Row = dict[str, str]


@dataclass(frozen=True)
class FileReport:
    """What became of one picture or video. Paths are relative, with forward slashes; a file skipped or failed has no
    figures. Of a video, `weather` is that of most frames, and `uncertainty` their mean.
    """

    file: str
    output: str
    width: int = 0
    height: int = 0
    seconds: float = 0.0
    weather: str = ""
    uncertainty: float = 0.0
    error: str = ""  # empty: all is well
    skipped: bool = False  # the output was there already
    note: str = ""  # what else one should know of the output
    source: str = ""  # size and time of the file that the output was made of
    settings: str = ""  # what it was made with

    @property
    def reason(self) -> str:
        """The error without the name of the file at its start, for where that stands already."""
        head, colon, rest = self.error.partition(": ")
        return rest if colon and os.path.basename(head) == os.path.basename(self.file) else self.error


def version_of(path: Path) -> str:
    """Size and time of a file: what differs once it was edited."""
    about = path.stat()
    return f"{about.st_size} bytes, {datetime.fromtimestamp(about.st_mtime_ns // 1000 / 1e6, UTC).isoformat()}"


def has_time_of(path: Path, other: Path) -> bool:
    """Whether both files are there and of one time."""
    try:
        return abs(path.stat().st_mtime - other.stat().st_mtime) <= _SAME_TIME
    except OSError:
        return False


def why_it_stays(source: Path, output: Path, row: Row | None, settings: str) -> tuple[bool, str]:
    """Whether an earlier `output` stays, and what to tell of it; `row` is the earlier report's.

    An edited `source` is restored again, but never over an output that was changed by other hands.
    """
    if row is None or not row["source"]:
        newer = source.stat().st_mtime > output.stat().st_mtime + _SAME_TIME
        return True, "older than its source, and by no report made here; --overwrite replaces it" if newer else ""
    if row["source"] != version_of(source):
        made = datetime.fromisoformat(row["source"].rpartition(", ")[2]).timestamp()
        if abs(output.stat().st_mtime - made) <= _SAME_TIME:
            return False, ""
        return True, "source and result were both changed since; --overwrite replaces the result"
    if row["settings"] != settings:
        return True, f"made with other settings ({row['settings']}); --overwrite makes it anew"
    return True, ""


def write_report(path: Path, reports: Iterable[FileReport]) -> None:
    """Write or update report.csv atomically, one row a file and output, sorted.

    Of a run that resumes an earlier one, the earlier rows stay for files it skipped or has not come to. Raises
    PictureError if it cannot be written, or if `path` holds something else, which stays as it is.
    """
    try:
        rows = earlier_rows(path)
    except OSError as error:
        raise PictureError(f"{path}: the earlier report cannot be read ({error}).") from error
    for report in reports:
        key = as_written(report.file), as_written(report.output)
        earlier = rows.get(key)
        if report.skipped and earlier and not earlier["error"]:
            continue
        made = {"source": report.source, "settings": report.settings}
        if report.error and not report.source and earlier:  # an earlier output stays
            made = {name: earlier[name] for name in made}
        rows[key] = {
            "file": key[0],
            "output": key[1],
            "size": f"{report.width}x{report.height}" if report.width else "",
            "seconds": f"{report.seconds:.3f}",
            "weather": report.weather,
            "uncertainty": f"{report.uncertainty:.4f}" if report.width else "",
            "error": " ".join(report.error.split()),
            "skipped": "yes" if report.skipped else "no",
            "note": report.note,
            **made,
        }
    try:
        write_table(path, [_COLUMNS, *([rows[name][column] for column in _COLUMNS] for name in sorted(rows))])
    except OSError as error:
        raise PictureError(f"{path}: the report cannot be written ({error}).") from error


def as_written(name: str) -> str:
    """A name as a report holds it: what is not Unicode escaped."""
    return name.encode("utf-8", "backslashreplace").decode()


def earlier_rows(path: Path) -> dict[tuple[str, str], Row]:
    """The rows of a report by file and output, none if it is not there. Raises PictureError for another file."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file)
            if tuple(reader.fieldnames or ()) in (_COLUMNS, _FIRST):
                rows = ({column: row.get(column) or "" for column in _COLUMNS} for row in reader)
                return {(row["file"], row["output"]): row for row in rows}
    except FileNotFoundError:
        return {}
    except (UnicodeDecodeError, csv.Error):
        pass
    raise PictureError(
        f"{path}: is no report of this program, and will not be replaced: move it, or choose another folder."
    )


def earlier_rows_if_any(path: Path) -> dict[tuple[str, str], Row]:
    """As `earlier_rows`; none if there is another file, or one that cannot be read."""
    try:
        return earlier_rows(path)
    except (PictureError, OSError):
        return {}
