"""Restore a folder of pictures and videos into a mirrored one: resumable, and never stopped by one bad file."""

import os
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from mofme.errors import Cancelled, PictureError
from mofme.files import find_files
from mofme.vision.hidden import restore_seen
from mofme.vision.picture.decode import Picture
from mofme.vision.picture.file import FORMATS, READABLE_SUFFIXES, read_picture, write_picture
from mofme.vision.report import (
    REPORT,
    FileReport,
    Row,
    as_written,
    earlier_rows_if_any,
    has_time_of,
    version_of,
    why_it_stays,
    write_report,
)
from mofme.vision.restorer import Restoration
from mofme.vision.video import RestoredFrame, read_ahead, restore_video
from mofme.vision.video_file import CONTAINERS, VIDEO_SUFFIXES

__all__ = ["FileReport", "output_suffix", "plan_tree", "restore_file", "restore_tree", "write_report"]

_LARGE = 25e6  # pixels: more than one such picture in memory may be too much


def plan_tree(source: Path, target: Path, format: str | None = None) -> list[tuple[Path, Path]]:
    """Pair every picture and video under `source` with its output under `target`, which may lie inside `source`.

    With a `format` the suffix of pictures changes, and `a.jpg` that would meet another's `a.png` becomes `a.jpg.png`.
    A name that the report in `target` tells of stays with its file, whatever came or went beside it since.
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
    names = _output_names([path.relative_to(source) for path in inputs], format, target, source)
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

    Outputs appear whole or not at all, with the time of their source. One that exists is skipped, unless `overwrite` or
    its source was edited since; if it was made with other settings, the report's note says so. Closing the iterator
    stops the work. `on_progress` is told the file and the share of it that is done. Raises PictureError as
    `plan_tree` does, at once; a bad file is only reported.

    While a picture is restored, the next is read and the last one written, each in another thread. A report is due when
    its file is written, and before the next one is: so whoever stops the work has been told of all there is.
    """
    plan = plan_tree(source, target, format)
    settings = {"strength": strength, "ensemble": ensemble, "tile": tile}
    made_with = _made_with(restorer, strength, ensemble)
    rows = earlier_rows_if_any(target / REPORT)

    def opened() -> Iterator[_File]:
        for path, output in plan:
            names = path.relative_to(source).as_posix(), output.relative_to(target).as_posix()
            file = _File(path, output, FileReport(*names), made_with)
            if not overwrite:
                file.skip(rows.get((as_written(names[0]), as_written(names[1]))))
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
    file = _File(path, output, FileReport(str(path), str(output)), _made_with(restorer, strength, ensemble))
    file.read(max_megapixels)
    file.restore(restorer, max_megapixels, on_progress, strength=strength, ensemble=ensemble, tile=tile)
    return file.write(format)


class _File:
    """A picture or video on its way from `path` to `output`, in three steps, which may run in different threads.

    A video is done whole in the second.
    """

    def __init__(self, path: Path, output: Path, report: FileReport, made_with: str) -> None:
        self.path, self.output, self.report, self._made_with = path, output, report, made_with
        self._about: tuple[os.stat_result, str] | None = None
        self._is_written = False
        self._is_video = path.suffix.lower() in VIDEO_SUFFIXES
        self._picture: Picture | None = None

    def is_alone(self) -> bool:
        """Whether nothing should be read or written meanwhile: it takes too much memory for that, or hours."""
        return self._is_video or (self._picture is not None and self._picture.rgb[0].numel() > _LARGE)

    def skip(self, row: Row | None) -> None:
        """Leave it out if the output is there; `row` is what an earlier report says of it."""
        with self._step():
            if self.output.exists():
                stays, note = why_it_stays(self.path, self.output, row, self._made_with)
                self.report = replace(self.report, skipped=stays, note=note)

    def read(self, max_megapixels: float) -> None:
        if self.report.skipped or self.report.error:
            return
        with self._step():
            self._about = self.path.stat(), version_of(self.path)
            if not self._is_video:
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
                self._is_written = True
                return
            picture = self._picture
            result = restore_seen(restorer, picture.rgb, picture.visible, on_progress=on_progress, **settings)
            self._picture = replace(self._picture, rgb=result.image)
            height, width = result.image.shape[1:]
            self.report = replace(
                self.report,
                width=width,
                height=height,
                weather=result.weather_name,
                uncertainty=result.mean_uncertainty,
                note="; ".join(picture.notes),
            )

    def write(self, format: str | None) -> FileReport:
        if self._picture is not None and not self.report.error:
            with self._step():
                write_picture(self.output, self._picture.rgb, self._picture, format or self._picture.format)
                self._is_written = True
        if self._about and self._is_written:
            about, source = self._about
            with self._step():
                os.utime(self.output, ns=(about.st_atime_ns, about.st_mtime_ns))
                self.report = replace(self.report, source=source, settings=self._made_with)
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


def _output_names(names: list[Path], format: str | None, target: Path, source: Path) -> list[Path]:
    """A name for the output of each: the one it has by the report of an earlier run, else a free one."""
    rows = earlier_rows_if_any(target / REPORT)
    suffixes = [output_suffix(name, format) for name in names]
    renamed = [name.with_suffix(suffix) for name, suffix in zip(names, suffixes, strict=True)]
    inputs = {as_written(name.as_posix()) for name in names}
    owned: dict[str, str] = {}  # output, as file systems compare that ignore case, to file
    for file, output in rows:
        if output and (file in inputs or (target / output).exists()):
            owned.setdefault(output.casefold(), file)
    for name, new in zip(names, renamed, strict=True):
        # Of a run that was killed before it could report: outputs have the time of what they were made of.
        if name != new and not has_time_of(source / new, target / new) and has_time_of(source / name, target / new):
            owned.setdefault(new.as_posix().casefold(), as_written(name.as_posix()))
    # Compared as file systems do that ignore case.
    often = Counter(str(name).casefold() for name in renamed)
    taken = {str(name).casefold() for name, new in zip(names, renamed, strict=True) if name == new}
    found = []
    for name, new, suffix in zip(names, renamed, suffixes, strict=True):
        file, free = as_written(name.as_posix()), new

        def is_mine(path: Path, file: str = file) -> bool | None:
            owner = owned.get(as_written(path.as_posix()).casefold())
            return None if owner is None else owner == file

        longer = name.with_name(name.name + suffix)
        if own := next((path for path in (new, longer) if is_mine(path)), None):
            free = own
        elif is_mine(new) is False or (name != new and often[str(new).casefold()] > 1):
            free = longer
            while str(free).casefold() in taken or is_mine(free) is False:
                free = free.with_name(free.name + suffix)
        taken.add(str(free).casefold())
        found.append(free)
    return found


def _made_with(restorer: Callable[..., Restoration], strength: float, ensemble: bool) -> str:
    """What an output depends on besides its source, for people to read and for programs to compare."""
    version = getattr(restorer, "version", "") or type(restorer).__name__
    return f"{version}, strength {strength:g}" + (", ensemble" if ensemble else "")


def output_suffix(name: Path, format: str | None) -> str:
    """The suffix for what becomes of this picture or video, with `format` for pictures."""
    own = name.suffix.lower()
    if own in VIDEO_SUFFIXES:
        return name.suffix if own in CONTAINERS else ".mp4"
    if format is None or FORMATS.get(own) == FORMATS[f".{format.lower()}"]:
        return name.suffix
    return f".{format.lower()}"
