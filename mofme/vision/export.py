"""The restoration net for other runtimes, which need nothing of this package: ONNX, OpenVINO's IR or TorchScript.

    image (1, 3, H, W), thumbnail (1, 3, 64, 64) -> restored (1, 3, H, W)

All are RGB in [0, 1]; H and W are any multiples of 8. The thumbnail is the mean of the whole picture over a grid: who
restores a picture in parts hands every part that of the whole. The tone net is not in the file, nor is tiling.
"""

import importlib.util
import io
import json
import shutil
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mofme.core.weights import ModelCard
from mofme.errors import ModelError
from mofme.files import ASSETS, atomic_file
from mofme.vision.models import load_net
from mofme.vision.nets.folded import folded
from mofme.vision.nets.unet import CONTEXT_SIZE, STRIDE, RestorationNet
from mofme.vision.onnx import load_onnx
from mofme.vision.picture.file import read_picture
from mofme.vision.tiling import thumbnail

_OPSET = 17  # the first with layer normalisation
_TOLERANCE = 1 / 255
METADATA_FILE = "metadata.json"  # within a TorchScript file
ONNX = "onnx==1.23.2"
ONNXRUNTIME = "onnxruntime==1.32.0"
OPENVINO = "openvino==2026.4.1"

Metadata = dict[str, str]
Restore = Callable[[Tensor, Tensor], Tensor]


class _ImageAndThumbnail(nn.Module):
    """The net as it is exported, from image and thumbnail to the restored image."""

    def __init__(self, net: RestorationNet) -> None:
        super().__init__()
        self.net = net.eval().requires_grad_(False)

    def forward(self, image: Tensor, thumbnail: Tensor) -> Tensor:
        return self.net(image, self.net.encode_context(thumbnail)).image.clamp(0, 1)


def export_net(name: str, path: Path, format: str = "onnx") -> float:
    """Write a model's net to `path`, and tell by how much at most it restores real pixels otherwise than here.

    OpenVINO has its weights in a file of their own, which ends in .bin where `path` ends in .xml.
    Raises ModelError for a model or a format that is none, for a package that is missing, and for a net that cannot be
    exported or would come out different, by over 1/255 of the range. Then no file is written, and an earlier one stays.
    """
    if format not in FORMATS:
        raise ModelError(f"no format is called {format!r}: choose one of {', '.join(FORMATS)}")
    packages, write, load = FORMATS[format]
    if not all(importlib.util.find_spec(package.partition("==")[0]) for package in packages):
        raise ModelError(f"to export as {format}, first pip install {' '.join(packages)}")
    if format == "openvino" and path.suffix != ".xml":
        raise ModelError(f"{path}: OpenVINO reads files whose name ends in .xml; give such a name")
    net, card = load_net(name)
    with tempfile.TemporaryDirectory() as folder:
        try:
            with warnings.catch_warnings(), torch.no_grad():
                warnings.simplefilter("ignore")  # TorchScript remarks on every size that is checked
                made = Path(folder, path.name)
                write(_ImageAndThumbnail(folded(net)), made, metadata(card))
                difference = _largest_difference(_ImageAndThumbnail(net), load(made))
        except (ModelError, RuntimeError) as error:
            raise ModelError(
                f"{name} cannot be exported as {format}: a file holds fixed steps, and which ones this net takes "
                "depends on the picture, as in a conventional mixture"
            ) from error
        if not difference <= _TOLERANCE:
            raise ModelError(
                f"{name} cannot be exported as {format}: the file would restore pictures otherwise than the net, by up "
                f"to {255 * difference:.1f} of 255 levels"
            )
        for part in sorted(made.parent.iterdir()):  # the weights before what names them
            with part.open("rb") as source, atomic_file(path.with_name(part.name)) as file:
                shutil.copyfileobj(source, file)
    return difference


