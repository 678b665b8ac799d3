import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from mofme.errors import ModelError
from mofme.vision.onnx import OnnxRestorer, load_onnx

Shape = tuple[int | str, ...]
ANY: Shape = (1, 3, "h", "w")


def write_net(
    path: Path,
    nodes: list[onnx.NodeProto],
    given: Shape = ANY,
    kind: int = TensorProto.FLOAT,
    gives: int | None = None,
    beside: dict[str, Shape] | None = None,
    **constants: object,
) -> Path:
    """An ONNX file that maps "x", and what else is `beside`, to "y" by the nodes; constants are named by keyword."""
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info(name, kind, shape) for name, shape in {"x": given, **(beside or {})}.items()],
        [helper.make_tensor_value_info("y", gives or kind, None)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def write_adding(path: Path, amount: float, given: Shape = ANY, kind: int = TensorProto.FLOAT) -> Path:
    """y = x + amount."""
    number = np.array(amount, np.float16 if kind == TensorProto.FLOAT16 else np.float32)
    return write_net(path, [helper.make_node("Add", ["x", "a"], ["y"])], given, kind, a=number)


@pytest.fixture
def picture() -> torch.Tensor:
    return torch.rand(3, 37, 50, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("given", [ANY, (1, 3, 16, 24), (1, 3, 64, 64), (1, 3, 16, "w"), ("n", 3, None, None)])
def test_any_picture_through_nets_of_any_and_of_fixed_size(tmp_path: Path, picture: torch.Tensor, given: Shape) -> None:
    restore = OnnxRestorer(load_onnx(write_adding(tmp_path / "add.onnx", 0.25, given)))
    torch.testing.assert_close(restore(picture), picture + 0.25)
    tiny = picture[:, :1, :2]
    torch.testing.assert_close(restore(tiny), tiny + 0.25)


def test_a_net_that_folds_pixels_gets_sides_it_can_fold(tmp_path: Path, picture: torch.Tensor) -> None:
    nodes = [
        helper.make_node("SpaceToDepth", ["x"], ["folded"], blocksize=16),
        helper.make_node("DepthToSpace", ["folded"], ["y"], blocksize=16, mode="DCR"),
    ]
    restore = OnnxRestorer(load_onnx(write_net(tmp_path / "fold.onnx", nodes)))
    for _ in range(2):
        torch.testing.assert_close(restore(picture), picture)


def test_a_picture_that_fails_changes_nothing_for_the_next(tmp_path: Path) -> None:
    # y = x plus the mean of x, whose padding would count, through a table that has no entry for more than 40 rows.
    nodes = [
        helper.make_node("Shape", ["x"], ["rows"], start=2, end=3),
        helper.make_node("Gather", ["table", "rows"], ["zero"]),
        helper.make_node("ReduceMean", ["x"], ["mean"], axes=[2, 3]),
        helper.make_node("Add", ["x", "mean"], ["sum"]),
        helper.make_node("Add", ["sum", "zero"], ["y"]),
    ]
    restore = OnnxRestorer(load_onnx(write_net(tmp_path / "few.onnx", nodes, table=np.zeros(41, np.float32))))
    with pytest.raises(ModelError, match=r"few\.onnx cannot take a picture"):
        restore(torch.rand(3, 41, 30))
    slope = torch.linspace(0, 0.5, 13).expand(3, 9, 13)
    torch.testing.assert_close(restore(slope), slope + 0.25)


def test_half_precision(tmp_path: Path, picture: torch.Tensor) -> None:
    net = load_onnx(write_adding(tmp_path / "half.onnx", 0.25, kind=TensorProto.FLOAT16))
    restored = OnnxRestorer(net)(picture)
    assert restored.dtype == torch.float32
    torch.testing.assert_close(restored, picture + 0.25, atol=2e-3, rtol=0)


def test_a_net_of_a_fixed_size_sees_windows_without_seams(tmp_path: Path) -> None:
    # Every window comes out with its own mean: across a slope the result must rise without steps. A step between
    # windows side by side would be as high as their means differ, 12 / 64.
    nodes = [
        helper.make_node("ReduceMean", ["x"], ["mean"], axes=[2, 3]),
        helper.make_node("Mul", ["x", "zero"], ["nothing"]),
        helper.make_node("Add", ["mean", "nothing"], ["y"]),
    ]
    net = write_net(tmp_path / "mean.onnx", nodes, (1, 3, 16, 16), zero=np.float32(0))
    slope = torch.linspace(0, 1, 64).expand(3, 16, 64)
    steps = OnnxRestorer(load_onnx(net))(slope)[0, 8].diff()
    assert steps.min() > -1e-6
    assert steps.max() < 0.08


@pytest.mark.parametrize("beside", [(1, 1, 64, 64), (1, 3, 64, 32), (1, 3, "h", "h"), (2,)])
def test_beside_the_picture_there_may_be_a_thumbnail_only(tmp_path: Path, beside: Shape) -> None:
    nodes = [helper.make_node("ReduceMean", ["z"], ["mean"], keepdims=0), helper.make_node("Add", ["x", "mean"], ["y"])]
    path = write_net(tmp_path / "two.onnx", nodes, beside={"z": beside})
    with pytest.raises(ModelError, match=r"two\.onnx: beside the picture it takes .*, expected nothing or a thumbnail"):
        load_onnx(path)


def test_what_cannot_be_used_is_named(tmp_path: Path, picture: torch.Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ModelError, match=r"nowhere\.onnx: no such file"):
        load_onnx(tmp_path / "nowhere.onnx")
    (tmp_path / "text.onnx").write_text("not a net")
    with pytest.raises(ModelError, match=r"text\.onnx is not an ONNX file that can be run"):
        load_onnx(tmp_path / "text.onnx")
    with pytest.raises(ModelError, match=r"expected one of \(1, 3, height, width\)"):
        load_onnx(write_adding(tmp_path / "four.onnx", 0, (1, 4, 8, 8)))
    with pytest.raises(ModelError, match=r"double\.onnx: its input is a tensor\(double\)"):
        load_onnx(write_net(tmp_path / "double.onnx", [helper.make_node("Neg", ["x"], ["y"])], ANY, TensorProto.DOUBLE))
    nodes = [helper.make_node("ReduceMean", ["x"], ["y"], axes=[1])]
    grey = OnnxRestorer(load_onnx(write_net(tmp_path / "grey.onnx", nodes)))
    with pytest.raises(ModelError, match=r"grey\.onnx: .* comes out as \(1, 1, 64, 64\)"):
        grey(picture)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ModelError, match="pip install onnxruntime"):
        load_onnx(tmp_path / "four.onnx")
