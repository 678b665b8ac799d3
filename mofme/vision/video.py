"""Restores a video frame by frame, with a brightness that is kept steady."""

from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from mofme.errors import PictureError
from mofme.vision.restorer import Restoration
from mofme.vision.smoother import TemporalSmoother
from mofme.vision.video_file import CONTAINERS, VideoReader, read_video, write_video


@dataclass(frozen=True)
class RestoredFrame:
    """A frame that was restored: which one, of about how many (0: unknown), of which video."""

    number: int
    frames: int
    before: Tensor
    restoration: Restoration
    video: VideoReader

    @property
    def damaged(self) -> int:
        """How many parts of the video could not be read so far; of all of it once the last frame was asked for."""
        return self.video.damaged


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
    steady, number, late = TemporalSmoother(), 0, False
    with read_video(source, max_megapixels) as video, write_video(output, video) as writer:
        for frame in video:
            if number and (late := enough()):
                break
            restoration = restorer(frame.image, strength=strength, ensemble=ensemble, tile=tile, steady=steady)
            writer.write(restoration.image, frame)
            number += 1
            yield RestoredFrame(number, video.frames, frame.image, restoration, video)
        if not number:
            raise PictureError(f"{source}: no frame of this video can be read.")
        writer.finish(whole=not late)