def metadata(card: ModelCard) -> Metadata:
    """What a file says of itself; those above `range` are called as in spandrel's descriptors."""
    return {
        "purpose": "Restoration",
        "scale": "1",
        "input_channels": "3",
        "output_channels": "3",
        "minimum": str(STRIDE),
        "multiple_of": str(STRIDE),
        "square": "false",
        "colour_order": "RGB",
        "range": "0 to 1",
        "thumbnail": f"mean of the whole picture over a grid of {CONTEXT_SIZE} x {CONTEXT_SIZE}",
        "left_out": "tone, tiling",
        "card": json.dumps(asdict(card)),
    }


def _largest_difference(*both: Restore) -> float:
    """Between what two make of real pixels, rain and haze, of two sizes."""
    sheet = read_picture(ASSETS / "before-after.jpg").rgb
    found = []
    for picture in (sheet[:, :160, :240], sheet[:, :200, 1440:1592]):
        seen = picture[None].contiguous(), thumbnail(picture, CONTEXT_SIZE)[None]
        one, other = (restore(*seen) for restore in both)
        found.append((one - other).abs().max())
    return torch.stack(found).max().item()


def _example() -> tuple[Tensor, Tensor]:
    """So small that feed-forwards do not work in parts, whose number would be fixed."""
    return torch.rand(1, 3, 48, 64), torch.rand(1, 3, CONTEXT_SIZE, CONTEXT_SIZE)


def onnx_bytes(module: nn.Module, example: tuple[Tensor, ...], inputs: list[str], outputs: list[str]) -> bytes:
    """The ONNX model of `module`. The first input and what is of its size, the first output, take any height and width,
    as do outputs called `..._map`.
    """
    content = io.BytesIO()
    size = {2: "height", 3: "width"}
    anywhere = {
        name: {axis: f"{name}_{side}" for axis, side in size.items()} for name in outputs if name.endswith("_map")
    }
    # Both ways that torch offers without onnxscript are deprecated, and remark on every size that is checked.
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module,
            example,
            content,  # type: ignore[arg-type]  # takes files, too
            dynamo=False,
            opset_version=_OPSET,
            input_names=inputs,
            output_names=outputs,
            dynamic_axes={inputs[0]: size, outputs[0]: size, **anywhere},
        )
    return content.getvalue()


def _whole_net(module: nn.Module) -> bytes:
    return onnx_bytes(module, _example(), ["image", "thumbnail"], ["restored"])


def _write_onnx(module: nn.Module, path: Path, about: Metadata) -> None:
    onnx = importlib.import_module("onnx")
    model = onnx.load_from_string(_whole_net(module))
    for axis, length in enumerate((1, 3)):  # which the exporter has lost
        model.graph.output[0].type.tensor_type.shape.dim[axis].dim_value = length
    onnx.helper.set_model_props(model, about)
    path.write_bytes(model.SerializeToString())


def _write_openvino(module: nn.Module, path: Path, about: Metadata) -> None:
    openvino = importlib.import_module("openvino")
    model = openvino.Core().read_model(_whole_net(module))
    for key, value in about.items():
        model.set_rt_info(value, ["mofme", key])
    openvino.save_model(model, path, compress_to_fp16=False)


def _load_openvino(path: Path) -> Restore:
    """In full precision, as the other runtimes do."""
    compiled: Any = (
        importlib.import_module("openvino")
        .Core()
        .compile_model(
            path, "CPU", {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": torch.get_num_threads()}
        )
    )
    return lambda *inputs: torch.from_numpy(compiled([one.numpy() for one in inputs])[0])


def _write_torchscript(module: nn.Module, path: Path, about: Metadata) -> None:
    traced = torch.jit.trace(module, _example(), check_trace=False)
    torch.jit.save(traced, path, _extra_files={METADATA_FILE: json.dumps(about)})


# What each needs beside torch, writes and loads with.
FORMATS: dict[str, tuple[list[str], Callable[[nn.Module, Path, Metadata], None], Callable[[Path], Restore]]] = {
    "onnx": ([ONNX, ONNXRUNTIME], _write_onnx, load_onnx),
    "openvino": ([OPENVINO], _write_openvino, _load_openvino),
    "torchscript": ([], _write_torchscript, torch.jit.load),
}
