"""Segmenters: the shipped one, any ONNX file, and torchvision's by name, all called alike.

segmenter = load_segmenter()
classes = segmenter(rgb)               # (3, H, W) in [0, 1] -> class indices (H, W) of segmenter.label_set

The shipped one stands on EfficientNet-Lite0's features (Tan and Le 2019, arXiv:1905.11946, in the variant without
squeeze-and-excitation, made for CPUs), with a light decoder in the manner of LR-ASPP (Howard et al. 2019,
arXiv:1905.02244): one coarse map, gated by the whole picture, added to one finer map. Ours goes one step finer, since
poles and signs are a few pixels wide in small frames.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mofme.core.weights import load_as
from mofme.errors import ModelError
from mofme.files import CARD_FILE, model_folder
from mofme.vision.label_sets import LabelSet, load_label_set
from mofme.vision.onnx import load_onnx

# Of each stage: expansion, kernel, stride, channels, blocks.
_STAGES = (
    (1, 3, 1, 16, 1),
    (6, 3, 2, 24, 2),
    (6, 5, 2, 40, 2),
    (6, 3, 2, 80, 3),
    (6, 5, 1, 112, 3),
    (6, 5, 2, 192, 4),
    (6, 3, 1, 320, 1),
)
_FINE, _MIDDLE, _COARSE, _LAST = 1, 2, 4, 6  # the stages whose output is used: a 4th, 8th, 16th and 32nd of the size
# What nets expect their input to be: (x - mean) / deviation, for RGB in [0, 1].
NORMALISATIONS = {
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "symmetric": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    "none": ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
}


class SegmentationNet(nn.Module):
    """RGB (B, 3, H, W) in [0, 1], any size, -> logits (B, classes, H, W)."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, classes: int, width: int = 96) -> None:
        super().__init__()
        for name, values in zip(("mean", "deviation"), NORMALISATIONS["imagenet"], strict=True):
            self.register_buffer(name, torch.tensor(values)[:, None, None], persistent=False)
        self.stem = _convolution(3, 32, kernel=3, stride=2)
        self.stages = nn.ModuleList()
        channels = 32
        for expansion, kernel, stride, out, blocks in _STAGES:
            first = _InvertedResidual(channels, out, expansion, kernel, stride)
            others = (_InvertedResidual(out, out, expansion, kernel, 1) for _ in range(blocks - 1))
            self.stages.append(nn.Sequential(first, *others))
            channels = out
        self.gate = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(channels, width, 1), nn.Sigmoid())
        self.last = _convolution(channels, width)
        self.from_coarse = _convolution(_STAGES[_COARSE][3], width)
        self.from_middle = _convolution(_STAGES[_MIDDLE][3], width)
        self.mix_coarse = _convolution(width, width, kernel=3)
        self.mix_middle = _convolution(width, width, kernel=3)
        self.classify = nn.Conv2d(width, classes, 1)
        self.classify_fine = nn.Conv2d(_STAGES[_FINE][3], classes, 1)

    def backbone(self) -> nn.ModuleList:
        """The part that ImageNet can teach."""
        return nn.ModuleList([self.stem, *self.stages])

    def forward(self, image: Tensor) -> Tensor:
        x = self.stem((image - self.mean) / self.deviation)
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        x = self.last(maps[_LAST]) * self.gate(maps[_LAST])
        x = self.mix_coarse(_resize(x, maps[_COARSE]) + self.from_coarse(maps[_COARSE]))
        x = self.mix_middle(_resize(x, maps[_MIDDLE]) + self.from_middle(maps[_MIDDLE]))
        logits = _resize(self.classify(x), maps[_FINE]) + self.classify_fine(maps[_FINE])
        return _resize(logits, image)


def fill_backbone(net: SegmentationNet, state: Mapping[str, Tensor]) -> None:
    """Copy an ImageNet classifier's features, whose tensors come in this net's order; its head is left out.

    Raises ValueError if they are of another net.
    """
    own = net.backbone().state_dict()
    given = list(state.values())[: len(own)]
    if [tensor.shape for tensor in given] != [tensor.shape for tensor in own.values()]:
        raise ValueError("these are not the weights of EfficientNet-Lite0")
    net.backbone().load_state_dict(dict(zip(own, given, strict=True)))


class _InvertedResidual(nn.Module):
    def __init__(self, channels: int, out: int, expansion: int, kernel: int, stride: int) -> None:
        super().__init__()
        hidden = channels * expansion
        self.expand = _convolution(channels, hidden) if expansion > 1 else nn.Identity()
        self.depthwise = _convolution(hidden, hidden, kernel, stride, groups=hidden)
        self.project = _convolution(hidden, out, activation=False)
        self.residual = stride == 1 and channels == out

    def forward(self, x: Tensor) -> Tensor:
        y = self.project(self.depthwise(self.expand(x)))
        return x + y if self.residual else y


