"""Writes restored frames as a video: H.264 or VP9, 10 bits as HEVC or AV1, transparency as VP9 or ProRes."""

import os
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import av
import torch
from av.codec.context import Flags
from av.container import InputContainer, OutputContainer
from av.sidedata.sidedata import Type
from av.video.codeccontext import VideoCodecContext
from av.video.reformatter import ColorRange
from av.video.stream import VideoStream
from torch import Tensor

from mofme.errors import PictureError
from mofme.files import atomic_file
from mofme.vision.video_file import CONTAINERS, Frame, VideoReader, open_video, side_data
from mofme.vision.video_segments import SEGMENT_FRAMES, Checkpoint, Segment, Segments, segment_of
from mofme.vision.video_tracks import JUMP, Tracks, describe, languages, start_of

_H264 = {"crf": "18"}
_HEVC = {"crf": "18", "x265-params": "log-level=error"}
_VP9 = {"crf": "24", "b": "0", "cpu-used": "4", "row-mt": "1"}
_AV1 = {"crf": "20", "preset": "6"}
_PRORES = {"profile": "4444"}
_SMALLEST_HEVC = 16  # pixels a side; of 34 to 48 pixels a row x265 4.2 writes beyond its memory
_MOST_AV1 = 240  # frames a second
# What decoded frames tell besides their pictures, and no encoder here is told.
_TOLD_BY_FRAMES = {
    Type.A53_CC: "the subtitles within its pictures (closed captions) are left out",
    Type.SPHERICAL: "it no longer says that it is a view all around (360 degrees)",
    Type.STEREO3D: "it no longer says that it is in 3D",
    Type.DOVI_RPU_BUFFER: "what it holds for Dolby Vision is left out",
    Type.DYNAMIC_HDR_PLUS: "what it says of each scene's light (HDR10+) is left out; its colours stay HDR",
}

os.environ.setdefault("SVT_LOG", "1")  # the AV1 encoder otherwise writes its settings to standard error


@dataclass(frozen=True)
class Coding:
    """How all frames of one video are encoded. Times count in `time_base`, colours as H.264 numbers them."""

    encoder: str
    format: str
    options: dict[str, str]
    width: int
    height: int
    rate: str
    time_base: str
    matrix: int
    primaries: int
    transfer: int
    full_range: bool
    aspect: str | None
    tag: str | None

    def set_up(self, context: VideoCodecContext) -> None:
        context.width, context.height, context.pix_fmt = self.width, self.height, self.format
        context.time_base, context.framerate = Fraction(self.time_base), Fraction(self.rate)
        context.bit_rate = 0
        context.colorspace, context.color_primaries, context.color_trc = self.matrix, self.primaries, self.transfer
        context.color_range = ColorRange.JPEG if self.full_range else ColorRange.MPEG
        if self.aspect:
            context.sample_aspect_ratio = Fraction(self.aspect)
        if self.tag:
            context.codec_tag = self.tag


def coding_for(container: str, image: Tensor, frame: Frame, like: VideoReader) -> tuple[Coding, list[str]]:
    """How a video that begins with `image` in place of `frame` is encoded in a container, and what is lost."""
    planes, decoded, notes = frame.planes, frame.decoded, list[str]()
    height, width = image.shape[-2:]
    deep, alpha = planes.bits > 8, planes.alpha_HW is not None
    if alpha and container in ("webm", "matroska"):
        encoder, format, options = "libvpx-vp9", "yuva420p", _VP9
    elif alpha and container == "mov":
        encoder, format, options = "prores_ks", "yuva444p10le", _PRORES
    elif container == "webm":
        encoder, format, options = ("libsvtav1", "yuv420p10le", _AV1) if deep else ("libvpx-vp9", "yuv420p", _VP9)
    elif deep and min(width, height) >= _SMALLEST_HEVC and width > 48:
        params = ":".join([_HEVC["x265-params"], *_light(decoded)])
        encoder, format, options = "libx265", "yuv420p10le", {**_HEVC, "x265-params": params}
    else:
        encoder, format, options = "libx264", "yuv420p10le" if deep else "yuv420p", _H264
    if alpha and "yuva" not in format:
        notes.append("what was transparent is on white now: MP4 holds no transparency, MOV, MKV and WebM do")
    if "420" in format:
        kind = decoded.format
        colours = () if kind.has_palette else kind.components[1:2]
        finer = any(max(2 * part.width - kind.width, 2 * part.height - kind.height) > 1 for part in colours)
        if kind.is_rgb or finer:
            notes.append("its colours are half as fine as they were (4:2:0)")
    bits = 10 if "10" in format else 8
    if planes.bits > bits:
        notes.append(f"its {planes.bits} bits a colour are {bits} now")
    if encoder != "libx265" and _light(decoded):
        notes.append("what it says of the screen that it was made for is left out; its colours stay HDR")
    if encoder in ("libx264", "libx265") and (width % 2 or height % 2):
        was, width, height = f"{width} x {height}", width + width % 2, height + height % 2
        why = "only WebM holds odd sizes, so its last row or column is there twice"
        notes.append(f"it was {was} pixels and is {width} x {height} now: {why}")
    aspect = like.stream.sample_aspect_ratio
    if aspect and decoded.rotation % 180:
        aspect = 1 / aspect
    coding = Coding(
        encoder,
        format,
        options,
        width,
        height,
        rate=str(min(like.rate, _MOST_AV1) if encoder == "libsvtav1" else like.rate),
        time_base=str(like.time_base),
        matrix=planes.matrix,
        # Of H.264's tables of colours 0 and 3 are reserved; 2 says nothing.
        primaries=2 if decoded.color_primaries in (0, 3) else decoded.color_primaries,
        transfer=2 if decoded.color_trc in (0, 3) else decoded.color_trc,
        full_range=planes.full_range,
        aspect=str(aspect) if aspect else None,
        tag="hvc1" if encoder == "libx265" and container in ("mp4", "mov") else None,
    )
    return coding, notes


