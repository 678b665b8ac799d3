"""Other runtimes restore as torch does, and `auto` chooses by a measurement that is kept."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from mofme.errors import ModelError
from mofme.files import ASSETS
from mofme.papers.r2t2.references import SHIPPED, References
from mofme.papers.r2t2.rerouter import explain
from mofme.vision import restorer as restorer_module
from mofme.vision import runtime as module
from mofme.vision.models import load_net
from mofme.vision.nets.unet import RestorationNet
from mofme.vision.picture.file import read_picture
from mofme.vision.restorer import Restorer
from mofme.vision.runtime import fastest_runtime

MODELS = ("small", "small-real")


@pytest.fixture
def full_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    for one in (module, restorer_module):
        monkeypatch.setattr(one, "bf16_pays", lambda device: False)


@pytest.fixture(scope="module")
def photo() -> Tensor:
    """Real rain, and sides that are no multiples of 8."""
    return read_picture(ASSETS / "before-after.jpg").rgb[:, 20:201, 100:353]


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("runtime", ["onnx", "openvino"])
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
def test_maps_of_experts_come_from_torch_and_routing_that_is_moved_needs_it(photo: Tensor) -> None:
    restore = Restorer.from_pretrained("small", "cpu", "openvino")
    explained, expected = (one(photo, explain=True) for one in (restore, Restorer.from_pretrained("small", "cpu")))
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


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, float]:
    """What a run of each runtime takes, on a clock of its own; and a cache of its own."""
    costs = {"torch": 1.0, "onnx": 2.0, "openvino": 0.5}
    monkeypatch.setenv("MOFME_CACHE", str(tmp_path))
    now = 0.0

    def passes(name: str) -> None:
        nonlocal now
        now += costs[name]

    monkeypatch.setattr(module.time, "process_time", lambda: now)
    monkeypatch.setattr(TIMED, "passes", passes)
    return costs


class TIMED:
    loaded: list[str]

    @staticmethod
    def passes(name: str) -> None: ...

    @classmethod
    def load(cls, name: str):
        cls.loaded.append(name)
        return lambda picture: cls.passes(name)


@pytest.fixture(autouse=True)
def none_loaded() -> Iterator[None]:
    TIMED.loaded = []
    yield


def test_the_fastest_is_measured_once(clock: dict[str, float], tmp_path: Path) -> None:
    net = nn.Linear(1, 1)
    assert fastest_runtime(TIMED.load, net) == "openvino"
    assert TIMED.loaded == ["torch", "onnx", "openvino"]
    (kept,) = json.loads((tmp_path / "runtimes.json").read_text()).values()
    assert kept == pytest.approx(clock)
    assert fastest_runtime(TIMED.load, net) == "openvino" and len(TIMED.loaded) == 3
    fastest_runtime(TIMED.load, nn.Linear(1, 1))  # other weights
    assert len(TIMED.loaded) == 6
    (tmp_path / "runtimes.json").write_text("broken")
    assert fastest_runtime(TIMED.load, net) == "openvino" and len(TIMED.loaded) == 9


def test_torch_stays_where_others_are_hardly_faster(clock: dict[str, float], monkeypatch: pytest.MonkeyPatch) -> None:
    clock["openvino"] = 0.95
    assert fastest_runtime(TIMED.load, nn.Linear(1, 1)) == "torch"
    for name in ("onnxruntime", "openvino"):
        monkeypatch.setitem(sys.modules, name, None)
    TIMED.loaded = []
    assert fastest_runtime(TIMED.load, nn.Linear(1, 1)) == "torch" and not TIMED.loaded
