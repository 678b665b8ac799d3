"""Other runtimes restore as torch does, and `auto` chooses by a measurement that is kept."""

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from typer.testing import CliRunner

from mofme.cli.app import app
from mofme.core.training import bf16_pays
from mofme.core.uncertainty import UncertaintyRouter
from mofme.core.weights import checksum
from mofme.errors import ModelError
from mofme.files import ASSETS
from mofme.measure.result import load_result
from mofme.papers.r2t2.references import SHIPPED, References
from mofme.papers.r2t2.rerouter import explain
from mofme.vision import restorer as restorer_module
from mofme.vision import runtime as module
from mofme.vision import runtime_benchmark
from mofme.vision.models import load_net
from mofme.vision.nets.unet import RestorationNet
from mofme.vision.picture.file import read_picture
from mofme.vision.restorer import Restorer, TemporalSmoother
from mofme.vision.runtime import fastest_runtime
from mofme.vision.runtime_benchmark import FULL, KINDS, Trial, _kind_in_openvino, _kind_in_torch, as_result, public_nets
from tests.vision.pictures import save_grey as save
from tests.vision.tiny_models import save_two_models


@pytest.fixture(scope="module", autouse=True)
def written_once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The graph of a net is written once for all runtimes and tests: it takes longer than all else here."""
    kept: dict[str, bytes] = {}

    def once(graph: nn.Module, *how: object) -> bytes:
        key = checksum(graph.state_dict())
        if key not in kept:
            kept[key] = write(graph, *how)
        return kept[key]

    write = module.onnx_bytes
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "onnx_bytes", once)
        patch.setenv("MOFME_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture
def full_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    for one in (module, restorer_module):
        monkeypatch.setattr(one, "bf16_pays", lambda device: False)


@pytest.fixture(scope="module")
def photo() -> Tensor:
    """Real rain, and sides that are no multiples of 8."""
    return read_picture(ASSETS / "before-after.jpg").rgb[:, 20:121, 100:233]


@pytest.mark.parametrize(("name", "runtime"), [("small", "onnx"), ("small", "openvino"), ("small-real", "openvino")])
@pytest.mark.usefixtures("full_precision")
def test_it_tells_what_torch_tells(name: str, runtime: str, photo: Tensor) -> None:
    mine, other = Restorer.from_pretrained(name, "cpu"), Restorer.from_pretrained(name, "cpu", runtime)
    for how in ({}, {"tile": 64, "ensemble": True}):
        expected, found = mine(photo, **how), other(photo, **how)
        assert (found.image - expected.image).abs().max() <= 1 / 255
        assert found.weather == pytest.approx(expected.weather, abs=1e-3)
        torch.testing.assert_close(found.uncertainty, expected.uncertainty, atol=1e-3, rtol=0)
    assert other.version == f"{mine.version} by {runtime}"


def test_half_precision_costs_less_than_a_hundredth_of_a_decibel(
    photo: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against a target 30 dB away a mean square error smaller by 26.4 dB or more costs at most 0.01 dB."""
    monkeypatch.setattr(module, "bf16_pays", lambda device: True)
    monkeypatch.setattr(restorer_module, "bf16_pays", lambda device: False)
    expected, found = (Restorer.from_pretrained("small", "cpu", one)(photo).image for one in ("torch", "openvino"))
    assert (found - expected).square().mean() <= 10 ** -(3 + 2.64)


