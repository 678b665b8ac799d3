"""MNIST from one file, drawn or photographed digits brought to what MNIST's look like, and the paper's net for digits
whose pixels stand in no order (section 3.1).

On disk the net's batch normalisation is folded away, binary weights are packed, real ones in half precision. Axis
names: N digits, D pixels, C classes.
"""

import zipfile
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mofme.core.binary import BinaryLinear, binary_layers
from mofme.core.weights import ModelCard, load_as
from mofme.errors import PictureError, TableError

SIDE = 28
CLASSES = 10
_HELD_BACK = 10_000
_BOX = 20  # MNIST's digits fill a box of this side, and their centre of mass is the picture's centre
_INK = 0.2
NOTHING_DRAWN = "Nothing is drawn yet: draw a digit from 0 to 9."


@dataclass(frozen=True)
class Digits:
    """White on black: pixels_ND uint8, a row of 784 for each digit, and labels_N, 0 to 9."""

    pixels_ND: Tensor
    labels_N: Tensor

    def __len__(self) -> int:
        return len(self.labels_N)

    def __getitem__(self, index: Tensor | slice) -> "Digits":
        return Digits(self.pixels_ND[index], self.labels_N[index])

    def inputs_ND(self) -> Tensor:
        """In [0, 1]: no other preprocessing."""
        return self.pixels_ND.float() / 255


@dataclass(frozen=True)
class Mnist:
    """Digits to train on, to choose the best epoch by, and to test with."""

    training: Digits
    validation: Digits
    test: Digits


