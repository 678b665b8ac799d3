"""What became of each file of a folder, as a table beside the results: it also tells the next run whose they are, so
that the same output becomes of the same file in every run.
"""

import csv
import io
import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from unicodedata import normalize

from mofme.errors import PictureError
from mofme.files import check_can_hold, find_files, passed_by, printable, without_name, write_table
from mofme.vision.picture.file import FORMATS, FORMATS_AS_TYPED, READABLE_SUFFIXES
from mofme.vision.picture.kinds import is_left_out, left_out
from mofme.vision.video_file import CONTAINERS, VIDEO_SUFFIXES

REPORT = "report.csv"
_FIRST = ("file", "output", "size", "seconds", "weather", "uncertainty", "error", "skipped")
_COLUMNS = (*_FIRST, "note", "source", "settings")
_RESTORED = READABLE_SUFFIXES | VIDEO_SUFFIXES
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
        return without_name(self.error, self.file)


def version_of(path: Path) -> str:
    """Size and time of a file: what differs once it was edited."""
    about = path.stat()
    return f"{about.st_size} bytes, {datetime.fromtimestamp(about.st_mtime_ns // 1000 / 1e6, UTC).isoformat()}"


def time_of_source(row: Row) -> float | None:
    """Of the file that the output was made of, in seconds since 1970; None if a report does not tell, or was edited."""
    try:
        return datetime.fromisoformat(row["source"].rpartition(", ")[2]).timestamp()
    except (ValueError, OverflowError):
        return None


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
    about, written, made = source.stat(), output.stat().st_mtime, time_of_source(row) if row else None
    if row is None or made is None:
        newer = about.st_mtime > written + _SAME_TIME
        return True, "older than its source, and by no report made here; --overwrite replaces it" if newer else ""
    is_same_size = row["source"].partition(" ")[0] == str(about.st_size)
    if not is_same_size or abs(about.st_mtime - made) > _SAME_TIME:
        if abs(written - made) <= _SAME_TIME:
            return False, "it took the place of an earlier result, as its source was edited since or is another file"
        return True, "source and result were both changed since; --overwrite replaces the result"
    if row["settings"] != settings:
        return True, f"made with other settings ({row['settings']}); --overwrite makes it anew"
    return True, ""


def write_report(path: Path, reports: Iterable[FileReport]) -> None:
    """Write or update report.csv, sorted; earlier rows stay of files that a run skipped or has not come to.

    Raises PictureError if it cannot be written, or if `path` holds something else, which stays as it is.
    """
    try:
        rows = earlier_rows(path)
    except OSError as error:
        raise PictureError(f"{path}: the earlier report cannot be read ({error.strerror}).") from error
    for report in reports:
        key = printable(report.file), printable(report.output)
        earlier = rows.get(key)
        if report.skipped and earlier and (earlier["size"] or not earlier["error"]):  # of a video parts may be missing
            continue
        made = {"source": report.source, "settings": report.settings}
        if not report.source and earlier:  # an earlier output stays
            made = {name: earlier[name] for name in made}
        rows[key] = {
            "file": key[0],
            "output": key[1],
            "size": f"{report.width}x{report.height}" if report.width else "",
            "seconds": f"{report.seconds:.3f}",
            "weather": report.weather,
            "uncertainty": f"{report.uncertainty:.4f}" if report.width else "",
            "error": printable(" ".join(report.reason.split())),
            "skipped": "yes" if report.skipped else "no",
            "note": printable(report.note),
            **made,
        }
    try:
        write_table(path, [_COLUMNS, *([rows[name][column] for column in _COLUMNS] for name in sorted(rows))])
    except OSError as error:
        raise PictureError(f"{path}: the report cannot be written ({error.strerror}).") from error


