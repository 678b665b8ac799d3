"""Nets as ONNX files, on the CPU: any net of one picture, and those that restore it.

A restorer gives a picture of the same size, RGB in [0, 1] both. As those that `export` writes do, it may take the whole
picture's thumbnail beside the part that it restores.
"""

import importlib
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mofme.errors import ModelError
from mofme.vision.tiling import pad_to, thumbnail

_TYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16}


@dataclass(frozen=True, eq=False)
class OnnxNet:
    """Takes (1, 3, H, W); `size` is the H and W it wants, None where it takes any.

    Where `thumbnail_size` is a number S, a second input is the whole picture's thumbnail, (1, 3, S, S).
    """

    path: Path
    size: tuple[int | None, int | None]
    session: Any
    thumbnail_size: int | None = None

    def __call__(self, *images: Tensor) -> Tensor:
        """The first output for the inputs in their order. Raises ModelError for a size that the net cannot take."""
        inputs = zip(self.session.get_inputs(), images, strict=False)
        fed = {given.name: image.cpu().numpy().astype(_TYPES[given.type]) for given, image in inputs}
        try:
            answer = self.session.run(None, fed)[0]
        except Exception as error:  # onnxruntime raises its own kinds, none of which it exports
            height, width = images[0].shape[2:]
            raise ModelError(f"{self.path} cannot take a picture of {width}x{height} pixels: {error}") from error
        return torch.from_numpy(np.asarray(answer))


def load_onnx(path: Path) -> OnnxNet:
    """Open an ONNX file, with as many threads as torch has. Raises ModelError for what cannot be used."""
    try:
        onnxruntime = importlib.import_module("onnxruntime")
    except ImportError as error:
        raise ModelError(f"{path} needs ONNX Runtime: pip install onnxruntime==1.32.0") from error
    if not path.is_file():
        raise ModelError(f"{path}: no such file")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # fatal: what goes wrong is raised, too
    options.intra_op_num_threads = torch.get_num_threads()
    try:
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # as above
        raise ModelError(f"{path} is not an ONNX file that can be run: {error}") from error
    given, *more = session.get_inputs()
    fixed = [length if isinstance(length, int) else None for length in given.shape]
    if len(fixed) != 4 or fixed[1] not in (3, None):
        raise ModelError(f"{path}: its input has the shape {given.shape}, expected one of (1, 3, height, width)")
    side = more[0].shape[-1] if len(more) == 1 else None
    if more and (not isinstance(side, int) or more[0].shape != [1, 3, side, side]):
        raise ModelError(f"{path}: beside the picture it takes {more[0].shape}, expected nothing or a thumbnail")
    if unknown := {one.type for one in (given, *more)} - _TYPES.keys():
        raise ModelError(f"{path}: its input is a {min(unknown)}, expected one of {', '.join(_TYPES)}")
    return OnnxNet(path, (fixed[2], fixed[3]), session, side)


class OnnxRestorer:
    """Gives an ONNX net pictures of any size: padded if it must be, in overlapping windows if its size is fixed."""

    def __init__(self, net: OnnxNet) -> None:
        self._net = net
        self._multiples = [1, 8, 16, 32, 64]  # what sides may have to be multiples of, tried in this order

    def __call__(self, image: Tensor) -> Tensor:
        """(3, H, W) -> (3, H, W). Raises ModelError if the net does not restore pictures of this size."""
        height, width = image.shape[-2:]
        windows = [want or have for want, have in zip(self._net.size, (height, width), strict=True)]
        rows, columns = (_starts(*lengths) for lengths in zip((height, width), windows, strict=True))
        # Each window fades out towards its edges, where the net saw least around it.
        weight = _ramp(windows[0])[:, None] * _ramp(windows[1])
        total, weights = torch.zeros_like(image), torch.zeros_like(image[:1])
        side = self._net.thumbnail_size
        whole = [thumbnail(image, side)[None]] if side else []
        for top, left in product(rows, columns):
            part = image[:, top : top + windows[0], left : left + windows[1]]
            place = (slice(top, top + part.shape[1]), slice(left, left + part.shape[2]))
            fade = weight[: part.shape[1], : part.shape[2]]
            total[:, *place] += fade * self._run(part, windows, whole)
            weights[:, *place] += fade
        return total / weights

    def _run(self, part: Tensor, window: list[int], whole: list[Tensor]) -> Tensor:
        for tried, multiple in enumerate(self._multiples):
            sides = (
                want or -(-least // multiple) * multiple for want, least in zip(self._net.size, window, strict=True)
            )
            try:
                restored = self._restore(pad_to(part, *sides), whole)[:, : part.shape[1], : part.shape[2]]
            except ModelError as error:
                if None not in self._net.size:
                    raise
                failed = error
            else:
                # Smaller ones are not tried again with later pictures: what needs padding is the net.
                del self._multiples[:tried]
                return restored
        raise failed

    def _restore(self, padded: Tensor, whole: list[Tensor]) -> Tensor:
        restored = self._net(padded[None], *whole).to(padded.dtype)
        if restored.shape != (1, *padded.shape):
            raise ModelError(
                f"{self._net.path}: a picture of the shape {(1, *padded.shape)} comes out as {tuple(restored.shape)}; "
                "only nets that keep the size can be compared"
            )
        return restored[0]


def _starts(length: int, window: int) -> list[int]:
    """Where windows begin that cover `length` and share at least a quarter."""
    last = max(length - window, 0)
    return [*range(0, last, max(window * 3 // 4, 1)), last]


def _ramp(length: int) -> Tensor:
    up = torch.arange(1.0, length + 1)
    return torch.minimum(up, up.flip(0))
