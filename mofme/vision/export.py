"""The restoration net for other runtimes, which need nothing of this package: ONNX, OpenVINO's IR or TorchScript.

    image (1, 3, H, W), thumbnail (1, 3, 64, 64) -> restored (1, 3, H, W)

All are RGB in [0, 1]; H and W are any multiples of 8. The thumbnail is the mean of the whole picture over a grid: who
restores a picture in parts hands every part that of the whole. The tone net is not in the file, nor are guards and
tiling.

MoFME's feed-forward blocks become 1x1 convolutions over (B, C, H, W), for runtimes that compile a fixed graph: of one
of tokens they spend their time on moving data between layouts. What is constant is folded into the weights. The same
numbers come out, but for rounding, and for scores that are exactly equal at the last place: then all of those stay.
"""

import copy
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
from torch.nn import functional as F

from mofme.core.experts import FeatureModulatedExperts
from mofme.core.moe import MoE
from mofme.core.uncertainty import RIDGE, TINY, UncertaintyRouter
from mofme.core.weights import ModelCard
from mofme.errors import ModelError
from mofme.files import ASSETS, atomic_file
from mofme.vision.models import load_net
from mofme.vision.nets.unet import CONTEXT_SIZE, STRIDE, FeedForwardBlock, RestorationNet
from mofme.vision.onnx import load_onnx
from mofme.vision.picture.file import read_picture
from mofme.vision.tiling import thumbnail


def folded(net: RestorationNet) -> RestorationNet:
    """A copy of `net`, in which every block with MoFME's own router and experts is a FoldedBlock; others stay."""
    net = copy.deepcopy(net).eval()
    for name, module in list(net.named_modules()):
        if isinstance(module, FeedForwardBlock) and isinstance(module.layer, MoE):
            router, experts = module.layer.router, module.layer.experts
            of_mofme = isinstance(router, UncertaintyRouter) and isinstance(experts, FeatureModulatedExperts)
            if of_mofme and router.samples is None:
                net.set_submodule(name, FoldedBlock(module.norm, router, experts))
    return net


class FoldedBlock(nn.Module):
    """FeedForwardBlock around UncertaintyRouter in closed form and FeatureModulatedExperts, to run, not to train.

    `uncertainty` is that of the latest run, (B, 1, H, W).
    """

    uncertainty: Tensor

    def __init__(self, norm: nn.LayerNorm, router: UncertaintyRouter, experts: FeatureModulatedExperts) -> None:
        super().__init__()
        score_EC = router.score.weight.detach()
        num_experts, channels = score_EC.shape
        variance_EC = router.dropout / (1 - router.dropout) * score_EC.square()
        network = experts.feed_forward
        self.top_k = router.top_k
        self.eps = norm.eps
        self.gain = nn.Parameter(norm.weight.detach()[:, None, None].clone())
        self.bias = nn.Parameter(norm.bias.detach()[:, None, None].clone())
        self.less_mean = _pointwise(torch.eye(channels) - 1 / channels)
        # Means and sums come out in every channel: no runtime has to spread one channel over the others.
        self.mean = _pointwise(torch.full((channels, channels), 1 / channels))
        self.score = _pointwise(score_EC - score_EC.mean(dim=0))
        self.variance = _pointwise(variance_EC)
        self.noise = _pointwise(variance_EC.mean(dim=0).expand(num_experts, -1))
        self.sum = _pointwise(torch.ones(num_experts, num_experts))
        self.gamma = _pointwise(experts.gamma_ED.detach().T)
        self.beta = _pointwise(experts.beta_ED.detach().T)
        self.expand = _pointwise(network.expand.weight.detach(), network.expand.bias)
        self.contract = _pointwise(network.contract.weight.detach(), network.contract.bias)

    def forward(self, x: Tensor) -> Tensor:
        centred = self.less_mean(x)
        normed = centred * (self.mean(centred * centred) + self.eps).rsqrt() * self.gain + self.bias
        squared = normed * normed
        score, noise = self.score(normed), self.noise(squared)
        calibrated = score / (self.variance(squared) / noise.clamp_min(TINY) + RIDGE)
        weights = calibrated * (self.sum(calibrated * calibrated) + TINY).rsqrt()
        weights = weights * (weights >= self._kth_largest(weights)).to(weights.dtype)
        modulated = self.beta(weights) + normed * self.gamma(weights)
        spread = self.sum(score * score)[:, :1] / score.shape[1]
        noise, signal = (noise[:, :1] + TINY).sqrt(), (spread + TINY).sqrt()
        self.uncertainty = noise / (noise + signal)
        y: Tensor = x + self.contract(F.gelu(self.expand(modulated)))
        return y

    def _kth_largest(self, weights: Tensor) -> Tensor:
        for _ in range(self.top_k - 1):
            weights = weights.masked_fill(weights >= weights.amax(dim=1, keepdim=True), -2.0)  # below all, of length 1
        return weights.amax(dim=1, keepdim=True)