def earlier_rows(path: Path) -> dict[tuple[str, str], Row]:
    """The rows of a report, also one that Excel saved, by file and output. Raises PictureError for another file."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            text = file.read()
        delimiter = max(",;\t", key=text.partition("\n")[0].count)
        reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter)
        if tuple(reader.fieldnames or ()) in (_COLUMNS, _FIRST):
            rows = ({column: printable(row.get(column) or "") for column in _COLUMNS} for row in reader)
            return {(row["file"], row["output"]): row for row in rows}
    except FileNotFoundError:
        return {}
    except (UnicodeDecodeError, csv.Error):
        pass
    why = "is no report of this program, and will not be replaced: move it, or choose another folder."
    raise PictureError(f"{path}: {why}")


def earlier_rows_if_any(path: Path) -> dict[tuple[str, str], Row]:
    """As `earlier_rows`; none if there is another file, or one that cannot be read."""
    try:
        return earlier_rows(path)
    except (PictureError, OSError):
        return {}


def plan_tree(source: Path, target: Path, format: str | None = None) -> list[tuple[Path, Path]]:
    """Pair every picture and video under `source` with its output under `target`, which may lie inside `source`.

    With a `format` the suffix of pictures changes, and `a.jpg` that would meet another's `a.png` becomes `a.jpg.png`;
    videos of kinds that are only read become `.mp4`. A name that the report in `target` tells of stays with its file.
    Earlier results, of which other reports under `source` tell, are left out. Raises PictureError if `source` is no
    folder, the format is unknown, or an output would replace an input.
    """
    if not source.is_dir():
        raise PictureError(f"{source}: is not a folder.")
    if format and f".{format.lower()}" not in FORMATS:
        raise PictureError(f"cannot write {format!r}; choose one of {FORMATS_AS_TYPED}.")
    if target.exists() and target.samefile(source):
        raise PictureError(f"{target}: the results need another folder than the pictures, or they would replace them.")
    try:
        check_can_hold(target / REPORT)
    except OSError as error:
        if not (target / REPORT).is_dir():  # which is told when it is read
            raise PictureError(str(error)) from error
    found = find_files(source, _RESTORED | {Path(REPORT).suffix})
    results, inside = _results_of(_reports_in(found, source)), target.resolve()
    inputs = [path for path in found if path.suffix.lower() in _RESTORED and printable(path.as_posix()) not in results]
    if inside.is_relative_to(source.resolve()):  # earlier results are no inputs
        inputs = [path for path in inputs if not path.resolve().is_relative_to(inside)]
    names = _output_names([path.relative_to(source) for path in inputs], format, target, source)
    plan = [(path, target / name) for path, name in zip(inputs, names, strict=True)]
    originals = {os.path.realpath(path) for path in inputs}  # resolve() stumbles over links that lead to themselves
    for path, output in plan:
        if os.path.realpath(output) in originals:
            raise PictureError(f"{output}: the result of {path} would replace this picture; choose another folder.")
    return plan


def others_in(source: Path, target: Path) -> str:
    """What else lies under `source`, beside what `plan_tree` finds there, in one line; empty if nothing does."""
    inside = target.resolve()
    found = [path for path in find_files(source, None, hidden=True) if not path.resolve().is_relative_to(inside)]
    reports = _reports_in(found, source)
    results = len(_results_of(reports).intersection(printable(path.as_posix()) for path in found))
    named = ", ".join(str(path.relative_to(source)) for path in reports[:5])
    what = "result" if results == 1 else "results"
    tell = "tells" if len(reports) == 1 else "tell"
    earlier = f"{results} {what} of an earlier run (of which {named} {tell})" if results else ""
    counted = left_out(path for path in found if is_left_out(path, _RESTORED) and path not in reports)
    return "; ".join(filter(None, (counted, earlier, passed_by(source))))


def _reports_in(files: Iterable[Path], source: Path) -> list[Path]:
    """Those of earlier runs whose results lie in folders of `source`; its own would be of a run with it as target."""
    return [path for path in files if path.name == REPORT and path.parent != source and earlier_rows_if_any(path)]


def _results_of(reports: Iterable[Path]) -> set[str]:
    """As they are written."""
    outputs = (path.parent / output for path in reports for _, output in earlier_rows_if_any(path) if output)
    return {printable(path.as_posix()) for path in outputs}


def _output_names(names: list[Path], format: str | None, target: Path, source: Path) -> list[Path]:
    """A name for the output of each: the one it has by the report of an earlier run, else a free one."""
    rows = earlier_rows_if_any(target / REPORT)
    suffixes = [output_suffix(name, format) for name in names]
    renamed = [name.with_suffix(suffix) for name, suffix in zip(names, suffixes, strict=True)]
    inputs = {printable(name.as_posix()) for name in names}
    owned: dict[str, str] = {}  # output to file
    for file, output in rows:
        if output and (file in inputs or (target / output).exists()):
            owned.setdefault(output, file)
    for name, new in zip(names, renamed, strict=True):
        # Of a run that was killed before it could report: outputs have the time of what they were made of.
        if name != new and not has_time_of(source / new, target / new) and has_time_of(source / name, target / new):
            owned.setdefault(printable(new.as_posix()), printable(name.as_posix()))
    folded = {_folded(output): file for output, file in reversed(owned.items())}
    often = Counter(map(_folded, renamed))
    keeps = {_folded(name): name for name, new in reversed([*zip(names, renamed, strict=True)]) if name == new}
    taken = set(keeps)
    found = []

    def owner(path: Path) -> str | None:
        output = printable(path.as_posix())
        return owned.get(output, folded.get(_folded(output)))

    for name, new, suffix in zip(names, renamed, suffixes, strict=True):
        file, longer = printable(name.as_posix()), name.with_name(name.name + suffix)
        free = next((path for path in (new, longer) if owner(path) == file), None)
        if free is None and owner(new) is None and (name == keeps.get(_folded(new)) or often[_folded(new)] == 1):
            free = new
        if free is None:
            free = longer
            while _folded(free) in taken or owner(free) not in (None, file):
                free = free.with_name(free.name + suffix)
        taken.add(_folded(free))
        found.append(free)
    return found


def _folded(name: Path | str) -> str:
    """Alike for names that some file systems do not tell apart: of other case, or with accents composed otherwise."""
    return normalize("NFC", str(name)).casefold()


def output_suffix(name: Path, format: str | None) -> str:
    """The suffix for what becomes of this picture or video, with `format` for pictures."""
    own = name.suffix.lower()
    if own in VIDEO_SUFFIXES:
        return name.suffix if own in CONTAINERS else ".mp4"
    if format is None or FORMATS.get(own) == FORMATS[f".{format.lower()}"]:
        return name.suffix
    return f".{format.lower()}"
