"""Video files: the frames of one as pictures, upright, whole where they were interlaced, in all the bits they have."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import BinaryIO, cast

import av
from av.container import InputContainer
from av.stream import Disposition
from av.video.codeccontext import VideoCodecContext
from av.video.stream import VideoStream
from torch import Tensor

from mofme.errors import PictureError, PictureTooLargeError
from mofme.vision.video_colour import Planes, planes_of

CONTAINERS = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska", ".webm": "webm"}
_ONLY_READ = "avi mpg mpeg mpe vob mod wmv asf flv f4v ts mts m2ts m2t tod 3gp 3g2 qt ogv"
VIDEO_SUFFIXES = frozenset(CONTAINERS) | {f".{suffix}" for suffix in _ONLY_READ.split()}
# What FFmpeg may take a file for. A playlist, which is none of these, would have it open other files and addresses.
READABLE = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpeg,mpegts,asf,flv,ogg"
_DECODES_ALPHA = {"vp9": "libvpx-vp9", "vp8": "libvpx"}
_USUAL_RATE = Fraction(25)


@dataclass(frozen=True)
class Frame:
    """One frame: the picture (3, H, W), upright, in [0, 1]; its planes; as it was decoded; when it is shown.

    `pts` counts in the video's time base; None if the file does not tell.
    """

    image: Tensor
    planes: Planes
    decoded: av.VideoFrame
    pts: int | None

    @property
    def alpha(self) -> Tensor | None:
        """(1, H, W) in [0, 1], if something is transparent."""
        alpha_HW = self.planes.alpha_HW
        return None if alpha_HW is None or bool((alpha_HW == 1).all()) else alpha_HW[None]


def missing_share(path: Path) -> float:
    """Which share of a file is not there, by what its container says of its own length; 0 if that tells nothing."""
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(64)
        whole = 0
        if head.startswith(b"RIFF"):
            whole = 8 + int.from_bytes(head[4:8], "little")
        elif head.startswith(b"\x1aE\xdf\xa3"):  # Matroska: a head, and a segment that holds all else
            length, at = _matroska_length(head, 4)
            length, at = _matroska_length(head, at + (length or 0) + 4)
            whole = at + length if length else 0
        elif head[4:8] == b"ftyp":
            while whole + 8 <= size:
                file.seek(whole)
                box = file.read(16)
                length = int.from_bytes(box[:4], "big")
                length = int.from_bytes(box[8:], "big") if length == 1 else length
                if length < 8:  # to the end
                    return 0.0
                whole += length
    return max(whole - size, 0) / max(whole, 1)


def _matroska_length(data: bytes, at: int) -> tuple[int | None, int]:
    """A length and where it ends; None if it is not known, as of a stream that was recorded."""
    count = 9 - data[at].bit_length() if at < len(data) else 9
    bits = 7 * count
    value = int.from_bytes(data[at : at + count], "big") & (2**bits - 1)
    return (None if count > 8 or value == 2**bits - 1 else value), at + count


class VideoReader:
    """The frames of a video file, one after the other; what cannot be decoded is left out and counted as `damaged`."""

    def __init__(self, path: Path | str, container: InputContainer, max_megapixels: float) -> None:
        """Raises PictureError if there is no video in it, PictureTooLargeError if its frames are too large.

        `path` may be what to call an address.
        """
        best = container.streams.best("video")
        self.cut_off = missing_share(path) if isinstance(path, Path) else 0.0
        if not isinstance(best, VideoStream) or best.disposition & Disposition.attached_pic:  # a cover
            why = "is cut off, and without its end no video can be read" if self.cut_off else "there is no video"
            raise PictureError(f"{path}: {why} in this file.")
        if best.codec_context is None:  # which the library's own types deny
            raise PictureError(f"{path}: the video in this file is of a kind that cannot be decoded.")
        self.path, self.container, self.stream = path, container, best
        self.stream.thread_type = "AUTO"
        self.rate = self.stream.average_rate or self.stream.guessed_rate or _USUAL_RATE
        self.time_base = self.stream.time_base or 1 / self.rate
        self.damaged = 0
        self.deinterlaced = False
        # Programs write anything where raw AVI could tell what is transparent, mostly zeros.
        self._is_raw = container.format.name == "avi" and self.stream.codec_context.name == "rawvideo"
        # FFmpeg's own decoder of VP9 and VP8 knows no transparency.
        name = self.stream.codec_context.name
        self._decoder: VideoCodecContext | None = None
        if name in _DECODES_ALPHA and {"alpha_mode", "ALPHA_MODE"} & self.stream.metadata.keys():
            self._decoder = cast(VideoCodecContext, av.CodecContext.create(_DECODES_ALPHA[name], "r"))
        self._limit = max_megapixels
        self._check_size(self.stream.codec_context.width, self.stream.codec_context.height)

    @property
    def frames(self) -> int:
        """How many the file says it has, or its length makes likely; 0 if it tells neither."""
        if self.stream.frames:
            return self.stream.frames
        if self.stream.duration:
            return round(self.stream.duration * self.time_base * self.rate)
        return round(Fraction(self.container.duration or 0, av.time_base) * self.rate)

    def __iter__(self) -> Iterator[Frame]:
        return self.frames_from(0)

    def frames_from(self, number: int) -> Iterator[Frame]:
        """All frames but the first `number`, which are decoded only."""
        return map(self.frame_of, islice(self.decoded(), number, None))

    def frame_of(self, decoded: av.VideoFrame) -> Frame:
        """One of `decoded` as a picture, which takes longer than decoding it."""
        try:
            # FFmpeg tells the turn counter-clockwise, as numpy takes it.
            planes = planes_of(decoded, round(decoded.rotation / 90))
        except av.FFmpegError as error:
            raise PictureError(
                f"{self.path}: frames of the kind {decoded.format.name} cannot be read ({error.strerror})."
            ) from error
        if self._is_raw:
            planes = replace(planes, alpha_HW=None)
        pts = None
        if decoded.pts is not None and decoded.time_base:
            pts = round(decoded.pts * decoded.time_base / self.time_base)
        return Frame(planes.rgb(), planes, decoded, pts)

    def decoded(self) -> Iterator[av.VideoFrame]:
        """The frames as they are decoded, from the first interlaced one on without the combs: half of the lines is made
        of the others.
        """
        weaver: _Deinterlacer | None = None
        for frame in self._decoded():
            if weaver is not None and not weaver.takes(frame):
                yield from weaver.rest()
                weaver = None
            self._check_size(frame.width, frame.height)
            if weaver is None and frame.interlaced_frame:
                weaver = _Deinterlacer(frame)
                self.deinterlaced = True
            yield from [frame] if weaver is None else weaver.next(frame)
        if weaver is not None:
            yield from weaver.rest()

    def _decoded(self) -> Iterator[av.VideoFrame]:
        packets = self.container.demux(self.stream)
        while True:
            try:
                packet = next(packets)
                frames = self._decoder.decode(packet if packet.size else None) if self._decoder else packet.decode()
            except StopIteration:
                return
            except av.error.InvalidDataError:
                self.damaged += 1
                continue
            except av.FFmpegError as error:
                raise PictureError(f"{self.path}: reading this video stopped half-way ({error.strerror}).") from error
            yield from frames

    def _check_size(self, width: int, height: int) -> None:
        if width * height > self._limit * 1e6:
            raise PictureTooLargeError(
                f"{self.path}: frames of {width} x {height} pixels are more than the limit of "
                f"{self._limit:g} megapixels."
            )


class _Deinterlacer:
    """Makes whole frames of interlaced ones, as many; those that are whole pass. It is a frame behind."""

    def __init__(self, like: av.VideoFrame) -> None:
        self._kind = like.width, like.height, like.format.name
        self._graph = av.filter.Graph()
        start = self._graph.add_buffer(
            width=like.width, height=like.height, format=like.format, time_base=like.time_base
        )
        weaver = self._graph.add("bwdif", "mode=send_frame:parity=auto:deint=interlaced")
        self._graph.link_nodes(start, weaver, self._graph.add("buffersink")).configure()

    def takes(self, frame: av.VideoFrame) -> bool:
        return (frame.width, frame.height, frame.format.name) == self._kind

    def next(self, frame: av.VideoFrame) -> Iterator[av.VideoFrame]:
        self._graph.vpush(frame)
        yield from self._ready()

    def rest(self) -> Iterator[av.VideoFrame]:
        self._graph.vpush(None)
        yield from self._ready()

    def _ready(self) -> Iterator[av.VideoFrame]:
        while True:
            try:
                yield self._graph.vpull()
            except (av.error.BlockingIOError, av.error.EOFError):
                return


@contextmanager
def read_video(path: Path, max_megapixels: float = 100) -> Iterator[VideoReader]:
    """Open a video file. Raises PictureError if it is none, PictureTooLargeError if its frames are too large."""
    with ExitStack() as stack:
        try:
            container = stack.enter_context(open_video(stack.enter_context(path.open("rb"))))
        except (av.FFmpegError, OSError) as error:
            cut = isinstance(error, av.FFmpegError) and missing_share(path)
            why = "it is cut off, and what is missing is needed" if cut else error.strerror
            raise PictureError(f"{path}: cannot be read as a video ({why}).") from error
        yield VideoReader(path, container, max_megapixels)


def open_video(file: BinaryIO) -> InputContainer:
    return av.open(file, "r", options={"format_whitelist": READABLE})
