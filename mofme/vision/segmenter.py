"""Segmenters: the shipped one, any ONNX file, and torchvision's by name, all called alike.

segmenter = load_segmenter()
classes = segmenter(rgb)               # (3, H, W) in [0, 1] -> class indices (H, W) of segmenter.label_set
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mofme.core.weights import load_as
from mofme.errors import ModelError
from mofme.files import CARD_FILE, model_folder
from mofme.vision.label_sets import LabelSet, load_label_set
from mofme.vision.nets.segmentation import SegmentationNet
from mofme.vision.onnx import load_onnx

SHIPPED = "segmenter"
# What an ONNX net expects its input to be: (x - mean) / deviation, for RGB in [0, 1].
NORMALISATIONS = {
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "symmetric": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    "none": ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
}


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
        size = image.shape[-2:]
        if scores.ndim == 3:
            classes = F.interpolate(scores[None].double(), size=size, mode="nearest-exact")[0, 0].long()
            if classes.min() < 0 or classes.max() >= len(self.label_set.classes):
                raise self._misfit(f"class {int(classes.max())}")
            return classes
        if scores.shape[1] != len(self.label_set.classes):
            raise self._misfit(f"{scores.shape[1]} classes")
        if scores.shape[-2:] != size:
            scores = F.interpolate(scores.float(), size=size, mode="bilinear", align_corners=False)
        return scores.argmax(dim=1)[0]

    def _misfit(self, what: str) -> ModelError:
        return ModelError(
            f"{self.name} answers with {what}, but {self.label_set.name} has {len(self.label_set.classes)}: "
            "name the label set it was trained on (--segmenter-labels)"
        )


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
    return Segmenter(
        card.name,
        label_set,
        lambda image: net(image.to(device, memory_format=torch.channels_last)),
        card.training.get("leave_out", ()),
    )


def _from_onnx(path: Path, label_set: LabelSet, normalisation: str) -> Segmenter:
    if normalisation not in NORMALISATIONS:
        raise ModelError(f"no normalisation is called {normalisation!r}: choose one of {', '.join(NORMALISATIONS)}")
    net = load_onnx(path)
    mean, deviation = (torch.tensor(values)[:, None, None] for values in NORMALISATIONS[normalisation])

    def scores(image: Tensor) -> Tensor:
        size = tuple(want or have for want, have in zip(net.size, image.shape[2:], strict=True))
        if size != image.shape[2:]:
            image = F.interpolate(image, size=size, mode="bilinear", antialias=True)
        return _as_scores(net((image.cpu() - mean) / deviation), path)

    return Segmenter(path.stem, label_set, scores)


def _as_scores(answer: Tensor, path: Path) -> Tensor:
    if answer.ndim == 4 and answer.shape[1] == 1:
        answer = answer[:, 0]
    if answer.ndim not in (3, 4) or len(answer) != 1:
        raise ModelError(
            f"{path}: its first output has the shape {tuple(answer.shape)}, "
            "expected logits (1, classes, height, width) or classes (1, height, width)"
        )
    return answer


def _from_torchvision(name: str, label_set: LabelSet, device: str) -> Segmenter:
    from torchvision import models

    if name not in models.list_models(module=models.segmentation):
        raise ModelError(
            f"no segmenter is called {name!r}: shipped is {SHIPPED}; or give a folder that `train-segmenter` wrote, an "
            f"ONNX file, or a model of torchvision: {', '.join(models.list_models(module=models.segmentation))}"
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
