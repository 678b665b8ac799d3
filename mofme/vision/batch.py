"""Restore a folder of pictures and videos into a mirrored one: resumable, and never stopped by one bad file."""

import csv
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from mofme.errors import Cancelled, PictureError
from mofme.files import atomic_file, find_files
from mofme.vision.picture.file import FORMATS, READABLE_SUFFIXES, read_picture, write_picture
from mofme.vision.restorer import Restoration
from mofme.vision.video import RestoredFrame, restore_video
from mofme.vision.video_file import CONTAINERS, VIDEO_SUFFIXES

_COLUMNS = ("file", "output", "size", "seconds", "weather", "uncertainty", "error", "skipped")


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


def plan_tree(source: Path, target: Path, format: str | None = None) -> list[tuple[Path, Path]]:
    """Pair every picture and video under `source` with its output under `target`, which may lie inside `source`.

    With a `format` the suffix of pictures changes, and `a.jpg` that would meet another's `a.png` becomes `a.jpg.png`.
    Videos keep theirs, except of kinds that are only read, which become `.mp4`.
    Raises PictureError if `source` is no folder, the format is unknown, or an output would replace an input.
    """
    if not source.is_dir():
        raise PictureError(f"{source}: is not a folder.")
    if format and f".{format.lower()}" not in FORMATS:
        raise PictureError(f"cannot write {format!r}; choose one of {', '.join(FORMATS)}.")
    if target.exists() and target.samefile(source):
        raise PictureError(f"{target}: the results need another folder than the pictures, or they would replace them.")
    inputs = find_files(source, READABLE_SUFFIXES | VIDEO_SUFFIXES)
    if target.resolve().is_relative_to(source.resolve()):  # earlier results are no inputs
        inputs = [path for path in inputs if not path.resolve().is_relative_to(target.resolve())]
    names = _output_names([path.relative_to(source) for path in inputs], format)
    plan = [(path, target / name) for path, name in zip(inputs, names, strict=True)]
    originals = {path.resolve() for path in inputs}
    for path, output in plan:
        if output.resolve() in originals:
            raise PictureError(f"{output}: the result of {path} would replace this picture; choose another folder.")
    return plan


def restore_tree(
    restorer: Callable[..., Restoration],
    source: Path,
    target: Path,
    *,
    strength: float = 1.0,
    ensemble: bool = False,
    tile: int | None = None,
    overwrite: bool = False,
    format: str | None = None,
    max_megapixels: float = 100,
    on_progress: Callable[[Path, float], None] = lambda path, done: None,
) -> Iterator[FileReport]:
    """Restore everything under `source` into the same place under `target`, yielding each report when it is due.

    Outputs appear whole or not at all, so one that exists is finished and skipped, unless `overwrite`. Closing the
    iterator stops the work. `on_progress` is told the file and the share of it that is done. Raises PictureError as
    `plan_tree` does, at once; a bad file is only reported.
    """
    plan = plan_tree(source, target, format)

    def work() -> Iterator[FileReport]:
        for path, output in plan:
            if output.exists() and not overwrite:
                report = FileReport(str(path), str(output), skipped=True)
            else:
                report = restore_file(
                    restorer,
                    path,
                    output,
                    strength=strength,
                    ensemble=ensemble,
                    tile=tile,
                    format=format,
                    max_megapixels=max_megapixels,
                    on_progress=partial(on_progress, path),
                )
            relative = path.relative_to(source).as_posix(), output.relative_to(target).as_posix()
            yield replace(report, file=relative[0], output=relative[1])

    return work()


def restore_file(
    restorer: Callable[..., Restoration],
    path: Path,
    output: Path,
    *,
    strength: float = 1.0,
    ensemble: bool = False,
    tile: int | None = None,
    format: str | None = None,
    max_megapixels: float = 100,
    on_progress: Callable[[float], None] | None = None,
) -> FileReport:
    """Restore one picture to `output` in its own format, whatever the suffixes say, or in `format`; or one video.

    What goes wrong is in the report; only Cancelled and KeyboardInterrupt are raised.
    """
    start = time.perf_counter()
    report = FileReport(str(path), str(output))
    settings: dict[str, Any] = {"strength": strength, "ensemble": ensemble, "tile": tile}
    try:
        if path.suffix.lower() in VIDEO_SUFFIXES:
            frames = restore_video(restorer, path, output, max_megapixels=max_megapixels, **settings)
            report = _follow(frames, report, on_progress)
        else:
            picture = read_picture(path, max_megapixels)
            result = restorer(picture.rgb, on_progress=on_progress, **settings)
            write_picture(output, result.image, picture, format or picture.format)
            height, width = picture.rgb.shape[1:]
            report = replace(
                report,
                width=width,
                height=height,
                weather=result.weather_name,
                uncertainty=result.mean_uncertainty,
            )
    except Cancelled:
        raise
    # Whatever befalls one file, the net running out of memory included, the others go on.
    except Exception as error:
        report = replace(report, error=str(error) or repr(error))
    return replace(report, seconds=time.perf_counter() - start)


