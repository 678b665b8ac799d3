"""Where a runtime's time goes, and what public nets of known size reach by it.

Public nets are built as their papers have them, with random weights, which cost what trained ones do.
"""

import copy
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torchvision
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from mofme.core.training import bf16_pays
from mofme.vision.export import onnx_bytes
from mofme.vision.models import load_net
from mofme.vision.restorer import Restorer
from mofme.vision.runtime import TORCH, compile_openvino, graph_of, in_turn, installed

OPENVINO = "openvino"
CONVOLUTIONS, PRODUCTS, STEPS, MOVES = "convolutions", "products at each position", "steps on each value", "moving data"
KINDS = CONVOLUTIONS, PRODUCTS, STEPS, MOVES
_PRODUCTS = "addmm mm bmm linear"
_MOVES = {
    TORCH: "copy_ cat clone contiguous index gather scatter fill_ zero_ empty reflection_pad2d pixel_shuffle",
    OPENVINO: "Reorder DepthToSpace SpaceToDepth Transpose Slice StridedSlice Concat Convert Broadcast VariadicSplit",
}
_SIDE = 512  # of the picture that all nets are given


def where_time_goes(model: str, image: Tensor) -> dict[str, dict[str, float]]:
    """Percent of a runtime's time that each kind of work takes when it restores `image`; of torch, and OpenVINO."""
    restore = Restorer.from_pretrained(model, "cpu")
    restore(image)
    kinds = Counter[str]()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], record_shapes=True) as profile:
        restore(image)
    for event in profile.key_averages(group_by_input_shape=True):
        kinds[_kind_in_torch(event.key.removeprefix("aten::"), event.input_shapes)] += event.self_cpu_time_total
    found = {TORCH: kinds}
    if OPENVINO in installed():
        found[OPENVINO] = _in_openvino(restore, image)
    return {name: {kind: 100 * taken / kinds.total() for kind, taken in kinds.items()} for name, kinds in found.items()}


def _in_openvino(restore: Restorer, image: Tensor) -> Counter[str]:
    height, width = (8 * (side // 8) for side in image.shape[-2:])
    request = compile_openvino(graph_of(restore.net), (height, width), PERF_COUNT=True).create_infer_request()
    inputs = [image[None, :, :height, :width].numpy(), restore.net.encode_context(image[None]).detach().numpy()]
    kinds = Counter[str]()
    for _ in range(2):  # the first does not count
        request.infer(inputs)
        kinds.clear()
        for node in request.profiling_info:
            kinds[_kind_in_openvino(node.node_type, node.exec_type)] += node.real_time.total_seconds()
    return kinds


def _kind_in_torch(name: str, shapes: Sequence[Sequence[int]]) -> str:
    if "convolution" in name and len(shapes) > 1:
        return PRODUCTS if list(shapes[1][2:]) == [1, 1] else CONVOLUTIONS
    return PRODUCTS if name in _PRODUCTS.split() else MOVES if name in _MOVES[TORCH].split() else STEPS


def _kind_in_openvino(name: str, how: str) -> str:
    if name == "Convolution":
        return PRODUCTS if "1x1" in how else CONVOLUTIONS
    return MOVES if name in _MOVES[OPENVINO].split() else STEPS


@dataclass(frozen=True)
class Reached:
    """A net on one picture: its parameters, operations, and by its name each runtime's CPU seconds in every repeat."""

    parameters: int
    operations: int
    pixels: int
    seconds: Mapping[str, Sequence[float]]


def public_nets() -> dict[str, nn.Module]:
    """Nets whose size everybody knows, by name; from (1, 3, H, W) to one tensor."""
    resnet, mobilenet = torchvision.models.resnet18(), torchvision.models.mobilenet_v3_large()
    return {
        "DnCNN, 17 layers of 64 (Zhang et al. 2017)": _dncnn(17, 64),
        "SRCNN, 9-1-5 (Dong et al. 2014)": nn.Sequential(
            nn.Conv2d(3, 64, 9, padding=4),
            nn.ReLU(),
            nn.Conv2d(64, 32, 1),
            nn.ReLU(),
            nn.Conv2d(32, 3, 5, padding=2),
        ),
        "ResNet-18, features (He et al. 2016)": nn.Sequential(*list(resnet.children())[:-2]),
        "MobileNetV3-Large, features (Howard et al. 2019)": mobilenet.features,
    }


def _dncnn(depth: int, channels: int) -> nn.Module:
    layers: list[nn.Module] = [nn.Conv2d(3, channels, 3, padding=1), nn.ReLU()]
    for _ in range(depth - 2):
        layers += [nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels), nn.ReLU()]
    return nn.Sequential(*layers, nn.Conv2d(channels, 3, 3, padding=1))


def compare_nets(model: str, repeats: int) -> Iterator[tuple[str, Reached]]:
    """The model, and then public nets, each by eager torch and by OpenVINO where it is installed."""
    picture = torch.rand(1, 3, _SIDE, _SIDE, generator=torch.Generator().manual_seed(0))
    net = load_net(model)[0].eval()
    for name, one in {model: net, **public_nets()}.items():
        ways: dict[str, Callable[[Tensor], object]] = {TORCH: _eager(copy.deepcopy(one))}
        if OPENVINO in installed():
            ways[OPENVINO] = _compiled(one, picture)
        with FlopCounterMode(display=False) as counter:
            ways[TORCH](picture)
        parameters = sum(values.numel() for values in one.parameters())
        taken = in_turn(ways, picture, repeats)
        yield name, Reached(parameters, counter.get_total_flops(), _SIDE**2, taken)


def _eager(net: nn.Module) -> Callable[[Tensor], object]:
    net = net.eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    half = bf16_pays(torch.device("cpu"))

    def run(picture: Tensor) -> object:
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=half):
            return net(picture.contiguous(memory_format=torch.channels_last))

    return run


def _compiled(net: Any, picture: Tensor) -> Callable[[Tensor], object]:
    more = []
    if hasattr(net, "encode_context"):
        graph, more = graph_of(net), [net.encode_context(picture).detach().numpy()]
    else:
        graph = onnx_bytes(net.eval(), (picture,), ["image"], ["features_map"])
    request = compile_openvino(graph, (_SIDE, _SIDE)).create_infer_request()
    return lambda one: request.infer([one.numpy(), *more])
