"""Running a restoration net on the CPU by another runtime than torch, which is chosen by a short measurement.

OpenVINO computes in bfloat16 where that pays, as torch does here; ONNX Runtime in full precision. Both take parts of
any size. They give no maps of experts, and nothing can change their routing: for these torch is kept. What they make of
a net is kept as well, as to make it takes seconds, and to open it a fraction of one.

OpenVINO joins steps that only move data where it knows the size, which saves a fifth of the time. So for sizes that
cameras give, and for inner parts of large pictures, it compiles a graph each; for others one that takes any size. Which
one depends on nothing but the part: the same picture gives the same bytes wherever, and after whatever, it is restored.
"""

import hashlib
import importlib.util
import json
import os
import time
from collections.abc import Callable, Hashable, Mapping
from contextlib import suppress
from functools import lru_cache, partial
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mofme.core.moe import moe_layers
from mofme.core.training import bf16_pays
from mofme.core.weights import checksum
from mofme.errors import ModelError
from mofme.files import atomic_file, cache_root
from mofme.measure.result import this_machine
from mofme.vision.export import EXAMPLE, ONNXRUNTIME, OPENVINO, FoldedBlock, folded, onnx_bytes
from mofme.vision.nets.unet import RestorationNet

TORCH, AUTO = "torch", "auto"
_SIDE = 512  # of the picture that is timed
_REPEATS = 3
_WORTH = 0.9  # of torch's time: by less it is not left
_KEPT = 24  # graphs of some 6 MB, those that were used last
_OPEN = 12  # sizes of a net that are ready to run
_OWN = 2**18  # pixels from which a size has a graph of its own
_DIGEST = hashlib.sha256().digest_size
_HERE = Path(__file__)
_CODE = [_HERE, _HERE.with_name("export.py"), *_HERE.parent.glob("nets/*.py"), *_HERE.parents[1].glob("core/*.py")]

_Size = tuple[int, int]
_Compiled = Callable[[list[NDArray[np.float32]], _Size | None], list[NDArray[np.float32]]]
Way = TypeVar("Way", bound=Hashable)
_Keep = Callable[[str, Callable[[], bytes]], bytes]


class Part(NamedTuple):
    """`image` (1, 3, H, W), not clamped; `weather_BW` logits; `uncertainty` of each level (1, 1, h, w), to be added."""

    image: Tensor
    weather_BW: Tensor
    uncertainty: list[Tensor]


Run = Callable[[Tensor, Tensor, bool], Part]


def open_runtime(name: str, net: RestorationNet) -> Run:
    """`net` compiled by a runtime, from image (1, 3, H, W) and context (1, 2, C), with as many threads as torch has.

    The last argument of what comes tells that parts of this size come often, so that it pays to compile for it.
    Raises ModelError for a runtime that is none or not installed, and for a net whose routing only torch can follow.
    """
    if name not in _RUNTIMES:
        raise ModelError(f"no runtime is called {name!r}: choose one of {', '.join((AUTO, TORCH, *_RUNTIMES))}")
    package, load = _RUNTIMES[name]
    if not _is_installed(name):
        raise ModelError(f"the runtime {name} is not installed: pip install {package}")
    settings = [one for module in net.modules() for one in vars(module).items() if isinstance(one[1], float | int)]
    about = [checksum(net.state_dict()), f"{net} {settings}", f"{TORCH} {metadata.version(TORCH)}"]

    keep = partial(_kept, about)
    try:
        compiled = load(keep, lambda: keep("", lambda: graph_of(net)))
    except ModelError:
        raise
    except Exception as error:  # each raises its own kinds, and ImportError where a library of the system's is missing
        raise ModelError(f"the runtime {name} is installed and does not work here ({error}); take torch") from error

    def run(image: Tensor, context: Tensor, is_common: bool) -> Part:
        height, width = image.shape[-2:]
        size = (height, width) if is_common and height * width >= _OWN else None
        restored, weather_BW, *uncertainty = map(torch.from_numpy, compiled([image.numpy(), context.numpy()], size))
        return Part(restored, weather_BW, uncertainty)

    return run


