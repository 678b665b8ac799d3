"""Video files: the frames of one as pictures, and a new one of other pictures that keeps its timing, colours and sound.

Frames come out upright and in 8 bits. Written is H.264 (VP9 in WebM), at a quality that hardly shows a loss.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO, cast

import av
import numpy as np
import torch
from av.audio.stream import AudioStream
from av.container import InputContainer, OutputContainer
from av.packet import Packet
from av.video.reformatter import ColorRange
from av.video.stream import VideoStream
from torch import Tensor

from mofme.errors import PictureError, PictureTooLargeError
from mofme.files import atomic_file

CONTAINERS = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska", ".webm": "webm"}
VIDEO_SUFFIXES = frozenset(CONTAINERS) | frozenset(
    {".avi", ".mpg", ".mpeg", ".wmv", ".flv", ".ts", ".mts", ".m2ts", ".3gp", ".ogv"}
)
# What FFmpeg may take a file for. A playlist, which is none of these, would have it open other files and addresses.
_READABLE = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpeg,mpegts,asf,flv,ogg"
_H264 = ("libx264", {"crf": "18"})
_VP9 = ("libvpx-vp9", {"crf": "24", "b": "0", "cpu-used": "4", "row-mt": "1"})
_USUAL_RATE = Fraction(25)
# They describe the file that was read, not the one that is written.
_OWN_METADATA = {"major_brand", "minor_version", "compatible_brands", "encoder"}


@dataclass(frozen=True)
class Frame:
    """One frame: the picture (3, H, W), upright, in [0, 1], and as it was decoded, with its time and colours."""

    image: Tensor
    decoded: av.VideoFrame


class VideoReader:
    """The frames of a video file, one after the other; what cannot be decoded is left out and counted as `damaged`."""

    def __init__(self, path: Path, container: InputContainer, max_megapixels: float) -> None:
        """Raises PictureError if there is no video in it, PictureTooLargeError if its frames are too large."""
        best = container.streams.best("video")
        if not isinstance(best, VideoStream):
            raise PictureError(f"{path}: there is no video in this file.")
        self.path, self.container, self.stream = path, container, best
        self.stream.thread_type = "AUTO"
        self.rate = self.stream.average_rate or self.stream.guessed_rate or _USUAL_RATE
        self.time_base = self.stream.time_base or 1 / self.rate
        self.damaged = 0
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
        packets = self.container.demux(self.stream)
        while True:
            try:
                frames = next(packets).decode()
            except StopIteration:
                return
            except av.error.InvalidDataError:
                self.damaged += 1
                continue
            except av.FFmpegError as error:
                raise PictureError(f"{self.path}: reading this video stopped half-way ({error.strerror}).") from error
            for decoded in frames:
                self._check_size(decoded.width, decoded.height)
                # FFmpeg tells the turn counter-clockwise, as numpy takes it.
                array = np.rot90(decoded.to_ndarray(format="rgb24"), round(decoded.rotation / 90))
                image = torch.from_numpy(np.ascontiguousarray(array)).permute(2, 0, 1).float().div_(255)
                yield Frame(image, decoded)

    def _check_size(self, width: int, height: int) -> None:
        if width * height > self._limit * 1e6:
            raise PictureTooLargeError(
                f"{self.path}: frames of {width} x {height} pixels are more than the limit of "
                f"{self._limit:g} megapixels."
            )


@contextmanager
def read_video(path: Path, max_megapixels: float = 100) -> Iterator[VideoReader]:
    """Open a video file. Raises PictureError if it is none, PictureTooLargeError if its frames are too large."""
    with ExitStack() as stack:
        try:
            container = stack.enter_context(_open(stack.enter_context(path.open("rb"))))
        except (av.FFmpegError, OSError) as error:
            raise PictureError(f"{path}: cannot be read as a video ({error.strerror}).") from error
        yield VideoReader(path, container, max_megapixels)


class _Sound:
    """All sound of a video: copied as it is, or encoded anew where the new file cannot hold its kind."""

    def __init__(self, source: InputContainer, target: OutputContainer) -> None:
        self._target = target
        self._copies: dict[int, AudioStream] = {}
        self._encodes: dict[int, AudioStream] = {}
        streams = source.streams.audio
        for stream in streams:
            if stream.codec_context.name in target.supported_codecs:
                self._copies[stream.index] = target.add_stream_from_template(stream)
            else:
                encoder = "libopus" if target.format.name == "webm" else "aac"
                self._encodes[stream.index] = cast(AudioStream, target.add_stream(encoder, stream.rate))
        self._packets: Iterator[Packet[AudioStream]] = source.demux(streams) if streams else iter(())
        self._next = next(self._packets, None)

    def copy(self, until: Fraction | None = None) -> None:
        """Copy what begins up to this second of the video, or all that is left."""
        while (packet := self._next) is not None:
            if until is not None and packet.dts is not None and packet.dts * packet.time_base > until:
                return
            self._copy(packet)
            self._next = next(self._packets, None)

    def finish(self) -> None:
        """Write what the encoders hold back."""
        for stream in self._encodes.values():
            self._target.mux(stream.encode(None))

    def _copy(self, packet: "Packet[AudioStream]") -> None:
        index = packet.stream.index
        if index in self._copies:
            if packet.dts is not None:  # the last one is empty
                packet.stream = self._copies[index]
                self._target.mux(packet)
            return
        try:
            frames = packet.decode()
        except av.error.InvalidDataError:
            return
        for frame in frames:
            self._target.mux(self._encodes[index].encode(frame))


class VideoWriter:
    """Writes frames into a file opened for it, and the sound of the video that they are taken `like`."""

    def __init__(self, container: OutputContainer, like: VideoReader, sound: InputContainer) -> None:
        self._container, self._like = container, like
        container.metadata.update(
            {key: value for key, value in like.container.metadata.items() if key not in _OWN_METADATA}
        )
        encoder, options = _VP9 if container.format.name == "webm" else _H264
        self._stream = cast(VideoStream, container.add_stream(encoder, like.rate, options))
        self._sound = _Sound(sound, container)
        self._size: tuple[int, int] | None = None
        self._last = -1

    def write(self, image: Tensor, frame: Frame) -> None:
        """Add `image` (3, H, W) in place of `frame` of the other video."""
        array = image.mul(255).round_().byte().permute(1, 2, 0).cpu().numpy()
        rows, columns = array.shape[0] % 2, array.shape[1] % 2
        if rows or columns:  # colours are stored for two by two pixels at once
            array = np.pad(array, ((0, rows), (0, columns), (0, 0)), mode="edge")
        if self._size is None:
            self._size = array.shape[1], array.shape[0]
            self._begin(frame.decoded)
        new = av.VideoFrame.from_numpy_buffer(np.ascontiguousarray(array), "rgb24").reformat(
            *self._size,
            format="yuv420p",
            dst_colorspace=frame.decoded.colorspace,
            dst_color_range=frame.decoded.color_range or ColorRange.MPEG,
        )
        pts = frame.decoded.pts
        if pts is None:
            pts = self._last + round(1 / (self._like.rate * self._like.time_base))
        self._last = max(self._last + 1, pts)  # times must rise
        new.pts, new.time_base = self._last, self._like.time_base
        self._sound.copy(until=self._last * self._like.time_base)
        self._container.mux(self._stream.encode(new))

    def finish(self, whole: bool) -> None:
        """Write what is held back; if the other video was read as a `whole`, with the sound after its last frame."""
        self._container.mux(self._stream.encode(None))
        if whole:
            self._sound.copy()
        self._sound.finish()

    def _begin(self, first: av.VideoFrame) -> None:
        context = self._stream.codec_context
        context.width, context.height = self._size or (0, 0)
        context.pix_fmt = "yuv420p"
        context.time_base = self._like.time_base
        context.colorspace, context.color_range = first.colorspace, first.color_range
        context.color_primaries, context.color_trc = first.color_primaries, first.color_trc
        if aspect := self._like.stream.sample_aspect_ratio:
            context.sample_aspect_ratio = 1 / aspect if first.rotation % 180 else aspect


@contextmanager
def write_video(output: Path, like: VideoReader) -> Iterator[VideoWriter]:
    """A writer of the file `output`, which appears if the block ends well. Raises PictureError if it cannot be written.

    The suffix decides the kind, and must be one of `CONTAINERS`.
    """
    try:
        with (
            like.path.open("rb") as again,
            _open(again) as sound,
            atomic_file(output) as file,
            av.open(file, "w", format=CONTAINERS[output.suffix.lower()]) as container,
        ):
            yield VideoWriter(container, like, sound)
    except (av.FFmpegError, OSError) as error:
        raise PictureError(f"{output}: this video cannot be written ({error.strerror}).") from error


def _open(file: BinaryIO) -> InputContainer:
    return av.open(file, "r", options={"format_whitelist": _READABLE})
