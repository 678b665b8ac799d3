"""Runtimes against torch on the same pictures: CPU time, share of what the CPU can multiply, and dB that are lost.

All work in turn on every picture, products of large matrices among them, so that whatever else the machine does hits
them alike.

Where a runtime's time goes, and what public nets of known size reach by it, is profiled: they are built as their papers
have them, with random weights, which cost what trained ones do.
"""

import copy
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
import torchvision
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from mofme.core.training import bf16_pays
from mofme.errors import ModelError
from mofme.measure.result import Figure, Result, Row, this_machine
from mofme.measure.statistics import bootstrap
from mofme.vision.benchmark import precision
from mofme.vision.datasets import PairFiles
from mofme.vision.export import onnx_bytes
from mofme.vision.metrics import psnr
from mofme.vision.models import load_net
from mofme.vision.restorer import Restorer
from mofme.vision.runtime import TORCH, compile_openvino, cpu_seconds, graph_of, in_turn, installed

OPENVINO = "openvino"
CONVOLUTIONS, PRODUCTS, STEPS, MOVES = "convolutions", "products at each position", "steps on each value", "moving data"
KINDS = CONVOLUTIONS, PRODUCTS, STEPS, MOVES
_MULTIPLIES = "addmm mm bmm linear"
_MOVES = {
    TORCH: "copy_ cat clone contiguous index gather scatter fill_ zero_ empty reflection_pad2d pixel_shuffle",
    OPENVINO: "Reorder DepthToSpace SpaceToDepth Transpose Slice StridedSlice Concat Convert Broadcast VariadicSplit",
}
_PICTURE_SIDE = 512  # of the picture that all nets are given


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
        with suppress(ModelError):  # whose routing only torch can follow
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
    return PRODUCTS if name in _MULTIPLIES.split() else MOVES if name in _MOVES[TORCH].split() else STEPS


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
    dncnn: list[nn.Module] = [nn.Conv2d(3, 64, 3, padding=1), nn.ReLU()]
    for _ in range(15):
        dncnn += [nn.Conv2d(64, 64, 3, padding=1, bias=False), nn.BatchNorm2d(64), nn.ReLU()]
    dncnn.append(nn.Conv2d(64, 3, 3, padding=1))
    srcnn = [nn.Conv2d(3, 64, 9, padding=4), nn.ReLU(), nn.Conv2d(64, 32, 1), nn.ReLU(), nn.Conv2d(32, 3, 5, padding=2)]
    return {
        "DnCNN, 17 layers of 64 (Zhang et al. 2017)": nn.Sequential(*dncnn),
        "SRCNN, 9-1-5 (Dong et al. 2014)": nn.Sequential(*srcnn),
        "ResNet-18, features (He et al. 2016)": nn.Sequential(*list(torchvision.models.resnet18().children())[:-2]),
        "MobileNetV3-Large, features (Howard et al. 2019)": torchvision.models.mobilenet_v3_large().features,
    }


def compare_nets(model: str, repeats: int) -> Iterator[tuple[str, Reached]]:
    """The model, and then public nets, each by eager torch and by OpenVINO where it is installed."""
    picture = torch.rand(1, 3, _PICTURE_SIDE, _PICTURE_SIDE, generator=torch.Generator().manual_seed(0))
    net = load_net(model)[0].eval()
    for name, one in {model: net, **public_nets()}.items():
        ways: dict[str, Callable[[Tensor], object]] = {TORCH: _eager(copy.deepcopy(one))}
        if OPENVINO in installed():
            with suppress(ModelError):  # as above
                ways[OPENVINO] = _compiled(one, picture)
        with FlopCounterMode(display=False) as counter:
            ways[TORCH](picture)
        parameters = sum(values.numel() for values in one.parameters())
        taken = in_turn(ways, picture, repeats)
        yield name, Reached(parameters, counter.get_total_flops(), _PICTURE_SIDE**2, taken)


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
    request = compile_openvino(graph, (_PICTURE_SIDE, _PICTURE_SIDE)).create_infer_request()
    return lambda one: request.infer([one.numpy(), *more])


FULL = "torch, float32"
_FASTER, _LOST = "times as fast as torch", "lost, dB"
_PRECISIONS = {"bfloat16": torch.bfloat16, "float32": torch.float32}
_SIDE = 1024  # of the matrices
_PRODUCTS = 20


class _FullPrecision(Restorer):
    def _precision(self) -> torch.autocast:
        return torch.autocast(self.device.type, enabled=False)


@dataclass(frozen=True)
class Trial:
    """One pair: operations of the restorer, and by its name each runtime's CPU seconds and PSNR.

    `peaks` is how many operations a second products of matrices reach at that time, by precision.
    """

    operations: int
    pixels: int
    seconds: Mapping[str, float]
    decibels: Mapping[str, float]
    peaks: Mapping[str, float]