def _pointwise(weight_OI: Tensor, bias_O: Tensor | None = None) -> nn.Conv2d:
    layer = nn.Conv2d(weight_OI.shape[1], weight_OI.shape[0], 1, bias=bias_O is not None)
    layer.weight = nn.Parameter(weight_OI[..., None, None].clone())
    if bias_O is not None:
        layer.bias = nn.Parameter(bias_O.detach().clone())
    return layer


METADATA_FILE = "metadata.json"  # within a TorchScript file
ONNX = "onnx==1.23.2"
ONNXRUNTIME = "onnxruntime==1.32.0"
OPENVINO = "openvino==2026.4.1"

# Image and thumbnail, so small that feed-forwards do not work in parts, whose number would be fixed.
EXAMPLE = torch.linspace(0, 1, 3 * 48 * 64).view(1, 3, 48, 64), torch.full((1, 3, CONTEXT_SIZE, CONTEXT_SIZE), 0.5)

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
        if not difference <= 1 / 255:
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
        "left_out": "tone, guards, tiling",
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


def onnx_bytes(module: nn.Module, example: tuple[Tensor, ...], inputs: list[str], outputs: list[str]) -> bytes:
    """The ONNX model of `module`. The first input and what is of its size, the first output, take any height and width,
    as do outputs called `..._map`.
    """
    content = io.BytesIO()
    size = {2: "height", 3: "width"}
    maps = [name for name in outputs if name.endswith("_map")]
    anywhere = {name: {axis: f"{name}_{side}" for axis, side in size.items()} for name in maps}
    # Both ways that torch offers without onnxscript are deprecated, and remark on every size that is checked.
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module,
            example,
            content,  # type: ignore[arg-type]  # takes files, too
            dynamo=False,
            opset_version=17,  # the first with layer normalisation
            input_names=inputs,
            output_names=outputs,
            dynamic_axes={inputs[0]: size, outputs[0]: size, **anywhere},
        )
    return content.getvalue()


def _whole_net(module: nn.Module) -> bytes:
    return onnx_bytes(module, EXAMPLE, ["image", "thumbnail"], ["restored"])


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
    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": torch.get_num_threads()}
    compiled: Any = importlib.import_module("openvino").Core().compile_model(path, "CPU", settings)
    return lambda *inputs: torch.from_numpy(compiled([one.numpy() for one in inputs])[0])


def _write_torchscript(module: nn.Module, path: Path, about: Metadata) -> None:
    traced = torch.jit.trace(module, EXAMPLE, check_trace=False)
    torch.jit.save(traced, path, _extra_files={METADATA_FILE: json.dumps(about)})


# What each needs beside torch, writes and loads with.
FORMATS: dict[str, tuple[list[str], Callable[[nn.Module, Path, Metadata], None], Callable[[Path], Restore]]] = {
    "onnx": ([ONNX, ONNXRUNTIME], _write_onnx, load_onnx),
    "openvino": ([OPENVINO], _write_openvino, _load_openvino),
    "torchscript": ([], _write_torchscript, torch.jit.load),
}