@pytest.mark.usefixtures("full_precision")
def test_sizes_that_come_often_have_a_graph_of_their_own(
    photo: Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which is chosen by the part alone, so that the same picture gives the same bytes after whatever others."""
    monkeypatch.setenv("MOFME_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(module, "_OWN", 40 * 48)
    name = str(save_two_models(tmp_path)[1])

    def graphs() -> int:
        return len(list(tmp_path.glob("cache/graphs/*")))

    restore = Restorer.from_pretrained(name, "cpu", "openvino")
    before = graphs()
    restore(photo[:, :39, :49]), restore(photo[:, :32, :48])
    assert graphs() == before  # no size that cameras give, and a small one
    common = photo[:, :40, :48]
    found = restore(common)
    assert graphs() == before + 1
    expected = Restorer.from_pretrained(name, "cpu")(common)
    assert (found.image - expected.image).abs().max() <= 1 / 255
    assert found.weather == pytest.approx(expected.weather, abs=1e-3)
    torch.testing.assert_close(found.uncertainty, expected.uncertainty, atol=1e-3, rtol=0)
    assert torch.equal(Restorer.from_pretrained(name, "cpu", "openvino")(common).image, found.image)
    assert graphs() == before + 1
    restore(photo[:, :49, :55], steady=TemporalSmoother())  # a frame of a video
    assert graphs() == before + 2


@pytest.mark.usefixtures("full_precision")
def test_maps_of_experts_come_from_torch_and_routing_that_is_moved_needs_it(photo: Tensor) -> None:
    restore = Restorer.from_pretrained(device="cpu", runtime="openvino")
    explained, expected = (one(photo, explain=True) for one in (restore, Restorer.from_pretrained(device="cpu")))
    assert torch.equal(explained.image, expected.image) and len(explained.routing) == 8
    with pytest.raises(ModelError, match="cannot be re-routed"):
        explain(restore, photo, references=References.load(SHIPPED))


def test_what_cannot_run_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ModelError, match="choose one of auto, torch, onnx, openvino"):
        Restorer.from_pretrained("small", "cpu", "tiff")
    for kind in ("moe", "mofme-sampled"):
        with pytest.raises(ModelError, match="cannot follow how this model chooses"):
            Restorer(RestorationNet([8, 8, 8], [1, 1, 1], kind, 4), "tiny", runtime="openvino")
    net = load_net("small")[0]
    with pytest.raises(ModelError, match="runs on the CPU, not on meta"):
        Restorer(net, "small", "meta", runtime="onnx")
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(ModelError, match=r"not installed: pip install openvino=="):
        Restorer(load_net("small")[0], "small", runtime="openvino")


@pytest.mark.parametrize("runtime", ["onnx", "openvino"])
def test_what_it_makes_of_a_net_is_kept(
    runtime: str, photo: Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MOFME_CACHE", str(tmp_path))
    binary, tiny = map(str, save_two_models(tmp_path / "models"))
    made: list[bool] = []
    write = module.onnx_bytes
    monkeypatch.setattr(module, "onnx_bytes", lambda *how: made.append(True) or write(*how))

    def restored(name: str = tiny) -> Tensor:
        return Restorer.from_pretrained(name, "cpu", runtime)(photo[:, :40, :48]).image

    expected = restored()
    assert torch.equal(restored(), expected) and len(made) == 1
    kept = list(tmp_path.glob("graphs/*.bin"))
    assert len(kept) == (1 if runtime == "onnx" else 2)  # OpenVINO keeps what it makes of the ONNX model beside it
    for damaged in (b"", kept[0].read_bytes()[:10_000]):
        for path in kept:
            path.write_bytes(damaged)
        assert torch.equal(restored(), expected)
    assert len(made) == 3
    monkeypatch.setattr(module, "bf16_pays", lambda device: not bf16_pays(device))
    restored()
    assert len(list(tmp_path.glob("graphs/*.bin"))) == (1 if runtime == "onnx" else 3)
    net = load_net(tiny)[0]
    for block in net.modules():
        if isinstance(block, UncertaintyRouter):
            block.top_k = 1  # which is in no weight
    module.open_runtime(runtime, net)
    monkeypatch.setattr(module, "_KEPT", 2)
    other = restored(binary)
    assert len(made) == 5 and len(list(tmp_path.glob("graphs/*"))) == 2
    assert torch.equal(restored(binary), other) and len(made) == 5
    (tmp_path / "file").touch()
    monkeypatch.setenv("MOFME_CACHE", str(tmp_path / "file"))  # nothing can be kept there
    assert torch.equal(restored(binary), other)


class Timed:
    """Stands in for opening a runtime: what a run of each takes, on a clock of its own, and which were opened."""

    def __init__(self) -> None:
        self.seconds, self.now, self.loaded = {"torch": 1.0, "onnx": 2.0, "openvino": 0.5}, 0.0, list[str]()

    def load(self, name: str) -> Callable[[Tensor], None]:
        def run(_: Tensor) -> None:
            self.now += self.seconds[name]

        self.loaded.append(name)
        return run


@pytest.fixture
def timed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Timed:
    """With a cache of its own."""
    made = Timed()
    monkeypatch.setenv("MOFME_CACHE", str(tmp_path))
    monkeypatch.setattr(module.time, "process_time", lambda: made.now)
    return made


def test_the_fastest_is_measured_once(timed: Timed, tmp_path: Path) -> None:
    net = nn.Linear(1, 1)
    assert fastest_runtime(timed.load, net) == "openvino"
    assert timed.loaded == ["torch", "onnx", "openvino"]
    (kept,) = json.loads((tmp_path / "runtimes.json").read_text()).values()
    assert kept == pytest.approx(timed.seconds)
    assert fastest_runtime(timed.load, net) == "openvino" and len(timed.loaded) == 3
    fastest_runtime(timed.load, nn.Linear(1, 1))  # other weights
    assert len(timed.loaded) == 6
    path = tmp_path / "runtimes.json"
    path.write_text("broken")
    assert fastest_runtime(timed.load, net) == "openvino" and len(timed.loaded) == 9
    path.write_text(json.dumps({key: {} for key in json.loads(path.read_text())}))
    assert fastest_runtime(timed.load, net) == "openvino" and len(timed.loaded) == 12


def test_torch_stays_where_others_are_hardly_faster(timed: Timed, monkeypatch: pytest.MonkeyPatch) -> None:
    timed.seconds["openvino"] = 0.95
    assert fastest_runtime(timed.load, nn.Linear(1, 1)) == "torch"
    for name in ("onnxruntime", "openvino"):
        monkeypatch.setitem(sys.modules, name, None)
    timed.loaded.clear()
    assert fastest_runtime(timed.load, nn.Linear(1, 1)) == "torch" and not timed.loaded


def test_ratios_shares_and_loss_by_hand() -> None:
    """Torch takes 2 s and openvino 1 s; 4e9 operations are in 1 s a tenth of 4e10 and two fifths of 1e10."""
    trial = Trial(
        operations=4 * 10**9,
        pixels=500_000,
        seconds={"torch": 2.0, FULL: 4.0, "openvino": 1.0},
        decibels={"torch": 29.99, FULL: 30.0, "openvino": 29.75},
        peaks={"bfloat16": 4e10, "float32": 1e10},
    )
    result = as_result("small", [trial, trial], "command")
    found = {row.name: {name: figure.value for name, figure in row.figures.items()} for row in result.rows}
    # A megapixel takes 2 s.
    assert list(found["openvino"].values()) == pytest.approx([2, 2, 0.25, 10, 40])
    assert found[FULL]["times as fast as torch"] == 0.5 and found[FULL]["lost, dB"] == 0
    assert found["bfloat16"] == {"GFLOP a CPU s": 40}
    with pytest.raises(ModelError, match="no pairs"):
        as_result("small", [], "command")


def test_every_runtime_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, level in (("input", 120), ("target", 100)):
        save(tmp_path / "pairs" / name / "a.png", level)
    monkeypatch.setattr(runtime_benchmark, "_SIDE", 32)
    monkeypatch.setattr(runtime_benchmark, "_PICTURE_SIDE", 32)
    tiny = str(save_two_models(tmp_path)[1])
    words = ["bench", "runtimes", str(tmp_path / "pairs"), "--model", tiny, "--repeats", "2"]
    done = CliRunner().invoke(app, [*words, "--out", str(tmp_path / "out")])
    assert done.exit_code == 0, done.stderr
    result = load_result("runtimes", tmp_path / "out")
    table, *_ = dict.fromkeys(row.table for row in result.rows)
    assert result.names(table) == ["torch", FULL, "onnx", "openvino"]
    assert result.figure(table, "torch", "times as fast as torch").value == 1
    for row in result.rows:
        if row.table == "Where the time goes, %":
            assert sum(figure.value for figure in row.figures.values()) == pytest.approx(100)
            assert min(figure.value for figure in row.figures.values()) > 0
    nets = "Nets of known size, by openvino"
    assert result.names(nets)[1:] == list(public_nets())


def test_public_nets_are_those_of_their_papers() -> None:
    """By hand: DnCNN has 3*64*9+64 + 15*(64*64*9+2*64) + 64*3*9+3 parameters, SRCNN 81*3*64+64 + 64*32+32 + 25*32*3+3;
    a multiply-add is two operations. ResNet-18 has 11,689,512 with its head of 512*1000+1000, as torchvision tells.
    """
    nets = public_nets()
    sizes = [sum(values.numel() for values in net.parameters()) for net in nets.values()]
    assert sizes[:3] == [1_792 + 15 * 36_992 + 1_731, 15_616 + 2_080 + 2_403, 11_689_512 - 513_000]
    for net in nets.values():
        assert net.eval()(torch.rand(1, 3, 32, 32)).ndim == 4


def test_kinds_of_work() -> None:
    shape = [1, 8, 9, 9]
    in_torch = [
        ("mkldnn_convolution", [shape, [8, 8, 3, 3]]),
        ("mkldnn_convolution", [shape, [8, 8, 1, 1]]),
        ("gelu", []),
        ("copy_", []),
        ("addmm", []),
    ]
    assert [_kind_in_torch(*each) for each in in_torch] == [*KINDS, KINDS[1]]
    names = ["Convolution brgconv_bf16", "Convolution brgconv_1x1_bf16", "Subgraph jit_bf16", "Reorder jit_bf16"]
    assert [_kind_in_openvino(*name.split()) for name in names] == list(KINDS)


def test_a_runtime_whose_package_has_another_name_or_that_does_not_load(
    timed: Timed, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = module.metadata.version

    def version(name: str) -> str:
        if name == "onnxruntime":  # there is onnxruntime-gpu
            raise module.metadata.PackageNotFoundError(name)
        return real(name)

    def broken(keep: object, graph: object) -> None:
        raise ImportError("DLL load failed")

    monkeypatch.setattr(module.metadata, "version", version)
    monkeypatch.setattr(module.metadata, "packages_distributions", lambda: {"onnxruntime": ["openvino"]})
    assert fastest_runtime(timed.load, nn.Linear(1, 1)) == "openvino"
    monkeypatch.setattr(module, "_RUNTIMES", {"onnx": (module.ONNXRUNTIME, broken)})
    with pytest.raises(ModelError, match="DLL load failed"):
        module.open_runtime("onnx", load_net("small")[0])
