"""One uploaded video from file to file, with a look at it on the way: what the Video tab and `/video` do."""

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mofme.ui.figures import save_picture, thumbnail
from mofme.ui.jobs import Engine, Job, new_folder
from mofme.ui.limits import Limits
from mofme.ui.one_photo import Settings
from mofme.vision.batch import output_suffix
from mofme.vision.restorer import Restoration
from mofme.vision.video import RestoredFrame, restore_video
from mofme.vision.video_file import VIDEO_SUFFIXES

LOOK_EVERY = 2.0  # seconds
_LOOK_SIDE = 960


@dataclass
class VideoProgress:
    """How far a video has come: frames done of about how many (0: unknown), the latest before and after, small.

    At the end `video` is the restored file; `late` tells that time was up before its last frame.
    """

    number: int = 0
    frames: int = 0
    damaged: int = 0
    seconds: float = 0.0
    late: bool = False
    weathers: Counter[str] = field(default_factory=Counter)
    look: tuple[Path, Path] | None = None
    video: Path | None = None

    @property
    def rate(self) -> float:
        """Frames a second."""
        return self.number / self.seconds if self.seconds else 0.0

    @property
    def weather(self) -> str:
        """What was seen in most frames."""
        return self.weathers.most_common(1)[0][0] if self.weathers else "clear"


def restore_upload(
    engine: Engine, job: Job, upload: Path, settings: Settings, limits: Limits
) -> Iterator[VideoProgress]:
    """Restore an uploaded video, yielding every other second and at the end. Raises MofmeError.

    When the job's time is up, what is done by then is the result.
    """
    restorer = engine.restorer(settings.model)
    suffix = output_suffix(upload, None) if upload.suffix.lower() in VIDEO_SUFFIXES else ".mp4"
    folder = new_folder()
    output = folder / f"{upload.stem}-restored{suffix}"
    progress = VideoProgress()

    def in_turn(*picture: Any, **how: Any) -> Restoration:
        # Others get their pictures in between.
        with engine.turn:
            return restorer(*picture, **how)

    def late() -> bool:
        progress.late = job.late()
        return progress.late

    frames = restore_video(
        in_turn,
        upload,
        output,
        strength=settings.strength,
        ensemble=settings.ensemble,
        tile=settings.tile_side,
        max_megapixels=limits.megapixels,
        enough=late,
    )
    begun = looked = time.monotonic()
    with closing(frames):
        for frame in frames:
            job.check_cancelled()
            progress.number, progress.frames = frame.number, frame.frames
            progress.weathers[frame.restoration.weather_name] += 1
            progress.seconds = time.monotonic() - begun
            if frame.number == 1 or time.monotonic() - looked > LOOK_EVERY:
                looked = time.monotonic()
                progress.look = _look(frame, folder)
                yield progress
    progress.look, progress.damaged = _look(frame, folder), frame.damaged
    progress.video = output
    yield progress


def _look(frame: RestoredFrame, folder: Path) -> tuple[Path, Path]:
    pictures = {"before": frame.before, "after": frame.restoration.image}
    before, after = (
        save_picture(thumbnail(picture, _LOOK_SIDE), folder / f"{frame.number}-{name}.jpg")
        for name, picture in pictures.items()
    )
    return before, after
