"""Restore a folder of pictures and videos into a mirrored one: resumable, and never stopped by one bad file."""

import os
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from mofme.errors import Cancelled, MofmeError
from mofme.files import check_can_hold, clear_left, in_words, printable
from mofme.vision.picture.decode import Picture
from mofme.vision.picture.file import FORMATS, read_to_keep, write_frames
from mofme.vision.report import REPORT, FileReport, Row, earlier_rows_if_any, plan_tree, version_of, why_it_stays
from mofme.vision.restorer import Restoration, TemporalSmoother, restore_seen
from mofme.vision.video import RestoredFrame, read_ahead, restore_video
from mofme.vision.video_file import VIDEO_SUFFIXES

_LARGE = 25e6  # pixels: more than one such picture in memory may be too much


@dataclass(frozen=True)
class BatchSettings:
    """How files are restored: `strength`, `ensemble` and `tile` as by a Restorer.

    Pictures are written in `format`, or else their own; those above `max_megapixels` are refused. Outputs that are
    there stay, unless `overwrite`.
    """

    strength: float = 1.0
    ensemble: bool = False
    tile: int | None = None
    format: str | None = None
    overwrite: bool = False
    max_megapixels: float = 100

    def made_with(self, restorer: Callable[..., Restoration]) -> str:
        """What an output depends on besides its source, for people to read and for programs to compare."""
        version = getattr(restorer, "version", "") or type(restorer).__name__
        return f"{version}, strength {self.strength:g}" + (", ensemble" if self.ensemble else "")


def restore_tree(
    restorer: Callable[..., Restoration],
    source: Path,
    target: Path,
    settings: BatchSettings = BatchSettings(),
    *,
    on_progress: Callable[[Path, float], None] = lambda path, done: None,
    kind: "Callable[..., File] | None" = None,
) -> Iterator[FileReport]:
    """Restore everything under `source` into the same place under `target`, yielding each report when it is due.

    Outputs appear whole or not at all, with the time of their source. One that exists is skipped, unless it is to be
    overwritten or its source was edited since; if it was made with other settings, the report's note says so. Raises
    PictureError as `plan_tree` does, at once; a bad file is only reported. `on_progress` is told file and share done.

    While a picture is restored, the next is read and the last one written, each in another thread. A report is due when
    its file is written, before the next one is: whoever stops the work, by closing, has been told of all there is.
    """
    plan = plan_tree(source, target, settings.format)
    files = open_files(plan, source, target, settings, settings.made_with(restorer), kind)
    return restore_files(restorer, files, on_progress)


def open_files(
    plan: Sequence[tuple[Path, Path]],
    source: Path,
    target: Path,
    settings: BatchSettings,
    made_with: str,
    kind: "Callable[..., File] | None" = None,
) -> Iterator["File"]:
    """The files of a plan, those left out whose output is there already; `kind` makes one, where it is no File."""
    for folder in {target, *(output.parent for _, output in plan)}:
        clear_left(folder)
    rows = earlier_rows_if_any(target / REPORT)
    for path, output in plan:
        names = path.relative_to(source).as_posix(), output.relative_to(target).as_posix()
        file = (kind or File)(path, output, FileReport(*names), settings, made_with)
        if not settings.overwrite:
            file.skip(rows.get((printable(names[0]), printable(names[1]))))
        yield file


def restore_files(
    restorer: Callable[..., Restoration],
    files: Iterable["File"],
    on_progress: Callable[[Path, float], None] = lambda path, done: None,
) -> Iterator[FileReport]:
    """Restore these files as `restore_tree` does, each report when it is due."""

    def read() -> Iterator[File]:
        for file in files:
            file.read()
            yield file

    written: list[Future[FileReport]] = []

    def told() -> Iterator[FileReport]:
        if written:
            report = written[0].result()
            written.clear()
            yield report

    with ThreadPoolExecutor(1) as writer, closing(read_ahead(read(), File.is_alone)) as ready:
        try:
            for file in ready:
                if file.is_alone():
                    yield from told()
                file.restore(restorer, partial(on_progress, file.path))
                yield from told()
                written.append(writer.submit(file.write))
                if file.is_alone():
                    yield from told()
        finally:
            yield from told()


def restore_file(
    restorer: Callable[..., Restoration],
    path: Path,
    output: Path,
    settings: BatchSettings = BatchSettings(),
    on_progress: Callable[[float], None] | None = None,
) -> FileReport:
    """Restore one picture, whatever the suffixes say of its format, or one video, in the place of what is at `output`.

    What goes wrong is in the report; only Cancelled and KeyboardInterrupt are raised.
    """
    file = File(path, output, FileReport(str(path), str(output)), settings, settings.made_with(restorer))
    clear_left(output.parent)
    file.read()
    file.restore(restorer, on_progress)
    return file.write()


