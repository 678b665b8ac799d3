"""Nets of others as ONNX files: one picture in, the net's first output out, on the CPU."""

import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mofme.errors import ModelError

_TYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16}


@dataclass(frozen=True, eq=False)
class OnnxNet:
    """Takes (1, 3, H, W); `size` is the H and W it wants, None where it takes any."""

    path: Path
    size: tuple[int | None, int | None]
    session: Any

    def __call__(self, image: Tensor) -> Tensor:
        """The first output. Raises ModelError for a size that the net cannot take."""
        given = self.session.get_inputs()[0]
        fed = image.cpu().numpy().astype(_TYPES[given.type])
        try:
            answer = self.session.run(None, {given.name: fed})[0]
        except Exception as error:  # onnxruntime raises its own kinds, none of which it exports
            raise ModelError(
                f"{self.path} cannot take a picture of {fed.shape[3]}x{fed.shape[2]} pixels: {error}"
            ) from error
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
    given = session.get_inputs()[0]
    fixed = [length if isinstance(length, int) else None for length in given.shape]
    if len(session.get_inputs()) != 1 or len(fixed) != 4 or fixed[1] not in (3, None):
        raise ModelError(f"{path}: its input has the shape {given.shape}, expected one of (1, 3, height, width)")
    if given.type not in _TYPES:
        raise ModelError(f"{path}: its input is a {given.type}, expected one of {', '.join(_TYPES)}")
    return OnnxNet(path, (fixed[2], fixed[3]), session)
