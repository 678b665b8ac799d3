"""A digit read by a net of one-bit weights and by a net of real ones."""

import functools
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from mofme.core.binary import BinaryLinear
from mofme.core.weights import ModelCard
from mofme.errors import ModelError
from mofme.files import CARD_FILE, WEIGHTS, WEIGHTS_FILE
from mofme.vision.digits.shipped import load_digit_net

SHOWN_UNITS = 24


@dataclass(frozen=True)
class Reader:
    """A shipped net for digits, and what its file takes."""

    net: nn.Sequential
    card: ModelCard
    kilobytes: float

    @property
    def first_weights_FD(self) -> Tensor:
        """The first layer's weights as they work."""
        layer = self.net[0]
        if isinstance(layer, BinaryLinear):
            return layer.working_weight().detach()
        return layer.get_parameter("weight").detach()

    @property
    def title(self) -> str:
        return "One-bit weights" if self.binary else "Real weights"

    @property
    def binary(self) -> bool:
        return isinstance(self.net[0], BinaryLinear)


@dataclass(frozen=True)
class Answer:
    """What one net says: a score for each digit, the highest wins; and the first-layer units that the drawing excites
    most, strongest first.
    """

    reader: Reader
    scores_C: Tensor
    units: tuple[int, ...]

    @property
    def digit(self) -> int:
        return int(self.scores_C.argmax())


@functools.cache
def shipped_readers() -> tuple[Reader, ...]:
    """The nets for digits below `weights/`, that of one-bit weights first; read when they are first asked for."""
    return read_nets(WEIGHTS)


def read_nets(folder: Path) -> tuple[Reader, ...]:
    """The nets for digits in folders whose name begins with `digits`. Raises ModelError if there is none."""
    readers = []
    for path in sorted(folder.glob(f"digits*/{CARD_FILE}")):
        net, card = load_digit_net(path.parent)
        readers.append(Reader(net, card, (path.parent / WEIGHTS_FILE).stat().st_size / 1000))
    if not readers:
        raise ModelError("No net for digits is installed: train one with `python -m mofme binary train`, then pack it.")
    return tuple(sorted(readers, key=lambda reader: not reader.binary))


@torch.inference_mode()
def read_digit(readers: tuple[Reader, ...], pixels_D: Tensor) -> list[Answer]:
    """Every net's answer for pixels in [0, 1], as `as_digit` gives them."""
    answers = []
    for reader in readers:
        excited_F = reader.net[:2](pixels_D[None])[0]
        units = excited_F.topk(min(SHOWN_UNITS, len(excited_F))).indices.tolist()
        answers.append(Answer(reader, reader.net(pixels_D[None])[0], tuple(units)))
    return answers