class VideoWriter:
    """Writes frames into segments, and joins these into the file with all else of the video they are taken `like`."""

    def __init__(self, output: Path, like: VideoReader, segments: Segments) -> None:
        self._output, self._like, self._segments = output, like, segments
        self._container = CONTAINERS[output.suffix.lower()]
        self._encoder: VideoCodecContext | None = None
        self._packets: list[av.Packet[Any]] = []
        self._count = 0  # frames in the segment that is being written
        self._coding: Coding | None = None
        self._usual = round(1 / (like.rate * like.time_base))  # for how long frames are shown
        # Time of the frame before, for how long it is shown, and what is added to times
        self._last, self._shown, self._shift = min(int(start_of(like.container) // like.time_base), 0) - 1, 0, 0
        self._checkpoint = Checkpoint()
        self.frames, self.notes = 0, list[str]()
        if self.resumed is not None:
            values = self.resumed.values
            self._coding, self._last, self.frames = Coding(**values["coding"]), values["last"], values["frames"]
            self._shown, self._shift = values.get("shown", 0), values.get("shift", 0)
            self.notes = values["lost"]

    @property
    def resumed(self) -> Checkpoint | None:
        """What was given with the last frame that an earlier run has written."""
        return self._segments.checkpoint

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in the file, once a frame was written."""
        return (self._coding.width, self._coding.height) if self._coding else (0, 0)

    def write(self, image: Tensor, frame: Frame, checkpoint: Checkpoint | None = None) -> None:
        """Add `image` (3, H, W) in place of `frame` of the other video; `checkpoint` is kept for another run."""
        if self._coding is None:
            self._coding, self.notes = coding_for(self._container, image, frame, self._like)
        if self._count == SEGMENT_FRAMES:
            self._segments.add(self._end_segment())
        if self._encoder is None:
            self._encoder = self._opened(self._coding)
        told = [note for kind, note in _TOLD_BY_FRAMES.items() if side_data(frame.decoded, kind)]
        if any(whole - part not in (0, 1) for whole, part in zip(self.size, image.shape[:0:-1], strict=True)):
            told.append("its size changes on the way: all of it has that of the first frame now")
        self.notes += [note for note in told if note not in self.notes]
        planes = frame.planes.changed(frame.image, image)
        if "yuva" not in self._coding.format:
            planes = planes.on_white()
        planes = replace(planes, full_range=self._coding.full_range)
        new = planes.encoded(self._coding.width, self._coding.height, self._coding.format)
        pts = self._last + self._usual - self._shift if frame.pts is None else frame.pts
        if self.frames and pts + self._shift < self._last - JUMP / self._like.time_base:
            self._shift = self._last + self._shown - pts  # parts were joined whose clocks begin anew
        length = (frame.decoded.duration or 0) * (frame.decoded.time_base or 0) / self._like.time_base
        self._shown = round(length) or self._usual
        self._last = max(self._last + 1, pts + self._shift)  # times must rise
        new.pts, new.time_base = self._last, self._like.time_base
        new.color_range, new.colorspace = self._encoder.color_range, self._coding.matrix
        new.color_primaries, new.color_trc = self._coding.primaries, self._coding.transfer
        self._packets += self._encoder.encode(new)
        self._count += 1
        self.frames += 1
        given = checkpoint or Checkpoint()
        times = {"last": self._last, "shown": self._shown, "shift": self._shift}
        known = {"coding": asdict(self._coding), "frames": self.frames, "lost": self.notes, **times}
        self._checkpoint = Checkpoint(given.tensors, {**given.values, **known})

    def finish(self, whole: bool) -> None:
        """Join all; if the other video was read as a `whole`, with the sound after its last frame."""
        if self._coding is None:
            return
        last = self._end_segment()
        with (
            Path(self._like.path).open("rb") as again,
            open_video(again) as source,
            atomic_file(self._output) as file,
            av.open(file, "w", format=self._container, options=self._options(source)) as target,
        ):
            self._join(self._coding, last, source, target, whole)
            wanted = languages(target)
            target.close()
            file.flush()
            with av.open(file.name) as written:
                lost = wanted - languages(written)
            self.notes += [f"a track lost its language, {code}: QuickTime has no code for it" for code in sorted(lost)]
        self._segments.clear()

    def _options(self, source: InputContainer) -> dict[str, str]:
        """MP4 and QuickTime leave out what phones and cameras say of place, time and device, unless told not to."""
        is_by_camera = any("." in key or key in ("make", "model") for key in map(str.lower, source.metadata))
        return {"movflags": "use_metadata_tags"} if is_by_camera and self._container in ("mp4", "mov") else {}

    def _join(
        self, coding: Coding, last: Segment, source: InputContainer, target: OutputContainer, whole: bool
    ) -> None:
        stream = cast(VideoStream, target.add_stream(coding.encoder, Fraction(coding.rate), dict(coding.options)))
        coding.set_up(stream.codec_context)
        describe(stream, self._like.stream)
        tracks = Tracks(source, target, self.notes.append)
        target.start_encoding()
        base = self._like.time_base
        times = [*self._segments.times().tolist(), *last.table[:, 2].tolist()]
        packets = (packet for part in (self._segments.packets(), last.packets()) for packet in part)
        lengths = dict(pairwise([*sorted(times), self._last + self._shown]))  # else the last one's is guessed
        begun = int(tracks.start // base)
        for packet, dts in zip(packets, decoding_times(times, self._usual), strict=True):
            shown = cast(int, packet.pts)
            packet.pts, packet.dts, packet.duration = shown - begun, dts - begun, lengths[shown] - shown
            packet.time_base, packet.stream = base, stream
            tracks.copy(until=dts * base)
            target.mux(packet)
        if whole:
            tracks.copy()
        tracks.finish()

    def _end_segment(self) -> Segment:
        if self._encoder is not None:
            self._packets += self._encoder.encode(None)
        segment = segment_of(self._packets, self._checkpoint)
        self._encoder, self._packets, self._count = None, [], 0
        return segment

    def _opened(self, coding: Coding) -> VideoCodecContext:
        context = cast(VideoCodecContext, av.CodecContext.create(coding.encoder, "w"))
        coding.set_up(context)
        context.options = dict(coding.options)
        if coding.encoder == "libx264" and torch.backends.cpu.get_cpu_capability() == "AVX512":
            # By AVX-512 it gives the same frames, beside a net that restores, other bytes in one of ten runs. Those of
            # AVX2 are those of the other nine.
            context.options["x264-params"] = "asm=avx2"
        if self._container != "webm":
            context.flags |= Flags.global_header
        return context


def decoding_times(times: Sequence[int], step: int) -> list[int]:
    """When packets that are shown at these times are decoded, in that order: none after it is shown, and each after
    the one before it; `step` is that of the first ones.
    """
    shown = sorted(times)
    rank = {time: number for number, time in enumerate(shown)}
    delay = max((number - rank[time] for number, time in enumerate(times)), default=0)
    early = [shown[0] - (delay - number) * max(step, 1) for number in range(min(delay, len(times)))]
    return early + shown[: len(times) - len(early)]


@contextmanager
def write_video(output: Path, like: VideoReader, identity: dict[str, Any] | None = None) -> Iterator[VideoWriter]:
    """A writer of the file `output`, which appears when it has finished. Raises PictureError if it cannot be written.

    The suffix decides the kind, and must be one of `CONTAINERS`. What is done when the block is left earlier is taken
    up by the next writer of the same `output` and `identity`: it has `frames` already, up to the checkpoint `resumed`.
    """
    segments = Segments(output, identity)
    try:
        yield VideoWriter(output, like, segments)
    except (av.FFmpegError, OSError) as error:
        raise PictureError(f"{output}: this video cannot be written ({error.strerror}).") from error
    finally:
        segments.close()


def _light(frame: av.VideoFrame) -> list[str]:
    """How bright the screen was that HDR was made on, and the brightest there is in it, in x265's words."""
    words = []
    if screen := side_data(frame, Type.MASTERING_DISPLAY_METADATA):
        numbers = struct.unpack_from("=22i", screen)  # ten fractions; whether there are primaries, and luminances
        if all(numbers[20:]):
            x = [Fraction(*numbers[at : at + 2]) for at in range(0, 20, 2)]
            red, green, blue, white = (
                f"({round(x[at] * 50_000)},{round(x[at + 1] * 50_000)})" for at in range(0, 8, 2)
            )
            luminances = f"({round(x[9] * 10_000)},{round(x[8] * 10_000)})"
            words.append(f"master-display=G{green}B{blue}R{red}WP{white}L{luminances}")
    if most := side_data(frame, Type.CONTENT_LIGHT_LEVEL):
        words.append("max-cll={},{}".format(*struct.unpack_from("=2I", most)))
    return words
