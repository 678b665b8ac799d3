"""Restores a video frame by frame, with a brightness that is kept steady; reading and writing go on beside it."""

from collections import Counter
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import av
from torch import Tensor

from mofme.errors import PictureError
from mofme.vision.restorer import Restoration, TemporalSmoother, restore_seen
from mofme.vision.video_file import CONTAINERS, VideoReader, read_video
from mofme.vision.video_segments import Checkpoint
from mofme.vision.video_writer import VideoWriter, write_video

T = TypeVar("T")


@dataclass(frozen=True)
class RestoredFrame:
    """A frame that was restored: which one, of about how many (0: unknown), of which video, into which.

    Its pictures are to be looked at, not changed: they may still be on their way into the file. `weathers` counts what
    was seen in the frames up to this one, those of an earlier run with it, and `uncertainty` is their mean.
    """

    number: int
    frames: int
    before: Tensor
    restoration: Restoration
    video: VideoReader
    writer: VideoWriter
    weathers: Counter[str]
    uncertainty: float

    @property
    def damaged(self) -> int:
        """How many parts of the video could not be read so far; of all of it once the last frame was asked for."""
        return self.video.damaged

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in the file; known once the next frame was asked for."""
        return self.writer.size

    @property
    def notes(self) -> list[str]:
        """What is other than it was, though nothing failed; complete once the last frame was asked for."""
        return self.video.notes + list(dict.fromkeys(self.writer.notes))


def read_ahead(items: Iterable[T], alone: Callable[[T], bool] = lambda item: False) -> Generator[T]:
    """The same items, none of them None, each made in another thread while the caller works on the one before.

    No more than one is ahead, and none of an item that is to be `alone`: so memory stays bounded. What making one
    raises is raised in its place; closing the generator waits until it is made.
    """
    iterator = iter(items)
    with ThreadPoolExecutor(1) as reader:
        coming: Future[T | None] | None = None
        while (item := (coming or reader.submit(next, iterator, None)).result()) is not None:
            coming = None if alone(item) else reader.submit(next, iterator, None)
            yield item


def restore_video(
    restorer: Callable[..., Restoration],
    source: Path,
    output: Path,
    *,
    strength: float = 1.0,
    ensemble: bool = False,
    tile: int | None = None,
    max_megapixels: float = 100,
    enough: Callable[[], bool] = lambda: False,
    known_as: str | None = None,
) -> Generator[RestoredFrame]:
    """Restore the video `source` to `output`, yielding each frame when it is done; timing, colours and tracks are kept.

    The output appears when the last frame was asked for, whole or not at all; as soon as `enough` says so, what is done
    by then is the whole. Closing the iterator stops the work, as a kill does. If the restorer has a `version`, the next
    call for the same output, settings and source (`known_as`, or else its size and time) goes on where the last segment
    ended, to the same result. Raises PictureError if the source is no video or too large, or the output, whose suffix
    decides the kind (.mp4, .m4v, .mov, .mkv, .webm), cannot be written.
    """
    source, output = Path(source), Path(output)
    if output.suffix.lower() not in CONTAINERS:
        raise PictureError(f"{output}: no video is written with this suffix; choose one of {', '.join(CONTAINERS)}.")
    settings = {"strength": strength, "ensemble": ensemble, "tile": tile}
    smoother, late = TemporalSmoother(), False
    weathers, uncertainty = Counter[str](), 0.0
    written: Future[None] | None = None
    with (
        read_video(source, max_megapixels) as video,
        write_video(output, video, _identity(restorer, known_as or source, settings)) as writer,
    ):
        if writer.resumed is not None:
            smoother.state = dict(writer.resumed.tensors)
            weathers, uncertainty = Counter(writer.resumed.values["weathers"]), writer.resumed.values["uncertainty"]
        number = writer.frames
        with ThreadPoolExecutor(1) as writing, closing(read_ahead(video.frames_from(number))) as frames:
            for frame in frames:
                if written and (late := enough()):
                    break
                restoration = restore_seen(restorer, frame.image, frame.alpha, **settings, steady=smoother)
                number += 1
                weathers[restoration.weather_name] += 1
                uncertainty += restoration.mean_uncertainty
                if written:
                    written.result()
                known = {"weathers": dict(weathers), "uncertainty": uncertainty}
                checkpoint = Checkpoint(dict(smoother.state), known)
                written = writing.submit(writer.write, restoration.image, frame, checkpoint)
                mean = uncertainty / number
                yield RestoredFrame(number, video.frames, frame.image, restoration, video, writer, weathers, mean)
            if not written:
                raise PictureError(f"{source}: no frame of this video can be read.")
            written.result()
        writer.finish(whole=not late)


def _identity(restorer: object, source: Path | str, settings: dict[str, Any]) -> dict[str, Any] | None:
    """What the segments of an earlier run must agree in to be taken up; None if the model does not say which it is."""
    if not (model := getattr(restorer, "version", "")):
        return None
    try:
        known = source if isinstance(source, str) else [source.stat().st_size, source.stat().st_mtime_ns]
    except OSError:  # taken away since it was opened
        return None
    by = {"model": model, "device": str(getattr(restorer, "device", "")), "av": av.__version__}
    return {"source": known, **by, **settings}