def compare_runtimes(model: str, pairs: Sequence[PairFiles], repeats: int) -> Iterator[Trial]:
    """Each pair `repeats` times. Raises ModelError for a model that there is none of."""
    restorers: dict[str, Restorer] = {TORCH: Restorer.from_pretrained(model, "cpu")}
    restorers[FULL] = _FullPrecision.from_pretrained(model, "cpu")
    for name in installed():
        try:
            restorers[name] = Restorer.from_pretrained(model, "cpu", name)
        except ModelError:  # whose routing only torch can follow
            continue
    for pair in pairs:
        image, clean = pair.read()
        with FlopCounterMode(display=False) as counter:
            restorers[TORCH](image)
        decibels = {name: psnr(one(image).image[None], clean[None]).item() for name, one in restorers.items()}
        for _ in range(repeats):
            seconds = {name: cpu_seconds(partial(restore, image)) for name, restore in restorers.items()}
            yield Trial(counter.get_total_flops(), image[0].numel(), seconds, decibels, _matrix_peaks())


def _matrix_peaks() -> dict[str, float]:
    """Operations a CPU second of torch.mm, in each precision."""
    found = {}
    for name, dtype in _PRECISIONS.items():
        matrix = torch.rand(_SIDE, _SIDE).to(dtype)
        (taken,) = in_turn({name: matrix.mm}, matrix, _PRODUCTS).values()
        found[name] = 2 * _SIDE**3 * len(taken) / max(sum(taken), 1e-9)
    return found


def as_result(model: str, trials: Sequence[Trial], command: str, beside: Sequence[Row] = ()) -> Result:
    """A row a runtime, one a precision of products, and `beside`. Raises ModelError if nothing was measured."""
    if not trials:
        raise ModelError("there are no pairs to measure runtimes on")
    runtimes = {name: _figures(name, trials) for name in trials[0].seconds}
    peaks = {
        name: bootstrap(np.array([trial.peaks[name] for trial in trials]) / 1e9, np.median) for name in _PRECISIONS
    }
    rows = [Row(f"Runtimes of {model}", name, figures) for name, figures in runtimes.items()]
    rows += [Row("Products of large matrices", name, {"GFLOP a CPU s": peak}) for name, peak in peaks.items()]
    rows += beside
    told = [
        f"{name}: {figures[_FASTER].text()} times as fast, {figures[_LOST].text()} dB lost"
        for name, figures in runtimes.items()
        if name not in (TORCH, FULL)
    ]
    return Result(
        room="runtimes",
        paper="",
        claim="Another runtime is at least 1.5 times as fast as eager torch, and at most 0.01 dB worse than float32.",
        verdict=f"Against eager torch in {precision()}. {'; '.join(told) or 'No other runtime is installed'}.",
        command=command,
        rows=rows,
        interval="95 % bootstrap of the median over the repeats, of dB of the mean over them",
        machine=this_machine(torch.get_num_threads(), precision()),
    )


def profile_rows(profiles: Sequence[Mapping[str, Mapping[str, float]]]) -> list[Row]:
    """Of each runtime, what share of its time each kind of work took, over the pictures."""
    return [
        Row(
            "Where the time goes, %",
            name,
            {kind: bootstrap(np.array([one[name].get(kind, 0.0) for one in profiles])) for kind in KINDS},
        )
        for name in profiles[0]
    ]


def net_rows(nets: Mapping[str, Reached]) -> list[Row]:
    """Of each net, how large it is, and what of it each runtime does."""
    return [
        Row(
            f"Nets of known size, by {runtime}",
            name,
            {
                "parameters, M": Figure(net.parameters / 1e6),
                "GFLOP a megapixel": Figure(net.operations / net.pixels / 1e3),
                "CPU s a megapixel": bootstrap(1e6 / net.pixels * np.array(seconds), np.median),
                "GFLOP a CPU s": bootstrap(net.operations / 1e9 / np.array(seconds), np.median),
            },
        )
        for runtime in dict.fromkeys(runtime for net in nets.values() for runtime in net.seconds)
        for name, net in nets.items()
        if runtime in net.seconds
        for seconds in [net.seconds[runtime]]
    ]


def _figures(name: str, trials: Sequence[Trial]) -> dict[str, Figure]:
    def median(values: Iterable[float]) -> Figure:
        return bootstrap(np.array(list(values)), np.median)

    return {
        "CPU s a megapixel": median(1e6 * trial.seconds[name] / trial.pixels for trial in trials),
        _FASTER: median(trial.seconds[TORCH] / trial.seconds[name] for trial in trials),
        _LOST: bootstrap(np.array([trial.decibels[FULL] - trial.decibels[name] for trial in trials])),
        **{
            f"of the {of} peak, %": median(100 * t.operations / t.seconds[name] / t.peaks[of] for t in trials)
            for of in _PRECISIONS
        },
    }
