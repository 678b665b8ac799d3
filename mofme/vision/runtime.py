"""Running a restoration net on the CPU by another runtime than torch, which is chosen by a short measurement.

OpenVINO computes in bfloat16 where that pays, as torch does here; ONNX Runtime in full precision. Both take parts of
any size. They give no maps of experts, and nothing can change their routing: for these torch is kept. What they make of
a net is kept as well, as to make it takes seconds, and to open it a fraction of one.
"""

import hashlib
import importlib.util
import json
import os
import time
import warnings
from collections.abc import Callable, Mapping
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mofme.core.moe import moe_layers
from mofme.core.training import bf16_pays
from mofme.core.weights import checksum
from mofme.errors import ModelError
from mofme.files import atomic_file, cache_root, clear_left
from mofme.measure.result import this_machine
from mofme.vision.export import ONNXRUNTIME, OPENVINO, onnx_bytes
from mofme.vision.nets.folded import FoldedBlock, folded
from mofme.vision.nets.unet import RestorationNet

TORCH, AUTO = "torch", "auto"
_SIDE = 512  # of the picture that is timed
_REPEATS = 3
_WORTH = 0.9  # of torch's time: by less it is not left
_KEPT = 8  # graphs of some 6 MB, those that were used last
_DIGEST = hashlib.sha256().digest_size
_HERE = Path(__file__)
_CODE = [_HERE, _HERE.with_name("export.py"), *_HERE.parent.glob("nets/*.py"), *_HERE.parents[1].glob("core/*.py")]

_Compiled = Callable[[list[NDArray[np.float32]]], list[NDArray[np.float32]]]


class Part(NamedTuple):
    """`image` (1, 3, H, W), not clamped; `weather_BW` logits; `uncertainty` of each level (1, 1, h, w), to be added."""

    image: Tensor
    weather_BW: Tensor
    uncertainty: list[Tensor]


Run = Callable[[Tensor, Tensor], Part]


