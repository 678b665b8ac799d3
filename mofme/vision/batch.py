"""Restore a folder of pictures and videos into a mirrored one: resumable, and never stopped by one bad file."""

import csv
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from mofme.errors import Cancelled, PictureError
from mofme.files import atomic_file, find_files
from mofme.vision.hidden import restore_seen
from mofme.vision.picture.decode import Picture
from mofme.vision.picture.file import FORMATS, READABLE_SUFFIXES, read_picture, write_picture
from mofme.vision.restorer import Restoration
from mofme.vision.video import RestoredFrame, read_ahead, restore_video
from mofme.vision.video_file import CONTAINERS, VIDEO_SUFFIXES

_LARGE = 25e6  # pixels: more than one such picture in memory may be too much
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

    While a picture is restored, the next is read and the last one written, each in another thread. A report is due when
    its file is written, and before the next one is: so whoever stops the work has been told of all there is.
    """
    plan = plan_tree(source, target, format)
    settings = {"strength": strength, "ensemble": ensemble, "tile": tile}

    def opened() -> Iterator[_File]:
        for path, output in plan:
            names = path.relative_to(source).as_posix(), output.relative_to(target).as_posix()
            file = _File(path, output, FileReport(*names, skipped=output.exists() and not overwrite))
            file.read(max_megapixels)
            yield file

    def work() -> Iterator[FileReport]:
        written: list[Future[FileReport]] = []

        def told() -> Iterator[FileReport]:
            if written:
                report = written[0].result()
                written.clear()
                yield report

        with ThreadPoolExecutor(1) as writer, closing(read_ahead(opened(), _File.is_alone)) as files:
            try:
                for file in files:
                    if file.is_alone():
                        yield from told()
                    file.restore(restorer, max_megapixels, partial(on_progress, file.path), **settings)
                    yield from told()
                    written.append(writer.submit(file.write, format))
                    if file.is_alone():
                        yield from told()
            finally:
                yield from told()

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
    file = _File(path, output, FileReport(str(path), str(output)))
    file.read(max_megapixels)
    file.restore(restorer, max_megapixels, on_progress, strength=strength, ensemble=ensemble, tile=tile)
    return file.write(format)


class _File:
    """A picture or video on its way from `path` to `output`, in three steps, which may run in different threads.

    A video is done whole in the second.
    """

    def __init__(self, path: Path, output: Path, report: FileReport) -> None:
        self.path, self.output, self.report = path, output, report
        self._is_video = path.suffix.lower() in VIDEO_SUFFIXES
        self._picture: Picture | None = None

    def is_alone(self) -> bool:
        """Whether nothing should be read or written meanwhile: it takes too much memory for that, or hours."""
        return self._is_video or (self._picture is not None and self._picture.rgb[0].numel() > _LARGE)

    def read(self, max_megapixels: float) -> None:
        if not (self.report.skipped or self._is_video):
            with self._step():
                self._picture = read_picture(self.path, max_megapixels)

    def restore(
        self,
        restorer: Callable[..., Restoration],
        max_megapixels: float,
        on_progress: Callable[[float], None] | None,
        **settings: Any,
    ) -> None:
        if self.report.skipped or self.report.error:
            return
        with self._step():
            if self._picture is None:
                frames = restore_video(restorer, self.path, self.output, max_megapixels=max_megapixels, **settings)
                self.report = _follow(frames, self.path, self.report, on_progress)
                return
            picture = self._picture
            result = restore_seen(restorer, picture.rgb, picture.alpha, on_progress=on_progress, **settings)
            self._picture = replace(self._picture, rgb=result.image)
            height, width = result.image.shape[1:]
            self.report = replace(
                self.report,
                width=width,
                height=height,
                weather=result.weather_name,
                uncertainty=result.mean_uncertainty,
            )

    def write(self, format: str | None) -> FileReport:
        if self._picture is not None and not self.report.error:
            with self._step():
                write_picture(self.output, self._picture.rgb, self._picture, format or self._picture.format)
        return self.report

    @contextmanager
    def _step(self) -> Iterator[None]:
        """Adds its time to the report, and what goes wrong."""
        start = time.perf_counter()
        try:
            yield
        except Cancelled:
            raise
        # Whatever befalls one file, the net running out of memory included, the others go on.
        except Exception as error:
            old = self.report
            self.report = FileReport(old.file, old.output, seconds=old.seconds, error=str(error) or repr(error))
        self.report = replace(self.report, seconds=self.report.seconds + time.perf_counter() - start)


def _follow(
    frames: Generator[RestoredFrame], path: Path, report: FileReport, on_progress: Callable[[float], None] | None
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
    missing = f"{path}: {frame.damaged} of its parts could not be read and {verb} missing in the result."
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
