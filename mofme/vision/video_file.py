"""Video files: the frames of one as pictures, upright, whole where they were interlaced, in all the bits they have.

On the way back, what a picture changed is added to the planes that were decoded. FFmpeg's conversion there and back
rounds down: it darkens by 1 of 255, and full range by more. Here the difference of two pictures is converted, so that
the planes of a picture that did not change stay as they were, to the last bit.
"""

import re
import struct
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, cast

import av
import numpy as np
import torch
from av.container import InputContainer
from av.sidedata.sidedata import Type
from av.stream import Disposition
from av.video.codeccontext import VideoCodecContext
from av.video.plane import VideoPlane
from av.video.reformatter import ColorRange
from av.video.stream import VideoStream
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from mofme.errors import PictureError, PictureTooLargeError
from mofme.vision.video_container import NOTHING_HIDDEN, has_other_view, hidden_by, missing_share

# Matrices as H.264, and FFmpeg, number them.
_RGB, ITU709, _UNKNOWN, _ITU601, _YCGCO = 0, 1, 2, 6, 8
# Shares of red and blue in luma. What is not listed belongs to the wide primaries of ITU 2020.
_LUMA = {ITU709: (0.2126, 0.0722), 4: (0.3, 0.11), 5: (0.299, 0.114), _ITU601: (0.299, 0.114), 7: (0.212, 0.087)}
_ITU2020 = (0.2627, 0.0593)
_READ_AS_THEY_ARE = re.compile(r"(yuv[aj]?4\d\dp|gray|gbra?p)(9|10|12|14|16)?(le)?")


