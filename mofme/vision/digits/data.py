"""MNIST from one file. Axis names: N digits, D pixels."""

import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mofme.errors import TableError

SIDE = 28
CLASSES = 10
_HELD_BACK = 10_000


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
        raise TableError(f"{path} holds no digits as train_x, train_y, test_x and test_y: {error}") from error
    if len(train) <= held_back:
        raise TableError(f"{path} has {len(train)} digits to train on: more than {held_back} are needed")
    return Mnist(train[: len(train) - held_back], train[len(train) - held_back :], test)


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
