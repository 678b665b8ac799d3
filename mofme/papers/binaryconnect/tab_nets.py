"""What the tab Binary weights gives drawings and photos to: nets of one-bit weights and nets of real ones."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from mofme.core.binary import BinaryLinear
from mofme.core.weights import ModelCard
from mofme.errors import ModelError
from mofme.files import CARD_FILE, WEIGHTS, WEIGHTS_FILE
from mofme.papers.binaryconnect.net import load_digit_net
from mofme.ui.models import Engine
from mofme.ui.runs import Job
from mofme.ui.uploads import new_folder
from mofme.vision.models import weights_bytes
from mofme.vision.picture.file import read_first, write_picture
from mofme.vision.restorer import DEFAULT_TILE, available_models

SHOWN_UNITS = 24
TITLES = {True: "One-bit weights", False: "Real weights"}
_LEVELS = 255


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
        return TITLES[self.binary]

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


@dataclass(frozen=True)
class ShippedRestorer:
    """A model that a visitor may choose, and what its file takes."""

    card: ModelCard
    kilobytes: float

    @property
    def title(self) -> str:
        return TITLES[self.binary]

    @property
    def binary(self) -> bool:
        return "binary" in self.card.arguments


@dataclass(frozen=True)
class ComparedPhoto:
    """For each restorer its picture and the seconds it took; `apart` is the pictures' mean difference in levels of 0
    to 255.
    """

    restorers: tuple[ShippedRestorer, ...]
    files: tuple[Path, ...]
    seconds: tuple[float, ...]
    apart: float
    notes: tuple[str, ...]


def restorers_to_compare(models: Sequence[str], folder: Path = WEIGHTS) -> tuple[ShippedRestorer, ...]:
    """The first net of `models` with real weights that is there with binary ones, too: both; none if there is none."""
    shipped = [
        ShippedRestorer(card, weights_bytes(folder / card.name) / 1000)
        for card in available_models(folder)
        if card.name in models
    ]
    for binary in (restorer for restorer in shipped if restorer.binary):
        arguments = {name: value for name, value in binary.card.arguments.items() if name != "binary"}
        for real in shipped:
            if real.card.arguments == arguments:
                return real, binary
    return ()


def compare_photo(
    engine: Engine,
    restorers: tuple[ShippedRestorer, ...],
    job: Job,
    upload: Path,
    megapixels: float,
) -> ComparedPhoto:
    """Restore one upload by each. Raises MofmeError if it is no picture, too large, or the job was stopped."""
    picture = read_first(upload, megapixels)
    folder = new_folder()
    images, files, seconds = [], [], []
    for number, shipped in enumerate(restorers):

        def report(done: float, before: int = number) -> None:
            job.report((before + done) / len(restorers), "Restoring twice")

        restorer = engine.restorer(shipped.card.name)
        with engine.turn(job.check):
            restorer(picture.rgb[:, :DEFAULT_TILE, :DEFAULT_TILE])  # the first of its size takes longer
            restoration = restorer(picture.rgb, alpha=picture.visible, on_progress=report)
        images.append(restoration.image)
        seconds.append(restoration.seconds)
        files.append(folder / f"{upload.stem}-{shipped.card.name}.png")
        write_picture(files[-1], restoration.image, picture, "png")
    job.check()
    apart = _LEVELS * (images[0] - images[-1]).abs().mean().item()
    return ComparedPhoto(restorers, tuple(files), tuple(seconds), apart, picture.notes)
