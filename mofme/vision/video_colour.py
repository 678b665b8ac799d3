"""Frames of a video to RGB and back: what a picture changed is added to the planes that were decoded.

FFmpeg's conversion there and back rounds down: it darkens by 1 of 255, and full range by more. Here the difference of
two pictures is converted, so that the planes of a picture that did not change stay as they were, to the last bit.
"""

import re
from dataclasses import dataclass, replace
from typing import Any

import av
import numpy as np
import torch
from av.video.plane import VideoPlane
from av.video.reformatter import ColorRange
from torch import Tensor
from torch.nn import functional as F

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
        most, step = 2**bits - 1, 2 ** (bits - 8)
        black, luma_scale, chroma_scale = (0, most, most) if self.full_range else (16 * step, 219 * step, 224 * step)
        values = [luma_1HW[0] * luma_scale + black, *(_resized(chroma_2HW, h, w) * chroma_scale + 128 * step)]
        values += [alpha_1HW[0] * most] * (len(frame.planes) - 3)
        for plane, values_HW in zip(frame.planes, values, strict=True):
            _write(plane, values_HW.round().clamp(0, most), bits)
        return frame

    def on_white(self) -> "Planes":
        """What is seen on a white ground, without alpha."""
        if self.alpha_HW is None:
            return self
        before = self.rgb()
        after = before * self.alpha_HW + (1 - self.alpha_HW)
        return replace(replace(self, alpha_HW=None).changed(before, after))

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


def planes_of(frame: av.VideoFrame, quarter_turns: int = 0) -> Planes:
    """The planes of a decoded frame in any format, turned counter-clockwise. RGB gets the matrix of ITU 709."""
    bits = min(max(8, *(component.bits for component in frame.format.components)), 16)
    planar = frame if _READ_AS_THEY_ARE.fullmatch(frame.format.name) else _as_planar(frame, bits)
    name = planar.format.name
    planes = [torch.from_numpy(np.rot90(_read(plane, bits), quarter_turns).copy()) for plane in planar.planes]
    most, step = 2**bits - 1, 2 ** (bits - 8)
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
    black, luma_scale, chroma_scale = (0, most, most) if full else (16 * step, 219 * step, 224 * step)
    luma_HW = (planes[0] - black) / luma_scale
    grey = len(planes) == 1
    chroma_2HW = torch.zeros(2, *luma_HW.shape) if grey else (torch.stack(planes[1:]) - 128 * step) / chroma_scale
    return Planes(luma_HW, chroma_2HW, alpha_HW, frame.colorspace, full, bits)


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


def _read(plane: VideoPlane, bits: int) -> Any:
    kind = np.dtype("<u2" if bits > 8 else "u1")
    rows = np.frombuffer(memoryview(plane), kind).reshape(-1, plane.line_size // kind.itemsize)
    return rows[: plane.height, : plane.width].astype(np.float32)


def _write(plane: VideoPlane, values_HW: Tensor, bits: int) -> None:
    kind = np.dtype("<u2" if bits > 8 else "u1")
    rows = np.zeros((plane.buffer_size // plane.line_size, plane.line_size // kind.itemsize), kind)
    rows[: plane.height, : plane.width] = values_HW.cpu().numpy()
    plane.update(rows.tobytes())


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
