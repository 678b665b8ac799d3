"""Streams: the newest frame of a camera, an address, a video or a watched folder; whoever is slower skips frames.

A thread of its own reads the source and puts each frame where the last one was. So latency stays bounded by the time
that one frame takes, however slow the restorer is; frames become pictures only when somebody asks for them.
"""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from threading import Condition, Event, Thread
from typing import Any, Generic, TypeVar
from urllib.parse import urlsplit

import av
import cv2
import torch

from mofme.errors import PictureError, PictureTooLargeError
from mofme.vision.picture.decode import Picture
from mofme.vision.picture.file import READABLE_SUFFIXES, read_first
from mofme.vision.restorer import Restoration, TemporalSmoother, restore_seen
from mofme.vision.tiling import shrunk
from mofme.vision.video_file import READABLE, VideoReader, read_video

T = TypeVar("T")

SCHEMES = {"http", "https", "rtsp", "rtsps"}
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 30.0  # seconds before a source that went away is tried again
_SILENCE = 8.0  # seconds after which an address that says nothing is taken for gone
_LONGEST_STILL = 60.0  # seconds that a video may stand still; more is a clock that was set anew
_LOOK_EVERY = 0.1  # seconds between looks into a folder
_AWAKE = 1.0  # seconds: on Windows Ctrl-C ends no wait, and who waits may be gone
_FAREWELL = 2.0  # seconds that a reader gets to end
# A playlist is none of the formats, as for files, and no address leads to another.
_NETWORK = {
    "format_whitelist": f"{READABLE},mpjpeg,rtsp,sdp,rtp",
    "protocol_whitelist": "http,https,tcp,tls,rtsp,rtsps,rtp,udp",
    "max_redirects": "0",
    "rtsp_transport": "tcp",
    "fflags": "nobuffer",
}


class Latest(Generic[T]):
    """The newest of what one thread puts here, for any number of threads that wait for it."""

    def __init__(self) -> None:
        self.number = 0  # how many there were
        self._newest: T | None = None
        self._error: Exception | None = None
        self._ended = False
        self._changed = Condition()

    def put(self, item: T, count: int = 1) -> None:
        """Take the place of the one before; with a `count`, of others that nobody saw, too."""
        with self._changed:
            self.number += count
            self._newest = item
            self._changed.notify_all()

    def end(self, error: Exception | None = None) -> None:
        """Nothing comes any more; `error` is raised in whoever waits."""
        with self._changed:
            self._ended, self._error = True, self._error or error
            self._changed.notify_all()

    def after(self, number: int, is_wanted: Callable[[], bool] = lambda: True) -> tuple[int, T] | None:
        """Wait for one later than the first `number`: which one it is, and the item; None if there will be none, or it
        is no longer wanted.
        """
        with self._changed:
            while not self._changed.wait_for(lambda: self.number > number or self._ended, _AWAKE):
                if not is_wanted():
                    return None
            if self.number > number and self._newest is not None:
                return self.number, self._newest
            if self._error is not None:
                raise self._error
            return None


@dataclass(frozen=True)
class Shot:
    """A frame or picture; `picture` reads it, and raises PictureError."""

    picture: Callable[[], Picture]
    came: float  # time.monotonic()
    file: str = ""  # its name in a folder
    count: int = 1  # how many came with it, and are older
    made: int | None = None  # that file's time in nanoseconds


@dataclass(frozen=True)
class Source:
    """Where frames come from: what messages call it, and `shots`, which begins anew and raises PictureError."""

    name: str
    shots: Callable[[Event], Iterator[Shot]]
    ends: bool = False  # the end of others means that they went away
    is_files: bool = False  # of a user, of whose results none may be removed