def _convolution(
    channels: int, out: int, kernel: int = 1, stride: int = 1, groups: int = 1, activation: bool = True
) -> nn.Sequential:
    convolution = nn.Conv2d(channels, out, kernel, stride, padding=kernel // 2, groups=groups, bias=False)
    last = [nn.ReLU6(inplace=True)] if activation else []
    return nn.Sequential(convolution, nn.BatchNorm2d(out, eps=1e-3, momentum=0.01), *last)


def _resize(x: Tensor, like: Tensor) -> Tensor:
    return F.interpolate(x, size=like.shape[-2:], mode="bilinear", align_corners=False)


SHIPPED = "segmenter"


@dataclass(frozen=True)
class Segmenter:
    """`scores` takes one frame (1, 3, H, W), RGB in [0, 1]; it gives logits (1, C, h, w) or class indices (1, h, w),
    of any size. Its training left the videos `left_out` out, as far as its card tells."""

    name: str
    label_set: LabelSet
    scores: Callable[[Tensor], Tensor]
    left_out: Sequence[str] = ()

    @torch.inference_mode()
    def __call__(self, image: Tensor) -> Tensor:
        """The class of each pixel, (H, W) int64, of a frame (3, H, W). Raises ModelError for an unusable output."""
        scores = self.scores(image[None]).cpu()
        known = len(self.label_set.classes)
        if scores.ndim == 3:
            scores = scores.double().long()  # what is no number becomes none of the classes
            fits, what = bool(scores.min() >= 0 and scores.max() < known), f"class {int(scores.max())}"
        else:
            fits, what = scores.shape[1] == known, f"{scores.shape[1]} classes"
        if not fits:
            raise ModelError(
                f"{self.name} answers with {what}, but {self.label_set.name} has {known}: "
                "name the label set it was trained on (--segmenter-labels)"
            )
        if scores.ndim == 3:
            return F.interpolate(scores[None].double(), size=image.shape[-2:], mode="nearest-exact")[0, 0].long()
        return (_resize(scores.float(), image) if scores.shape[-2:] != image.shape[-2:] else scores).argmax(dim=1)[0]


def load_segmenter(
    name: str = SHIPPED, labels: str | None = None, normalisation: str = "imagenet", device: str = "cpu"
) -> Segmenter:
    """A segmenter by the name of a shipped one, a folder that `train-segmenter` wrote, an ONNX file, or a model of
    torchvision.

    `labels` is the label set of an ONNX file or a torchvision model, a name or a file: by default "camvid" and "voc".
    `normalisation` concerns ONNX files. Raises ModelError for what cannot be loaded.
    """
    folder = model_folder(name)
    if (folder / CARD_FILE).is_file():
        return _from_folder(folder, device)
    if name.lower().endswith(".onnx"):
        return _from_onnx(Path(name), load_label_set(labels or "camvid"), normalisation)
    return _from_torchvision(name, load_label_set(labels or "voc"), device)


def _from_folder(folder: Path, device: str) -> Segmenter:
    net, card = load_as(folder, "segmentation", SegmentationNet)
    labels = str(card.training.get("label_set"))
    own = folder / f"{labels}.json"
    label_set = load_label_set(str(own) if own.is_file() else labels)
    net = net.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]

    def scores(image: Tensor) -> Tensor:
        return net(image.to(device, memory_format=torch.channels_last))

    return Segmenter(card.name, label_set, scores, card.training.get("leave_out", ()))


def _from_onnx(path: Path, label_set: LabelSet, normalisation: str) -> Segmenter:
    if normalisation not in NORMALISATIONS:
        raise ModelError(f"no normalisation is called {normalisation!r}: choose one of {', '.join(NORMALISATIONS)}")
    net = load_onnx(path)
    mean, deviation = (torch.tensor(values)[:, None, None] for values in NORMALISATIONS[normalisation])

    def scores(image: Tensor) -> Tensor:
        size = tuple(want or have for want, have in zip(net.size, image.shape[2:], strict=True))
        if size != image.shape[2:]:
            image = F.interpolate(image, size=size, mode="bilinear", antialias=True)
        answer = net((image.cpu() - mean) / deviation)
        if answer.ndim == 4 and answer.shape[1] == 1:
            answer = answer[:, 0]
        if answer.ndim not in (3, 4) or len(answer) != 1:
            raise ModelError(
                f"{path}: its first output has the shape {tuple(answer.shape)}, "
                "expected logits (1, classes, height, width) or classes (1, height, width)"
            )
        return answer

    return Segmenter(path.stem, label_set, scores)


def _from_torchvision(name: str, label_set: LabelSet, device: str) -> Segmenter:
    from torchvision import models

    if name not in (known := models.list_models(module=models.segmentation)):
        raise ModelError(
            f"no segmenter is called {name!r}: shipped is {SHIPPED}; or give a folder that `train-segmenter` wrote, an "
            f"ONNX file, or a model of torchvision: {', '.join(known)}"
        )
    net, prepare = of_torchvision(name, f"--segmenter {SHIPPED}")
    net = net.to(device)
    return Segmenter(name, label_set, lambda image: net(prepare(image.to(device)))["out"])


def of_torchvision(name: str, other: str) -> tuple[nn.Module, Callable[[Tensor], Tensor]]:
    """A model with its weights, and what prepares pictures for it. Raises ModelError, which names the `other` option,
    if the weights cannot be downloaded.
    """
    from torchvision import models

    weights = models.get_model_weights(name).DEFAULT
    try:
        return models.get_model(name, weights=weights).eval(), weights.transforms()
    except (OSError, RuntimeError) as error:
        raise ModelError(
            f"the weights of torchvision's {name} cannot be downloaded ({error}): connect to the internet once, "
            f"or use {other}"
        ) from error