def graph_of(net: RestorationNet) -> bytes:
    """`net` as an ONNX model, from image and context to what makes a `Part`. Raises ModelError."""
    graph = _Graph(net)
    if moe_layers(graph.net):
        raise ModelError("a runtime cannot follow how this model chooses its experts; take torch")
    example = EXAMPLE[0], torch.zeros(1, 2, net.context.project.out_features // 2)
    with torch.no_grad():
        maps = [f"uncertainty{number}_map" for number in range(len(graph(*example)) - 2)]
    return onnx_bytes(graph, example, ["image", "context"], ["restored", "weather", *maps])


def fastest_runtime(load: Callable[[str], Callable[[Tensor], object]], net: RestorationNet) -> str:
    """The runtime in which what `load` gives restores fastest, by a measurement of seconds that the cache keeps.

    It holds for this processor, this model, these versions and this number of threads.
    """
    names = [TORCH, *installed()]
    if names == [TORCH]:
        return TORCH
    versions = [f"{name} {_version(_package(name))}" for name in names]
    key = "; ".join(
        [this_machine().cpu, f"{torch.get_num_threads()} threads", checksum(net.state_dict())[:16], *versions]
    )
    path = cache_root() / "runtimes.json"
    kept: dict[str, dict[str, float]] = {}
    with suppress(OSError, ValueError, TypeError):
        kept = dict(json.loads(path.read_text(encoding="utf-8")))
    with suppress(LookupError, ValueError, TypeError, AttributeError):
        return _choose(kept[key])
    picture = torch.rand(3, _SIDE, _SIDE, generator=torch.Generator().manual_seed(0))
    ways: dict[str, Callable[[Tensor], object]] = {}
    for name in names:
        try:
            ways[name] = load(name)
        except ModelError:
            if name == TORCH:
                raise
    kept[key] = {name: min(times) for name, times in in_turn(ways, picture, _REPEATS).items()}
    with suppress(OSError), atomic_file(path, "w") as file:  # it is measured again next time
        json.dump(kept, file, indent=1)
    return _choose(kept[key])


def installed() -> list[str]:
    """The runtimes beside torch that can be opened here."""
    return [name for name in _RUNTIMES if _is_installed(name)]


def in_turn(ways: Mapping[Way, Callable[[Tensor], object]], picture: Tensor, repeats: int) -> dict[Way, list[float]]:
    """CPU seconds that each way takes for a picture, every repeat of all in turn, on the same machine for all.

    A first run of each counts for nothing.
    """
    taken: dict[Way, list[float]] = {name: [] for name in ways}
    for restore in ways.values():
        restore(picture)
    for _ in range(repeats):
        for name, restore in ways.items():
            taken[name].append(cpu_seconds(partial(restore, picture)))
    return taken


def cpu_seconds(work: Callable[[], object]) -> float:
    """CPU seconds of this process that `work` takes."""
    start = time.process_time()
    work()
    return time.process_time() - start


def _kept(about: list[str], what: str, make: Callable[[], bytes]) -> bytes:
    """What the cache keeps of `about`, `what` and the code here; made if there is nothing, or it is damaged."""
    code = [file.read_bytes() for file in sorted(_CODE)]
    name = hashlib.sha256(b"\n".join([*map(str.encode, [*about, what]), *code])).hexdigest()
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
        for old in sorted(path.parent.glob("*.bin"), key=lambda one: one.stat().st_mtime)[:-_KEPT]:
            old.unlink()
    return content


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:  # as of onnxruntime-gpu, which gives the same module
        others = sorted(set(metadata.packages_distributions().get(package, ())))
        return " ".join(f"{one} {metadata.version(one)}" for one in others)


def _choose(seconds: Mapping[str, float]) -> str:
    best = min(seconds, key=seconds.__getitem__)
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


def _load_onnx(keep: _Keep, graph: Callable[[], bytes]) -> _Compiled:
    onnxruntime = importlib.import_module("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session: Any = onnxruntime.InferenceSession(graph(), options, providers=["CPUExecutionProvider"])
    return lambda inputs, size: session.run(None, dict(zip(("image", "context"), inputs, strict=True)))


def compile_openvino(graph: bytes, size: _Size | None, **more: Any) -> Any:
    """An ONNX model whose input is `image`, for any size or for one, with precision and threads as torch has them."""
    core = importlib.import_module("openvino").Core()
    model = core.read_model(graph)
    if size:
        model.reshape({"image": [1, 3, *size]})
    return core.compile_model(model, "CPU", {**_openvino_settings(), **more})


def _openvino_settings() -> dict[str, Any]:
    hint = "bf16" if bf16_pays(torch.device("cpu")) else "f32"
    return {
        "INFERENCE_PRECISION_HINT": hint,
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "NUM_STREAMS": 1,
    }


def _load_openvino(keep: _Keep, graph: Callable[[], bytes]) -> _Compiled:
    core, settings = importlib.import_module("openvino").Core(), _openvino_settings()
    about = f"openvino {_version('openvino')} {settings} {this_machine().cpu}"

    @lru_cache(_OPEN)
    def compiled(size: _Size | None) -> Any:
        def make() -> bytes:
            content: bytes = compile_openvino(graph(), size).export_model().getvalue()
            return content

        return core.import_model(keep(f"{about} {size}", make), "CPU", settings)

    compiled(None)  # what cannot be compiled is told at once
    # One request a call: those of several threads do not mix.
    return lambda inputs, size: list(compiled(size).create_infer_request().infer(inputs).values())


def _is_installed(name: str) -> bool:
    try:
        return importlib.util.find_spec(_package(name)) is not None
    except ValueError:  # what stands in its place was not found by an import
        return False


def _package(name: str) -> str:
    return TORCH if name == TORCH else _RUNTIMES[name][0].partition("==")[0]


# Each opens what `keep` has kept of an earlier time, or makes it of the ONNX model.
_RUNTIMES: Mapping[str, tuple[str, Callable[[_Keep, Callable[[], bytes]], _Compiled]]] = {
    "onnx": (ONNXRUNTIME, _load_onnx),
    "openvino": (OPENVINO, _load_openvino),
}