def open_runtime(name: str, net: RestorationNet) -> Run:
    """`net` compiled by a runtime, from image (1, 3, H, W) and context (1, 2, C), with as many threads as torch has.

    Raises ModelError for a runtime that is none or not installed, and for a net whose routing only torch can follow.
    """
    if name not in _RUNTIMES:
        raise ModelError(f"no runtime is called {name!r}: choose one of {', '.join((AUTO, TORCH, *_RUNTIMES))}")
    package, make, load = _RUNTIMES[name]
    if not _is_installed(name):
        raise ModelError(f"the runtime {name} is not installed: pip install {package}")

    def make_it() -> bytes:
        graph = _Graph(net)
        if moe_layers(graph.net):
            raise ModelError(f"the runtime {name} cannot follow how this model chooses its experts; take torch")
        example = torch.rand(1, 3, 48, 64), torch.rand(1, 2, net.context.project.out_features // 2)
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # as in `export`
            maps = [f"uncertainty{number}_map" for number in range(len(graph(*example)) - 2)]
            return make(onnx_bytes(graph, example, ["image", "context"], ["restored", "weather", *maps]))

    versions = [f"{package} {metadata.version(package)}" for package in (_package(name), TORCH)]
    settings = [
        value for module in net.modules() for value in vars(module).items() if isinstance(value[1], float | int)
    ]
    about = [checksum(net.state_dict()), f"{net} {settings}", *versions, _precision(), this_machine().cpu]
    compiled = load(_kept(about, make_it))

    def run(image: Tensor, context: Tensor) -> Part:
        restored, weather_BW, *uncertainty = map(torch.from_numpy, compiled([image.numpy(), context.numpy()]))
        return Part(restored, weather_BW, uncertainty)

    return run


def fastest_runtime(load: Callable[[str], Callable[[Tensor], object]], net: RestorationNet) -> str:
    """The runtime in which what `load` gives restores fastest, by a measurement of seconds that the cache keeps.

    It holds for this processor, this model, these versions and this number of threads.
    """
    names = [TORCH, *installed()]
    if names == [TORCH]:
        return TORCH
    versions = [f"{name} {metadata.version(_package(name))}" for name in names]
    key = "; ".join(
        [this_machine().cpu, f"{torch.get_num_threads()} threads", checksum(net.state_dict())[:16], *versions]
    )
    path = cache_root() / "runtimes.json"
    try:
        kept: dict[str, dict[str, float]] = json.loads(path.read_text(encoding="utf-8"))
        return _choose(kept[key])
    except (OSError, ValueError):
        kept = {}
    except (KeyError, TypeError, AttributeError):
        kept = kept if isinstance(kept, dict) else {}
    picture = torch.rand(3, _SIDE, _SIDE, generator=torch.Generator().manual_seed(0))
    ways: dict[str, Callable[[Tensor], object]] = {}
    for name in names:
        try:
            ways[name] = load(name)
        except ModelError:
            if name == TORCH:
                raise
    kept[key] = {name: min(times) for name, times in in_turn(ways, picture, _REPEATS).items()}
    try:
        with atomic_file(path, "w") as file:
            json.dump(kept, file, indent=1)
    except OSError:  # it is measured again next time
        pass
    return _choose(kept[key])


def installed() -> list[str]:
    """The runtimes beside torch that can be opened here."""
    return [name for name in _RUNTIMES if _is_installed(name)]


def in_turn(ways: Mapping[str, Callable[[Tensor], object]], picture: Tensor, repeats: int) -> dict[str, list[float]]:
    """CPU seconds that each way takes for a picture, every repeat of all in turn, on the same machine for all.

    A first run of each counts for nothing.
    """
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for restore in ways.values():
        restore(picture)
    for _ in range(repeats):
        for name, restore in ways.items():
            start = time.process_time()
            restore(picture)
            taken[name].append(time.process_time() - start)
    return taken


def _kept(about: list[str], make: Callable[[], bytes]) -> bytes:
    """The bytes that the cache keeps for `about` and the code here; made if there are none, or they are damaged."""
    code = [file.read_bytes() for file in sorted(_CODE)]
    name = hashlib.sha256(b"\n".join([*map(str.encode, about), *code])).hexdigest()
    path = cache_root() / "graphs" / f"{name}.bin"
    try:
        kept = path.read_bytes()
    except OSError:
        kept = b""
    content = kept[_DIGEST:]
    if hashlib.sha256(content).digest() == kept[:_DIGEST]:  # some that are damaged OpenVINO would read for ever
        with suppress(OSError):
            os.utime(path)
        return content
    content = make()
    with suppress(OSError):  # it is made again next time
        with atomic_file(path) as file:
            file.write(hashlib.sha256(content).digest() + content)
        clear_left(path.parent)
        for old in sorted(path.parent.glob("*.bin"), key=lambda one: one.stat().st_mtime)[:-_KEPT]:
            old.unlink()
    return content


def _choose(seconds: Mapping[str, float]) -> str:
    best = min(seconds, key=lambda name: seconds[name])
    return best if seconds[best] <= _WORTH * seconds[TORCH] else TORCH


class _Graph(nn.Module):
    """The net with what else a `Restoration` tells: weather, and uncertainty, of each level the sum / all layers."""

    def __init__(self, net: RestorationNet) -> None:
        super().__init__()
        self.net = folded(net).to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]

    def forward(self, image: Tensor, context: Tensor) -> tuple[Tensor, ...]:
        output = self.net(image, context)
        blocks = [block for block in self.net.modules() if isinstance(block, FoldedBlock)]
        levels: dict[int, list[Tensor]] = {}
        for block in blocks:
            levels.setdefault(int(block.uncertainty.shape[-1]), []).append(block.uncertainty)
        maps = [torch.cat(level, dim=1).sum(dim=1, keepdim=True) / len(blocks) for level in levels.values()]
        return output.image, output.weather_BW, *maps


def _load_onnx(model: bytes) -> _Compiled:
    onnxruntime = importlib.import_module("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session: Any = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return lambda inputs: session.run(None, dict(zip(("image", "context"), inputs, strict=True)))


def _precision() -> str:
    return "bf16" if bf16_pays(torch.device("cpu")) else "f32"


def _openvino() -> tuple[Any, dict[str, Any]]:
    threads = {"INFERENCE_NUM_THREADS": torch.get_num_threads(), "NUM_STREAMS": 1}
    return importlib.import_module("openvino").Core(), {"INFERENCE_PRECISION_HINT": _precision(), **threads}


def _make_openvino(model: bytes) -> bytes:
    core, settings = _openvino()
    content: bytes = core.compile_model(core.read_model(model), "CPU", settings).export_model().getvalue()
    return content


def _load_openvino(content: bytes) -> _Compiled:
    core, settings = _openvino()
    compiled = core.import_model(content, "CPU", settings)
    # One request a call: those of several threads do not mix.
    return lambda inputs: list(compiled.create_infer_request().infer(inputs).values())


def _is_installed(name: str) -> bool:
    try:
        return importlib.util.find_spec(_package(name)) is not None
    except ValueError:  # what stands in its place was not found by an import
        return False


def _package(name: str) -> str:
    return TORCH if name == TORCH else _RUNTIMES[name][0].partition("==")[0]


# Of an ONNX model each makes what is kept, and opens that.
_RUNTIMES: Mapping[str, tuple[str, Callable[[bytes], bytes], Callable[[bytes], _Compiled]]] = {
    "onnx": (ONNXRUNTIME, bytes, _load_onnx),
    "openvino": (OPENVINO, _make_openvino, _load_openvino),
}
