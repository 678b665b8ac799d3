"""Restores a video frame by frame, with a brightness that is kept steady; reading and writing go on beside it."""

from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from torch import Tensor

from mofme.errors import PictureError
from mofme.vision.restorer import Restoration
from mofme.vision.smoother import TemporalSmoother
from mofme.vision.video_file import CONTAINERS, VideoReader, read_video, write_video

T = TypeVar("T")


@dataclass(frozen=True)
class RestoredFrame:
    """A frame that was restored: which one, of about how many (0: unknown), of which video.

    Its pictures are to be looked at, not changed: they may still be on their way into the file.
    """

    number: int
    frames: int
    before: Tensor
    restoration: Restoration
    video: VideoReader

    @property
    def damaged(self) -> int:
        """How many parts of the video could not be read so far; of all of it once the last frame was asked for."""
        return self.video.damaged


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
) -> Generator[RestoredFrame]:
    """Restore the video `source` to `output`, yielding each frame when it is done; timing, colours and sound are kept.

    The output appears when the last frame was asked for, whole or not at all; as soon as `enough` says so, what is done
    by then is the whole. Closing the iterator stops the work. Raises PictureError if the source is no video, too large,
    or the output cannot be written; its suffix decides the kind: .mp4, .m4v, .mov, .mkv or .webm.
    """
    if output.suffix.lower() not in CONTAINERS:
        raise PictureError(f"{output}: no video is written with this suffix; choose one of {', '.join(CONTAINERS)}.")
    smoother, number, late = TemporalSmoother(), 0, False
    written: Future[None] | None = None
    with (
        read_video(source, max_megapixels) as video,
        write_video(output, video) as writer,
        ThreadPoolExecutor(1) as writing,
        closing(read_ahead(video)) as frames,
    ):
        for frame in frames:
            if number and (late := enough()):
                break
            restoration = restorer(frame.image, strength=strength, ensemble=ensemble, tile=tile, steady=smoother)
            if written:
                written.result()
            written = writing.submit(writer.write, restoration.image, frame)
            number += 1
            yield RestoredFrame(number, video.frames, frame.image, restoration, video)
        if not written:
            raise PictureError(f"{source}: no frame of this video can be read.")
        written.result()
        writer.finish(whole=not late)