def load_mnist(path: Path, held_back: int = _HELD_BACK) -> Mnist:
    """Read an .npz of train_x, train_y, test_x, test_y; the last `held_back` to train on are for validation (as in the
    paper). Raises TableError naming what is wrong with the file.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            train, test = (_digits(file[f"{part}_x"], file[f"{part}_y"], path) for part in ("train", "test"))
    except FileNotFoundError:
        raise TableError(f"{path} is missing: give an .npz that holds train_x, train_y, test_x and test_y") from None
    except (KeyError, ValueError, TypeError, EOFError, OSError, zlib.error, zipfile.BadZipFile) as error:
        why = str(error).partition(" If you trust")[0]  # it goes on to advise to unpickle
        raise TableError(f"{path} holds no digits as train_x, train_y, test_x and test_y: {why}") from error
    if len(train) <= held_back:
        raise TableError(f"{path} has {len(train)} digits to train on: more than {held_back} are needed")
    return Mnist(train[: len(train) - held_back], train[len(train) - held_back :], test)


def ink_of(rgb_3HW: Tensor) -> Tensor:
    """How much ink (H, W) in [0, 1] a picture holds, dark on light or light on dark: its border is no ink."""
    grey = rgb_3HW.mean(0)
    border = torch.cat([grey[0], grey[-1], grey[:, 0], grey[:, -1]])
    return (grey - border.median()).abs()


def as_digit(ink_HW: Tensor) -> Tensor:
    """Ink in [0, 1] -> 784 pixels in [0, 1], cut out, scaled and centred as MNIST's. Raises PictureError for no ink."""
    strongest = ink_HW.max() if ink_HW.numel() else torch.zeros(())
    if strongest < _INK:
        raise PictureError(NOTHING_DRAWN)
    ink_HW = ink_HW / strongest
    rows, columns = (torch.nonzero((ink_HW > _INK).any(axis))[:, 0] for axis in (1, 0))
    cut = ink_HW[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    scale = _BOX / max(cut.shape)
    size = [max(1, round(side * scale)) for side in cut.shape]
    small = F.interpolate(cut[None, None], size=size, mode="bilinear", antialias=True)[0, 0]
    # Where a side must begin for its centre of mass to be in the middle, as far as it stays inside.
    masses = small.sum(1), small.sum(0)
    centres = [(mass * torch.arange(len(mass))).sum() / mass.sum() for mass in masses]
    starts = [round((SIDE - 1) / 2 - centre.item()) for centre in centres]
    top, left = (min(max(0, start), SIDE - length) for start, length in zip(starts, size, strict=True))
    digit = torch.zeros(SIDE, SIDE)
    digit[top : top + size[0], left : left + size[1]] = small
    return digit.clamp(0, 1).flatten()


def _digits(pixels: "np.ndarray", labels: "np.ndarray", path: Path) -> Digits:
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        raise TableError(f"{path}: labels are {labels.dtype} {labels.shape}, not one whole number for each digit")
    if not len(labels):
        raise TableError(f"{path} has no digits to train on, or none to test with")
    if pixels.dtype != np.uint8 or pixels.shape != (len(labels), SIDE, SIDE):
        raise TableError(f"{path}: pixels are {pixels.dtype} {pixels.shape}, not uint8 ({len(labels)}, {SIDE}, {SIDE})")
    if labels.min() < 0 or labels.max() >= CLASSES:
        raise TableError(f"{path}: labels go from {labels.min()} to {labels.max()}, not from 0 to 9")
    return Digits(torch.from_numpy(pixels.reshape(len(labels), -1)), torch.from_numpy(labels.astype(np.int64)))


DETERMINISTIC, STOCHASTIC, FLOAT, DROPOUT = "deterministic", "stochastic", "float", "dropout"
ARMS = (DETERMINISTIC, STOCHASTIC, FLOAT, DROPOUT)
BINARY = (DETERMINISTIC, STOCHASTIC)

KIND = "digits"  # on the card


class DigitNet(nn.Sequential):
    """(N, 784) in [0, 1] -> (N, 10) scores: hidden layers of ReLU, each linear layer batch-normalised.

    `arm` is one of ARMS: weights drawn or fixed to -1 and +1, or real ones without a regulariser or with half of each
    hidden layer dropped out. In eval mode the stochastic arm uses its real weights, as in the paper. `width` units in
    each of `depth` hidden layers.
    """

    def __init__(self, arm: str, width: int = 1024, depth: int = 3) -> None:
        super().__init__()
        sizes = [SIDE * SIDE, *[width] * depth, CLASSES]
        for place, (inputs, outputs) in enumerate(pairwise(sizes)):
            if place:
                self.append(nn.ReLU())
                if arm == DROPOUT:
                    self.append(nn.Dropout(0.5))
            if arm in BINARY:
                self.append(BinaryLinear(inputs, outputs, bias=False, stochastic=arm == STOCHASTIC))
            else:
                layer = nn.Linear(inputs, outputs, bias=False)
                nn.init.xavier_uniform_(layer.weight)
                self.append(layer)
            self.append(nn.BatchNorm1d(outputs, eps=1e-4))  # as in the authors' code
        self.use_real_weights(arm == STOCHASTIC)

    def use_real_weights(self, real: bool = True) -> None:
        """Test with the real weights (option 2 of section 2.6) instead of their signs (option 1)."""
        for _, layer in binary_layers(self):
            layer.real_at_test = real


def squared_hinge(scores_NC: Tensor, labels_N: Tensor) -> Tensor:
    """Mean of max(0, 1 - t y)^2, t being +1 for the right class and -1 for the others."""
    targets_NC = nn.functional.one_hot(labels_N, scores_NC.shape[1]).to(scores_NC) * 2 - 1
    return (1 - targets_NC * scores_NC).relu().square().mean()


@torch.no_grad()
def folded(net: DigitNet) -> nn.Sequential:
    """The same function in eval mode without batch normalisation, which is a scale and a bias of each output.

    Binary layers use their signs.
    """
    layers: list[nn.Module] = []
    for layer, norm in pairwise(cast(Iterable[Any], net)):
        if isinstance(layer, nn.ReLU):
            layers.append(nn.ReLU())
        elif isinstance(layer, nn.Linear):
            scale = norm.weight / (norm.running_var + norm.eps).sqrt()
            kind = BinaryLinear if isinstance(layer, BinaryLinear) else nn.Linear
            new = kind(layer.in_features, layer.out_features)
            if isinstance(new, BinaryLinear):
                new.weight.copy_(layer.weight)
                new.scale = nn.Parameter(scale.clone())
            else:
                new.weight.copy_(layer.weight * scale[:, None])
            new.bias.copy_(norm.bias - norm.running_mean * scale)
            layers.append(new)
    return nn.Sequential(*layers).eval()


def load_digit_net(folder: Path) -> tuple[nn.Sequential, ModelCard]:
    """What `save_digit_net` wrote: (N, 784) in [0, 1] -> scores (N, 10). Raises ModelError if it is something else."""
    return load_as(folder, KIND, lambda **arguments: folded(DigitNet(**arguments).eval()))
