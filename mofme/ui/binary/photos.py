"""One photo restored by a net of real weights and by the same net of one-bit weights."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from mofme.core.weights import ModelCard
from mofme.files import WEIGHTS
from mofme.ui.jobs import Engine, Job, new_folder
from mofme.vision.models import weights_bytes
from mofme.vision.picture.file import read_picture, write_picture
from mofme.vision.restorer import DEFAULT_TILE, available_models

_LEVELS = 255


@dataclass(frozen=True)
class ShippedRestorer:
    """A model that a visitor may choose, and what its file takes."""

    card: ModelCard
    kilobytes: float

    @property
    def title(self) -> str:
        return "One-bit weights" if self.binary else "Real weights"

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
    on_progress: Callable[[float], None],
) -> ComparedPhoto:
    """Restore one upload by each. Raises MofmeError if it is no picture, too large, or the job was stopped."""
    picture = read_picture(upload, megapixels)
    folder = new_folder()
    images, files, seconds = [], [], []
    for number, shipped in enumerate(restorers):

        def report(done: float, before: int = number) -> None:
            job.check()
            on_progress((before + done) / len(restorers))

        restorer = engine.restorer(shipped.card.name)
        with engine.turn:
            restorer(picture.rgb[:, :DEFAULT_TILE, :DEFAULT_TILE])  # the first of its size takes longer
            restoration = restorer(picture.rgb, on_progress=report)
        images.append(restoration.image)
        seconds.append(restoration.seconds)
        files.append(folder / f"{upload.stem}-{shipped.card.name}.png")
        write_picture(files[-1], restoration.image, picture, "png")
    job.check()
    apart = _LEVELS * (images[0] - images[-1]).abs().mean().item()
    return ComparedPhoto(restorers, tuple(files), tuple(seconds), apart)