def find_source(text: str, max_megapixels: float = 100) -> Source:
    """What a user calls so: the number of a camera, an address, a video file or a folder. Raises PictureError."""
    if text.isdecimal():
        return Source(f"camera {text}", partial(_camera, int(text), max_megapixels))
    if "://" in text:
        name = without_secrets(text)
        if text.partition("://")[0].lower() not in SCHEMES:
            raise PictureError(f"{name}: streams come from addresses that begin with {', '.join(sorted(SCHEMES))}.")
        return Source(name, partial(_address, text, name, max_megapixels))
    path = Path(text)
    if path.is_dir():
        return Source(text, partial(_folder, path, max_megapixels, {}), is_files=True)
    if not path.exists():
        how = "a camera is called by its number, and an address begins with rtsp:// or http://."
        raise PictureError(f"{text}: no such file or folder; {how}")
    return Source(text, partial(_file, path, max_megapixels), ends=True, is_files=True)


def without_secrets(address: str) -> str:
    """An address as messages may show it: without user, password and what follows a question mark."""
    try:
        parts = urlsplit(address)
    except ValueError:
        return f"{address.partition('://')[0]}://..."
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


@dataclass(frozen=True)
class RestoredShot:
    """A shot that was restored: how many came up to it, and how many of them were restored, and could not be."""

    shot: Shot
    picture: Picture
    restoration: Restoration
    came: int
    restored: int
    failed: int

    @property
    def skipped(self) -> int:
        return self.came - self.restored - self.failed


def restore_stream(
    restorer: Callable[..., Restoration],
    latest: Latest[Shot],
    *,
    side: int | None = None,
    tell: Callable[[str], None],
    **settings: Any,
) -> Iterator[RestoredShot]:
    """Restore the newest shot, again and again until there are no more, with a brightness that is kept steady.

    Pictures are made smaller first if a `side` has more pixels than that. What cannot be read is told and left out;
    raises what ended the source.
    """
    smoother = TemporalSmoother()
    came = restored = failed = 0
    while (found := latest.after(came)) is not None:
        came, shot = found
        try:
            picture = shot.picture()
        except PictureError as error:
            failed += 1
            tell(f"left out: {error}")
            continue
        if shot.file:
            for note in picture.notes:
                tell(f"{shot.file}: {note}")
        if side is not None and side < max(picture.rgb.shape[1:]):
            alpha, present = (one if one is None else shrunk(one, side) for one in (picture.alpha, picture.present))
            picture = replace(picture, rgb=shrunk(picture.rgb, side), alpha=alpha, present=present)
        restoration = restore_seen(restorer, picture.rgb, picture.visible, steady=smoother, **settings)
        restored += 1
        yield RestoredShot(shot, picture, restoration, came, restored, failed)


@contextmanager
def reading(source: Source, tell: Callable[[str], None]) -> Iterator[Latest[Shot]]:
    """The newest shot of `source`, which is read in another thread as long as the block runs.

    One that goes away is tried again, after pauses that grow, and `tell` hears of it; one that never came is an error,
    and a frame that is too large.
    """
    latest, stop = Latest[Shot](), Event()
    reader = Thread(target=_read, args=(source, latest, stop, tell), daemon=True)
    reader.start()
    try:
        yield latest
    finally:
        stop.set()
        reader.join(_FAREWELL)


def _read(source: Source, latest: Latest[Shot], stop: Event, tell: Callable[[str], None]) -> None:
    pause = FIRST_PAUSE
    try:
        while not stop.is_set():
            why = f"{source.name}: the stream ended"
            try:
                for shot in source.shots(stop):
                    latest.put(shot, shot.count)
                    pause = FIRST_PAUSE
                    if stop.is_set():
                        return
            except PictureTooLargeError:
                raise
            except PictureError as error:
                if source.ends or not latest.number:
                    raise
                why = str(error).rstrip(".")
            if source.ends or stop.is_set():
                return
            if not latest.number:
                raise PictureError(f"{source.name}: no frame comes from there.")
            tell(f"{why}; trying again in {pause:g} s")
            stop.wait(pause)
            pause = min(2 * pause, LONGEST_PAUSE)
    except Exception as error:  # whatever befalls this thread, the one that waits must hear of it
        latest.end(error)
    finally:
        latest.end()