@dataclass(frozen=True)
class Planes:
    """A frame, upright: luma (H, W) from 0, black, to 1, white, chroma (2, h, w) around 0, at its own size.

    Values may lie beyond what a screen shows. `alpha_HW` is in [0, 1], `matrix` a number of H.264's.
    """

    luma_HW: Tensor
    chroma_2HW: Tensor
    alpha_HW: Tensor | None
    matrix: int
    full_range: bool
    bits: int

    def rgb(self) -> Tensor:
        """The picture (3, H, W), in [0, 1]."""
        height, width = self.luma_HW.shape
        rows, columns = self._factors()
        _, h, w = self.chroma_2HW.shape
        chroma_2HW = _resized(self.chroma_2HW, h * rows, w * columns)[:, :height, :width]
        return _times(self._to_rgb(), torch.cat((self.luma_HW[None], chroma_2HW))).clamp_(0, 1)

    def changed(self, before: Tensor, after: Tensor) -> "Planes":
        """What they are when `before`, their picture, has become `after`, both (3, H, W); hidden pixels stay."""
        change_3HW = _times(torch.linalg.inv(self._to_rgb()), after.float() - before.float())
        if self.alpha_HW is not None:
            change_3HW *= self.alpha_HW > 0
        (rows, columns), (_, h, w) = self._factors(), self.chroma_2HW.shape
        chroma_2HW = _resized(_grown(change_3HW[1:], h * rows, w * columns), h, w)
        return replace(self, luma_HW=self.luma_HW + change_3HW[0], chroma_2HW=self.chroma_2HW + chroma_2HW)

    def encoded(self, width: int, height: int, format: str) -> av.VideoFrame:
        """A frame in a planar YUV format and of this size; a row or column more than there is repeats the last."""
        frame = av.VideoFrame(width, height, format)
        bits = frame.format.components[0].bits
        h, w = (component := frame.format.components[1]).height, component.width
        luma_1HW, chroma_2HW = self.luma_HW[None], self.chroma_2HW
        alpha_1HW = torch.ones_like(luma_1HW) if self.alpha_HW is None else self.alpha_HW[None]
        rows, columns = self._factors()
        if height - luma_1HW.shape[1] not in (0, 1) or width - luma_1HW.shape[2] not in (0, 1):  # it has a new size
            luma_1HW, alpha_1HW = _resized(luma_1HW, height, width), _resized(alpha_1HW, height, width)
        else:
            luma_1HW, alpha_1HW = _grown(luma_1HW, height, width), _grown(alpha_1HW, height, width)
            chroma_2HW = _grown(chroma_2HW, -(-h * -(-height // h) // rows), -(-w * -(-width // w) // columns))
        most = 2**bits - 1
        black, luma_scale, chroma_scale, middle = _levels(bits, self.full_range)
        values = [luma_1HW[0] * luma_scale + black, *(_resized(chroma_2HW, h, w) * chroma_scale + middle)]
        values += [alpha_1HW[0] * most] * (len(frame.planes) - 3)
        for plane, values_HW in zip(frame.planes, values, strict=True):
            samples = _rows(plane, bits)
            samples[:] = 0
            samples[: plane.height, : plane.width] = values_HW.round().clamp(0, most).cpu().numpy()
        return frame

    def on_white(self) -> "Planes":
        """What is seen on a white ground, without alpha."""
        if self.alpha_HW is None:
            return self
        before = self.rgb()
        after = before * self.alpha_HW + (1 - self.alpha_HW)
        return replace(self, alpha_HW=None).changed(before, after)

    def _factors(self) -> tuple[int, int]:
        """How many rows and columns of luma share one of chroma."""
        (height, width), (_, h, w) = self.luma_HW.shape, self.chroma_2HW.shape
        return -(-height // h), -(-width // w)

    def _to_rgb(self) -> Tensor:
        if self.matrix == _YCGCO:
            return torch.tensor([[1.0, -1.0, 1.0], [1.0, 1.0, 0.0], [1.0, -1.0, -1.0]])
        red, blue = _LUMA.get(self.matrix, _ITU2020)
        if self.matrix == _UNKNOWN:  # as players take it
            red, blue = _LUMA[ITU709 if max(self.luma_HW.shape) >= 1280 else _ITU601]
        green = 1 - red - blue
        return torch.tensor(
            [
                [1.0, 0.0, 2 - 2 * red],
                [1.0, -2 * blue * (1 - blue) / green, -2 * red * (1 - red) / green],
                [1.0, 2 - 2 * blue, 0.0],
            ]
        )


def planes_of(
    frame: av.VideoFrame, quarter_turns: int = 0, mirrored: bool = False, hidden: tuple[int, ...] = NOTHING_HIDDEN
) -> Planes:
    """The planes of a frame in any format, turned counter-clockwise as FFmpeg tells it; RGB as by ITU 709.

    Rows and columns that are `hidden` at its bottom, top, left and right go, but for one that shares its chroma.
    """
    bits = min(max(8, *(component.bits for component in frame.format.components)), 16)
    planar = frame if _READ_AS_THEY_ARE.fullmatch(frame.format.name) else _as_planar(frame, bits)
    name = planar.format.name
    turns, way = quarter_turns + 2 * mirrored, -1 if mirrored else 1  # FFmpeg takes a mirrored row for half a turn
    bottom, top, left, right = hidden
    top -= top % (64 // planar.format.chroma_height(64))
    left -= left % (64 // planar.format.chroma_width(64))

    def shown(plane: VideoPlane) -> NDArray[Any]:
        rows, columns = -(-frame.height // plane.height), -(-frame.width // plane.width)
        height, width = -((bottom - frame.height) // rows), -((right - frame.width) // columns)
        return _rows(plane, bits)[top // rows : height, left // columns : width].astype(np.float32)

    arrays = map(shown, planar.planes)
    planes = [torch.from_numpy(np.rot90(array[:, ::way], turns).copy()) for array in arrays]
    most = 2**bits - 1
    alpha_HW = planes.pop() / most if name.startswith(("yuva", "gbrap")) else None
    if alpha_HW is not None and frame.format.has_palette and alpha_HW.min() == 1:
        alpha_HW = None
    if name.startswith("gbr"):
        green, blue, red = (plane / most for plane in planes)
        blank = Planes(green, green.expand(2, -1, -1), alpha_HW, ITU709, False, bits)
        yuv_3HW = _times(torch.linalg.inv(blank._to_rgb()), torch.stack((red, green, blue)))
        return replace(blank, luma_HW=yuv_3HW[0], chroma_2HW=yuv_3HW[1:])
    unspecified = frame.color_range not in (ColorRange.MPEG, ColorRange.JPEG)
    full = frame.color_range == ColorRange.JPEG or "yuvj" in name or (name.startswith("gray") and unspecified)
    black, luma_scale, chroma_scale, middle = _levels(bits, full)
    luma_HW = (planes[0] - black) / luma_scale
    grey = len(planes) == 1
    chroma_2HW = torch.zeros(2, *luma_HW.shape) if grey else (torch.stack(planes[1:]) - middle) / chroma_scale
    return Planes(luma_HW, chroma_2HW, alpha_HW, frame.colorspace, full, bits)


def side_data(frame: av.VideoFrame, kind: Type) -> bytes:
    """What a frame says of itself, or nothing."""
    known: Any = frame.side_data
    found = known.get(kind)
    return b"" if found is None else bytes(found)


def _is_mirrored(frame: av.VideoFrame) -> bool:
    matrix = struct.unpack_from("=9i", side_data(frame, Type.DISPLAYMATRIX) or bytes(36))
    return matrix[0] * matrix[4] < matrix[1] * matrix[3]


def _as_planar(frame: av.VideoFrame, bits: int) -> av.VideoFrame:
    """The same samples, each kind in a plane of its own."""
    kind, deep = frame.format, f"{bits}le" if bits > 8 else ""
    alpha = kind.has_palette or any(component.is_alpha for component in kind.components)
    columns, rows = (-(-64 // size) for size in (kind.chroma_width(64), kind.chroma_height(64)))
    sampling = {(1, 1): "444", (2, 1): "422", (2, 2): "420", (4, 1): "411", (1, 2): "440"}.get((columns, rows))
    if kind.is_rgb or kind.has_palette or len(kind.components) < 3 or sampling is None:
        format = f"gbr{'a' * alpha}p{deep}"
    else:
        format = f"yuv{'a' * alpha}{sampling}p{deep}"
    return frame.reformat(format=format, threads=1)  # with more, some samples where two parts meet stay unwritten


def _levels(bits: int, full_range: bool) -> tuple[int, int, int, int]:
    """Black and the span of luma, the span and the middle of chroma, as samples hold them."""
    most, step = 2**bits - 1, 2 ** (bits - 8)
    return (0, most, most, 128 * step) if full_range else (16 * step, 219 * step, 224 * step, 128 * step)


def _rows(plane: VideoPlane, bits: int) -> NDArray[Any]:
    """Its samples, to be read and written in place; rows are longer than the picture is wide."""
    kind = np.dtype("<u2" if bits > 8 else "u1")
    return np.frombuffer(memoryview(plane), kind).reshape(-1, plane.line_size // kind.itemsize)


def _times(matrix: Tensor, picture_3HW: Tensor) -> Tensor:
    return torch.einsum("ij,jhw->ihw", matrix.to(picture_3HW), picture_3HW)


def _resized(planes_CHW: Tensor, height: int, width: int) -> Tensor:
    if planes_CHW.shape[1:] == (height, width):
        return planes_CHW
    return F.interpolate(planes_CHW[None], (height, width), mode="bilinear", antialias=True)[0]


def _grown(planes_CHW: Tensor, height: int, width: int) -> Tensor:
    """The last row and column repeated."""
    more = width - planes_CHW.shape[2], height - planes_CHW.shape[1]
    return F.pad(planes_CHW[None], (0, more[0], 0, more[1]), mode="replicate")[0] if any(more) else planes_CHW


CONTAINERS = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska", ".webm": "webm"}
_ONLY_READ = "avi mpg mpeg mpe vob mod wmv asf flv f4v ts mts m2ts m2t tod 3gp 3g2 qt ogv"
VIDEO_SUFFIXES = frozenset(CONTAINERS) | {f".{suffix}" for suffix in _ONLY_READ.split()}
# What FFmpeg may take a file for. A playlist, which is none of these, would have it open other files and addresses.
READABLE = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpeg,mpegts,asf,flv,ogg"
_DECODES_ALPHA = {"vp9": "libvpx-vp9", "vp8": "libvpx"}
_USUAL_RATE = Fraction(25)
_NO_RATE = 1000  # a second: by which the clock of WMV counts, where no rate is told
_NEARLY_ALL = 0.9  # of a file's length; its sound may be a little longer
_LONGEST_GAP = 60  # seconds; more is a clock that was set anew


@dataclass(frozen=True)
class Frame:
    """One frame: the picture (3, H, W), upright, in [0, 1]; its planes; as it was decoded; when it is shown."""

    image: Tensor
    planes: Planes
    decoded: av.VideoFrame
    pts: int | None  # in the video's time base; None if the file does not tell

    @property
    def alpha(self) -> Tensor | None:
        """(1, H, W) in [0, 1], if something is transparent."""
        alpha_HW = self.planes.alpha_HW
        return None if alpha_HW is None or bool((alpha_HW == 1).all()) else alpha_HW[None]


class VideoReader:
    """The frames of a video file, one after the other; what cannot be decoded is left out and counted as `damaged`."""

    def __init__(self, path: Path | str, container: InputContainer, max_megapixels: float) -> None:
        """Raises PictureError if there is none in it, or too large ones; `path` may be what to call an address."""
        best = container.streams.best("video")
        self.cut_off = missing_share(path) if isinstance(path, Path) else 0.0
        if not isinstance(best, VideoStream) or best.disposition & Disposition.attached_pic:  # a cover
            why = "is cut off, and without its end no video can be read" if self.cut_off else "there is no video"
            raise PictureError(f"{path}: {why} in this file.")
        if best.codec_context is None:  # which the library's own types deny
            raise PictureError(f"{path}: the video in this file is of a kind that cannot be decoded.")
        self.path, self.container, self.stream = path, container, best
        self.stream.thread_type = "AUTO"
        guessed = self.stream.guessed_rate
        told = self.stream.average_rate or (guessed if guessed and guessed < _NO_RATE else None)
        self.rate = told or _USUAL_RATE
        self.time_base = self.stream.time_base or 1 / self.rate
        self.damaged, self.deinterlaced, self.has_other_view = 0, False, False
        self._spoilt = self._missing = self._even = self._jumps = 0  # frames; what lies between two of them
        self._due: float | None = None  # seconds
        self._ends = ""
        name = self.stream.codec_context.name
        # Programs write anything where raw AVI could tell what is transparent, mostly zeros.
        self._is_raw = container.format.name == "avi" and name == "rawvideo"
        # FFmpeg's own decoder of VP9 and VP8 knows no transparency.
        self._decoder: VideoCodecContext | None = None
        if name in _DECODES_ALPHA and {"alpha_mode", "ALPHA_MODE"} & self.stream.metadata.keys():
            self._decoder = cast(VideoCodecContext, av.CodecContext.create(_DECODES_ALPHA[name], "r"))
        self._hidden = hidden_by(best)
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

    @property
    def notes(self) -> list[str]:
        """What is lost of the file, or other than it was; complete once the last frame was read."""
        notes = ["it was interlaced; its frames are whole now"] if self.deinterlaced else []
        if self.cut_off:
            notes.append(f"the file is cut off: {self.cut_off:.0%} of it is missing, and with it the last frames")
        if self._missing > self.damaged and self._even > 9 * self._jumps:  # of uneven times nobody knows
            notes.append(f"by the times of the others {_frames(self._missing)} missing in the file")
        if self._ends:
            notes.append(self._ends)
        if self._spoilt:
            notes.append(f"{_frames(self._spoilt)} damaged in the file, and may spoil those behind")
        if self.has_other_view and not (self.stream.codec_context.pix_fmt or "").startswith("yuva"):
            notes.append("its second view, for the other eye, is left out")
        return notes

    def __iter__(self) -> Iterator[Frame]:
        return self.frames_from(0)

    def frames_from(self, number: int) -> Iterator[Frame]:
        """All frames but the first `number`, which are decoded only."""
        return map(self.frame_of, islice(self.decoded(), number, None))

    def frame_of(self, decoded: av.VideoFrame) -> Frame:
        """One of `decoded` as a picture, which takes longer than decoding it."""
        try:
            # FFmpeg tells the turn counter-clockwise, as numpy takes it.
            planes = planes_of(decoded, round(decoded.rotation / 90), _is_mirrored(decoded), self._hidden)
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
                yield from weaver.whole(None)
                weaver = None
            self._check_size(frame.width, frame.height)
            if weaver is None and frame.interlaced_frame:
                weaver = _Deinterlacer(frame)
                self.deinterlaced = True
            yield from [frame] if weaver is None else weaver.whole(frame)
        if weaver is not None:
            yield from weaver.whole(None)

    def _decoded(self) -> Iterator[av.VideoFrame]:
        packets, first = self.container.demux(self.stream), True
        while True:
            try:
                packet = next(packets)
                if first and packet.size:
                    first, self.has_other_view = False, has_other_view(packet)
                frames = self._decoder.decode(packet if packet.size else None) if self._decoder else packet.decode()
            except StopIteration:
                length = (self.container.duration or 0) / av.time_base
                if self._due is not None and self._due < min(_NEARLY_ALL * length, length - 1) and not self.cut_off:
                    self._ends = f"its pictures end after {self._due:.1f} of {length:.1f} seconds"
                return
            except av.error.ExitError:  # the time is over that `open` was given
                raise PictureError(f"{self.path}: for a while no whole picture came.") from None
            except av.error.InvalidDataError:
                self.damaged += 1
                continue
            except av.FFmpegError as error:
                raise PictureError(f"{self.path}: reading this video stopped half-way ({error.strerror}).") from error
            for frame in frames:
                self._look_at(frame)
                yield frame

    def _look_at(self, frame: av.VideoFrame) -> None:
        """Count it if it is damaged, and those that should lie between it and the one before."""
        self._spoilt += frame.is_corrupt
        if frame.time is None:
            return
        if self._due is not None:
            late = round((frame.time - self._due) * self.rate)
            self._even, self._jumps = self._even + (late == 0), self._jumps + (late != 0)
            if abs(late) < _LONGEST_GAP * self.rate:
                self._missing += late
        length = (frame.duration or 0) * (frame.time_base or 0)
        self._due = frame.time + float(length or 1 / self.rate)

    def _check_size(self, width: int, height: int) -> None:
        if width * height > self._limit * 1e6:
            raise PictureTooLargeError(
                f"{self.path}: frames of {width} x {height} pixels are more than the limit of "
                f"{self._limit:g} megapixels."
            )


def _frames(count: int) -> str:
    return "1 frame is" if count == 1 else f"{count} frames are"


class _Deinterlacer:
    """Makes whole frames of interlaced ones, as many; those that are whole pass. It is a frame behind."""

    def __init__(self, like: av.VideoFrame) -> None:
        self._kind = like.width, like.height, like.format.name
        self._graph = av.filter.Graph()
        width, height, _ = self._kind
        start = self._graph.add_buffer(width=width, height=height, format=like.format, time_base=like.time_base)
        weaver = self._graph.add("bwdif", "mode=send_frame:parity=auto:deint=interlaced")
        self._graph.link_nodes(start, weaver, self._graph.add("buffersink")).configure()

    def takes(self, frame: av.VideoFrame) -> bool:
        return (frame.width, frame.height, frame.format.name) == self._kind

    def whole(self, frame: av.VideoFrame | None) -> Iterator[av.VideoFrame]:
        """What is ready once this one is there; with None all that is left."""
        self._graph.vpush(frame)
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
            if path.is_file() and not path.stat().st_size:
                why = "it is empty"
            raise PictureError(f"{path}: cannot be read as a video ({why}).") from error
        yield VideoReader(path, container, max_megapixels)


def open_video(file: BinaryIO) -> InputContainer:
    # Old programs write titles in letters of their own.
    return av.open(file, "r", options={"format_whitelist": READABLE}, metadata_errors="replace")