def restore_frames(
    restorer: Callable[..., Restoration],
    frames: Sequence[Picture],
    on_progress: Callable[[float], None] | None = None,
    **settings: Any,
) -> list[Restoration]:
    """What `restorer` makes of each picture, under these settings; frames of an animation with a steady brightness."""
    if len(frames) > 1 and frames[0].duration is not None:
        settings["steady"] = TemporalSmoother()

    def tell(number: int) -> Callable[[float], None] | None:
        return on_progress and (lambda share: on_progress((number + share) / len(frames)))

    return [
        restore_seen(restorer, frame.rgb, frame.visible, on_progress=tell(number), **settings)
        for number, frame in enumerate(frames)
    ]


class File:
    """A picture or video on its way from `path` to `output`, in three steps, which may run in different threads: a
    video is done whole in the second.
    """

    def __init__(self, path: Path, output: Path, report: FileReport, settings: BatchSettings, made_with: str) -> None:
        self.path, self.output, self.report = path, output, report
        self._settings, self._made_with = settings, made_with
        self._about: tuple[os.stat_result, str] | None = None
        self._is_written = False
        self._is_video = path.suffix.lower() in VIDEO_SUFFIXES
        self._frames: list[Picture] = []

    def is_alone(self) -> bool:
        """Whether nothing should be read or written meanwhile: it takes too much memory for that, or hours."""
        return self._is_video or sum(frame.rgb[0].numel() for frame in self._frames) > _LARGE

    def skip(self, row: Row | None) -> None:
        """Leave it out if the output is there; `row` is what an earlier report says of it."""
        with self._step():
            check_can_hold(self.output)
            if self.output.exists():
                stays, note = why_it_stays(self.path, self.output, row, self._made_with)
                self.report = replace(self.report, skipped=stays, note=note)

    def read(self) -> None:
        if self.report.skipped or self.report.error:
            return
        with self._step():
            check_can_hold(self.output)  # what is not possible is said before the work
            self._about = self.path.stat(), version_of(self.path)
            if not self._is_video:
                wanted = self._settings.format
                kind = FORMATS[f".{wanted.lower()}"] if wanted else None
                self._frames = read_to_keep(self.path, self.output, kind, self._settings.max_megapixels)

    def restore(self, restorer: Callable[..., Restoration], on_progress: Callable[[float], None] | None) -> None:
        if self.report.skipped or self.report.error:
            return
        how, most = self._settings, self._settings.max_megapixels
        settings: dict[str, Any] = {"strength": how.strength, "ensemble": how.ensemble, "tile": how.tile}
        with self._step():
            if self._is_video:
                frames = restore_video(restorer, self.path, self.output, max_megapixels=most, **settings)
                self.report = _follow(frames, self.path, self.report, on_progress)
                self._is_written = True
                return
            restored = restore_frames(restorer, self._frames, on_progress, **settings)
            pairs = zip(self._frames, restored, strict=True)
            self._frames = [replace(frame, rgb=one.image) for frame, one in pairs]
            height, width = restored[0].image.shape[1:]
            ((weather, _),) = Counter(one.weather_name for one in restored).most_common(1)
            self.report = replace(
                self.report,
                width=width,
                height=height,
                weather=weather,
                uncertainty=sum(one.mean_uncertainty for one in restored) / len(restored),
                note="; ".join(filter(None, (self.report.note, *self._frames[0].notes))),
            )

    def write(self) -> FileReport:
        if self._frames and not self.report.error:
            with self._step():
                write_frames(self.output, self._frames, self._settings.format or self._frames[0].format)
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
            old, why = self.report, str(error) or repr(error)
            if isinstance(error, OSError):
                why = in_words(error, self.path)
            elif not isinstance(error, MofmeError):  # which names the file
                why = f"{self.path}: cannot be restored ({why})."
            self.report = FileReport(old.file, old.output, seconds=old.seconds, error=why)
        self.report = replace(self.report, seconds=self.report.seconds + time.perf_counter() - start)


def _follow(
    frames: Generator[RestoredFrame], path: Path, report: FileReport, on_progress: Callable[[float], None] | None
) -> FileReport:
    """Have a video restored. Frames that could not be read are an error, though the output holds all others."""
    with closing(frames):
        for frame in frames:
            if on_progress is not None:
                on_progress(min(frame.number / max(frame.frames, 1), 1.0))
    width, height = frame.size
    ((weather, _),) = frame.weathers.most_common(1)
    verb = "is" if frame.damaged == 1 else "are"
    missing = f"{path}: {frame.damaged} of its parts could not be read and {verb} missing in the result."
    return replace(
        report,
        width=width,
        height=height,
        weather=weather,
        uncertainty=frame.uncertainty,
        note="; ".join(filter(None, (report.note, *frame.notes))),
        error=missing if frame.damaged else "",
    )