def _shot_of(video: VideoReader, decoded: av.VideoFrame) -> Shot:
    def picture() -> Picture:
        frame = video.frame_of(decoded)
        return Picture(frame.image, frame.alpha, format="jpeg")

    return Shot(picture, time.monotonic())


def _file(path: Path, max_megapixels: float, stop: Event) -> Iterator[Shot]:
    """The frames of a video, as fast as it is to be shown."""
    with read_video(path, max_megapixels) as video:
        start = before = -math.inf
        for number, decoded in enumerate(video.decoded()):
            at = float(number / video.rate) if decoded.time is None else decoded.time
            if not 0 <= at - before < _LONGEST_STILL:
                start = time.monotonic() - at
            before = at
            stop.wait(max(0.0, start + at - time.monotonic()))
            yield _shot_of(video, decoded)


def _address(address: str, name: str, max_megapixels: float, stop: Event) -> Iterator[Shot]:
    try:
        container = av.open(address, "r", options=_NETWORK, timeout=_SILENCE, metadata_errors="replace")
    except (av.FFmpegError, OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or "it is no address"
        raise PictureError(f"{name}: no video can be read from there ({why}).") from None  # it holds the address
    with container:
        video = VideoReader(name, container, max_megapixels)
        video.stream.thread_type = "SLICE"  # threads for whole frames would keep some of them back
        yield from (_shot_of(video, decoded) for decoded in video.decoded())


def _camera(index: int, max_megapixels: float, stop: Event) -> Iterator[Shot]:
    capture = cv2.VideoCapture(index)
    try:
        if not capture.isOpened():
            raise PictureError(f"camera {index}: there is no such camera, or another program has it.")
        while True:
            is_there, bgr_HW3 = capture.read()
            if not is_there:
                return
            height, width = bgr_HW3.shape[:2]
            if height * width > max_megapixels * 1e6:
                raise PictureTooLargeError(f"camera {index}: {width} x {height} pixels are over the limit.")
            rgb = torch.from_numpy(bgr_HW3[..., ::-1].copy()).permute(2, 0, 1)
            yield Shot(lambda rgb=rgb: Picture(rgb.float() / 255, format="jpeg"), time.monotonic())  # type: ignore[misc]
    finally:
        capture.release()


def _folder(folder: Path, max_megapixels: float, seen: dict[str, tuple[int, int]], stop: Event) -> Iterator[Shot]:
    """The newest picture that is there, and then each that is newer and stays the same for one more look; `seen` are
    those of before the folder went away.
    """
    waiting: dict[str, tuple[int, int]] = {}
    while not stop.wait(_LOOK_EVERY):
        there = _pictures_in(folder)
        new = {name: about for name, about in there.items() if about != seen.get(name)}
        whole = {name: about for name, about in new.items() if waiting.get(name) == about}
        waiting = new
        if whole:
            newest = max(whole, key=lambda name: (whole[name], name))
            shot = partial(read_first, folder / newest, max_megapixels, None)
            count = len(whole) if seen else 1
            seen.update(whole)
            for name in seen.keys() - there.keys():
                del seen[name]
            yield Shot(shot, time.monotonic(), newest, count, whole[newest][0])


def _pictures_in(folder: Path) -> dict[str, tuple[int, int]]:
    """Time and size of each picture in a folder, by its name."""
    found = {}
    try:
        for path in folder.iterdir():
            if not path.name.startswith(".") and path.suffix.lower() in READABLE_SUFFIXES:
                with suppress(OSError):  # taken away meanwhile, or a link that leads to itself
                    about = path.stat()
                    found[path.name] = about.st_mtime_ns, about.st_size
    except OSError as error:
        raise PictureError(f"{folder}: this folder cannot be read ({error.strerror}).") from error
    return found