def _follow(
    frames: Generator[RestoredFrame], report: FileReport, on_progress: Callable[[float], None] | None
) -> FileReport:
    """Have a video restored. Frames that could not be read are an error, though the output holds all others."""
    weathers: Counter[str] = Counter()
    uncertainty = 0.0
    with closing(frames):
        for frame in frames:
            weathers[frame.restoration.weather_name] += 1
            uncertainty += frame.restoration.mean_uncertainty
            if on_progress is not None:
                on_progress(min(frame.number / max(frame.frames, 1), 1.0))
    height, width = frame.restoration.image.shape[-2:]
    ((weather, _),) = weathers.most_common(1)
    verb = "is" if frame.damaged == 1 else "are"
    missing = f"{report.file}: {frame.damaged} of its parts could not be read and {verb} missing in the result."
    return replace(
        report,
        width=width,
        height=height,
        weather=weather,
        uncertainty=uncertainty / frame.number,
        error=missing if frame.damaged else "",
    )


def write_report(path: Path, reports: Iterable[FileReport]) -> None:
    """Write or update report.csv atomically, one row a file, sorted.

    Of a run that resumes an earlier one, the earlier rows stay for files it skipped or has not come to. Raises
    PictureError if it cannot be written, or if `path` holds something else, which stays as it is.
    """
    try:
        rows = _earlier_rows(path)
    except OSError as error:
        raise PictureError(f"{path}: the earlier report cannot be read ({error}).") from error
    for report in reports:
        # As an earlier report holds them.
        source, output = (name.encode("utf-8", "backslashreplace").decode() for name in (report.file, report.output))
        earlier = rows.get(source)
        if report.skipped and earlier and earlier["output"] == output and not earlier["error"]:
            continue
        rows[source] = {
            "file": source,
            "output": output,
            "size": f"{report.width}x{report.height}" if report.width else "",
            "seconds": f"{report.seconds:.3f}",
            "weather": report.weather,
            "uncertainty": f"{report.uncertainty:.4f}" if report.width else "",
            "error": " ".join(report.error.split()),
            "skipped": "yes" if report.skipped else "no",
        }
    try:
        with atomic_file(path, "w", errors="backslashreplace") as text:
            writer = csv.DictWriter(text, _COLUMNS)
            writer.writeheader()
            writer.writerows(rows[name] for name in sorted(rows))
    except OSError as error:
        raise PictureError(f"{path}: the report cannot be written ({error}).") from error


def _earlier_rows(path: Path) -> dict[str, dict[str, str]]:
    try:
        with path.open(encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file)
            if tuple(reader.fieldnames or ()) == _COLUMNS:
                return {row["file"]: {column: row[column] or "" for column in _COLUMNS} for row in reader}
    except FileNotFoundError:
        return {}
    except (UnicodeDecodeError, csv.Error):
        pass
    raise PictureError(
        f"{path}: is no report of this program, and will not be replaced: move it, or choose another folder."
    )


def _output_names(names: list[Path], format: str | None) -> list[Path]:
    suffixes = [output_suffix(name, format) for name in names]
    renamed = [name.with_suffix(suffix) for name, suffix in zip(names, suffixes, strict=True)]
    # Compared as file systems do that ignore case.
    often = Counter(str(name).casefold() for name in renamed)
    taken = {str(name).casefold() for name, new in zip(names, renamed, strict=True) if name == new}
    unique = []
    for name, new, suffix in zip(names, renamed, suffixes, strict=True):
        if name != new and often[str(new).casefold()] > 1:
            new = name.with_name(name.name + suffix)
            while str(new).casefold() in taken:
                new = new.with_name(new.name + suffix)
            taken.add(str(new).casefold())
        unique.append(new)
    return unique


def output_suffix(name: Path, format: str | None) -> str:
    """The suffix for what becomes of this picture or video, with `format` for pictures."""
    own = name.suffix.lower()
    if own in VIDEO_SUFFIXES:
        return name.suffix if own in CONTAINERS else ".mp4"
    if format is None or FORMATS.get(own) == FORMATS[f".{format.lower()}"]:
        return name.suffix
    return f".{format.lower()}"
