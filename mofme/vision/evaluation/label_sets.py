"""Label sets: what the numbers or colours of a label picture mean, as small JSON files.

A file holds `name`, `source`, `classes` (each with `name`, `colour` for pictures, and `values`, the grey values that
stand for it in label pictures), `ignore` (grey values of pixels that are not judged), and `onto`: how its classes map
onto those of another set, by the other file's name. Classes of equal names need no entry. A net's channels come in the
order of the classes.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from mofme.errors import MofmeError, PictureError

FOLDER = Path(__file__).with_name("label_sets")
IGNORE = 255  # class index of a pixel that is not judged
_MAX_CLASSES = 254
_FORMATS = ("PNG", "BMP", "TIFF")  # without loss: a JPEG's values are no labels


@dataclass(frozen=True)
class LabelSet:
    """`colours` are RGB, 0-255. `key` is the file's name, by which other sets refer to this one."""

    key: str
    name: str
    classes: tuple[str, ...]
    colours: tuple[tuple[int, int, int], ...]
    values: tuple[tuple[int, ...], ...]
    ignore: tuple[int, ...] = ()
    onto: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    def read(self, path: Path) -> Tensor:
        """Class index of each pixel, (H, W) uint8, IGNORE where none is to be judged.

        Label pictures (PNG, BMP, TIFF) hold grey values, or palette indices, or this set's colours. Raises PictureError
        for a file that is none, or holds a grey value that the set does not know.
        """
        try:
            with Image.open(path, formats=_FORMATS) as image:
                colours = image.mode not in ("L", "P", "1", "I", "I;16")
                pixels = np.asarray(image.convert("RGB") if colours else image)
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise PictureError(f"{path}: cannot be read as a label picture ({error}).") from error
        return torch.from_numpy(self._from_colours(pixels) if colours else self._from_values(pixels, path))

    def paint(self, classes: Tensor) -> Tensor:
        """Class indices (H, W) -> this set's colours, (3, H, W) in [0, 1]; what is no class is black."""
        palette = torch.zeros(256, 3)
        palette[: len(self.colours)] = torch.tensor(self.colours) / 255
        return palette[classes.long()].permute(2, 0, 1)

    def mapped_onto(self, other: "LabelSet") -> Tensor:
        """For each class its index in `other`, (classes,) int64; `len(other.classes)` for one that `other` lacks.

        Raises MofmeError if not a single class has a counterpart.
        """
        names = {**{name: name for name in self.classes}, **self.onto.get(other.key, {})}
        place = {name: index for index, name in enumerate(other.classes)}
        indices = [place.get(names[name], len(other.classes)) for name in self.classes]
        if min(indices) == len(other.classes):
            raise MofmeError(
                f"no class of {self.name} has a counterpart in {other.name}: "
                f'name them under "onto", "{other.key}" in the label file of {self.name}'
            )
        return torch.tensor(indices)

    def _from_values(self, pixels: np.ndarray, path: Path) -> np.ndarray:
        known = {value: index for index, values in enumerate(self.values) for value in values}
        known |= dict.fromkeys(self.ignore, IGNORE)
        labels = np.full(pixels.shape, IGNORE, np.uint8)
        for value in np.unique(pixels).tolist():
            if int(value) not in known:
                raise PictureError(
                    f"{path}: {self.name} has no class for the grey value {value}: choose another label set."
                )
            labels[pixels == value] = known[int(value)]
        return labels

    def _from_colours(self, pixels: np.ndarray) -> np.ndarray:
        codes = _code(pixels)
        labels = np.full(codes.shape, IGNORE, np.uint8)
        for index, colour in enumerate(self.colours):
            labels[codes == _code(np.array(colour))] = index
        return labels


def available_label_sets() -> list[str]:
    """The keys of the label sets that come with the package."""
    return sorted(path.stem for path in FOLDER.glob("*.json"))


def load_label_set(name: str) -> LabelSet:
    """A label set by the name of a built-in one, or by the path of a file. Raises MofmeError for what is neither."""
    path = FOLDER / f"{name}.json" if name in available_label_sets() else Path(name)
    try:
        plain = json.loads(path.read_text(encoding="utf-8"))
        classes = plain["classes"]
        loaded = LabelSet(
            key=path.stem,
            name=str(plain["name"]),
            classes=tuple(str(entry["name"]) for entry in classes),
            colours=tuple(_colour(entry["colour"]) for entry in classes),
            values=tuple(tuple(map(int, entry["values"])) for entry in classes),
            ignore=tuple(map(int, plain.get("ignore", ()))),
            onto={key: dict(names) for key, names in plain.get("onto", {}).items()},
        )
    except FileNotFoundError:
        choice = ", ".join(available_label_sets())
        raise MofmeError(f"no label set is called {name!r}: choose one of {choice}, or give a file like them") from None
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise MofmeError(f"{path} is not a label set ({error!r}): compare {FOLDER / 'camvid.json'}") from error
    if not 0 < len(loaded.classes) <= _MAX_CLASSES:
        raise MofmeError(f"{path}: a label set has 1 to {_MAX_CLASSES} classes, this one {len(loaded.classes)}")
    return loaded


def _colour(colour: list[int]) -> tuple[int, int, int]:
    red, green, blue = (int(part) for part in colour)
    return red, green, blue


def _code(colours: np.ndarray) -> np.ndarray:
    return colours.astype(np.int64) @ np.array([1 << 16, 1 << 8, 1])
