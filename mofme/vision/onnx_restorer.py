"""Restoration nets of others as ONNX files: a picture in, a picture of the same size out, both RGB in [0, 1]."""

from itertools import product

import torch
from torch import Tensor

from mofme.errors import ModelError
from mofme.vision.onnx_net import OnnxNet
from mofme.vision.tiling import pad_to

_MULTIPLES = (1, 8, 16, 32, 64)  # what sides may have to be multiples of, tried in this order


class OnnxRestorer:
    """Gives an ONNX net pictures of any size: padded if it must be, in overlapping windows if its size is fixed."""

    def __init__(self, net: OnnxNet) -> None:
        self._net = net
        self._multiples = list(_MULTIPLES)

    def __call__(self, image: Tensor) -> Tensor:
        """(3, H, W) -> (3, H, W). Raises ModelError if the net does not restore pictures of this size."""
        height, width = image.shape[-2:]
        windows = [want or have for want, have in zip(self._net.size, (height, width), strict=True)]
        rows, columns = (_starts(*lengths) for lengths in zip((height, width), windows, strict=True))
        # Each window fades out towards its edges, where the net saw least around it.
        weight = _ramp(windows[0])[:, None] * _ramp(windows[1])
        total, weights = torch.zeros_like(image), torch.zeros_like(image[:1])
        for top, left in product(rows, columns):
            part = image[:, top : top + windows[0], left : left + windows[1]]
            place = (slice(top, top + part.shape[1]), slice(left, left + part.shape[2]))
            fade = weight[: part.shape[1], : part.shape[2]]
            total[:, *place] += fade * self._run(part, windows)
            weights[:, *place] += fade
        return total / weights

    def _run(self, part: Tensor, window: list[int]) -> Tensor:
        for tried, multiple in enumerate(self._multiples):
            height, width = (
                want or -(-least // multiple) * multiple for want, least in zip(self._net.size, window, strict=True)
            )
            try:
                restored = self._restore(pad_to(part, height, width))[:, : part.shape[1], : part.shape[2]]
            except ModelError as error:
                if None not in self._net.size:
                    raise
                failed = error
            else:
                # Smaller ones are not tried again with later pictures: what needs padding is the net.
                del self._multiples[:tried]
                return restored
        raise failed

    def _restore(self, padded: Tensor) -> Tensor:
        restored = self._net(padded[None]).to(padded.dtype)
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
