"""Label sets: what the numbers or colours of a label picture mean, as small JSON files; and folders of them.

A file holds `name`, `source`, `classes` (each with `name`, `colour` for pictures, and `values`, the grey values that
stand for it in label pictures), `ignore` (grey values of pixels that are not judged), and `onto`: how its classes map
onto those of another set, by the other file's name. Classes of equal names need no entry. A net's channels come in the
order of the classes.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from mofme.errors import MofmeError, PictureError
from mofme.vision.picture.file import find_pictures, read_whole

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
        if colours:
            pixels = _code(pixels)
            known = {_code(np.array(colour)).item(): index for index, colour in enumerate(self.colours)}
        else:
            known = {value: index for index, values in enumerate(self.values) for value in values}
            known |= dict.fromkeys(self.ignore, IGNORE)
        labels = np.full(pixels.shape, IGNORE, np.uint8)
        for value, index in known.items():
            labels[pixels == value] = index
        if not colours and len(unknown := np.setdiff1d(pixels, list(known))):
            raise PictureError(
                f"{path}: {self.name} has no class for the grey value {unknown[0]}: choose another label set."
            )
        return torch.from_numpy(labels)

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


def available_label_sets() -> list[str]:
    """The keys of the label sets that come with the package."""
    return sorted(path.stem for path in FOLDER.glob("*.json"))


def load_label_set(name: str) -> LabelSet:
    """A label set by the name of a built-in one, or by the path of a file. Raises MofmeError for what is neither."""
    path = FOLDER / f"{name}.json" if name in available_label_sets() else Path(name)
    try:
        plain = json.loads(path.read_text(encoding="utf-8"))
        classes = plain["classes"]
        colours = (map(int, entry["colour"]) for entry in classes)
        loaded = LabelSet(
            key=path.stem,
            name=str(plain["name"]),
            classes=tuple(str(entry["name"]) for entry in classes),
            colours=tuple((red, green, blue) for red, green, blue in colours),
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


def _code(colours: np.ndarray) -> np.ndarray:
    return colours.astype(np.int64) @ np.array([1 << 16, 1 << 8, 1])


# What data sets add to a frame's name in that of its labels, and the other way round.
_TAGS = re.compile(r"(_leftImg8bit|_gtFine_label(Train)?Ids|_gtFine_color|_L|_labels?)$")


@dataclass(frozen=True)
class LabelledFrame:
    """A frame and its label picture; None where that is missing."""

    name: str  # path below the folder of frames, with forward slashes
    frame: Path
    labels: Path | None


def video_of(frame: LabelledFrame) -> str:
    """What stands before the first _ of a frame's name, as CamVid's `0016E5_07959` is of video 0016E5."""
    return frame.name.split("_")[0]


def find_labelled(frames: Path, labels: Path) -> list[LabelledFrame]:
    """Every frame with the label picture of the same name, whatever its suffix, or of the same name without what
    Cityscapes and CamVid add; of two, that of numbers rather than that of colours.

    Raises MofmeError if not one frame has labels, or if one has two whose numbers may mean different classes.
    """
    exact: dict[Path, Path] = {}
    untagged: dict[tuple[Path, str], list[Path]] = {}
    for path in find_pictures(labels):
        exact[path.relative_to(labels).with_suffix("")] = path
        untagged.setdefault(_key(path, labels), []).append(path)
    found = []
    for path in find_pictures(frames):
        relative = path.relative_to(frames)
        candidates = untagged.get(_key(path, frames), [])
        numbers = [label for label in candidates if not label.stem.endswith("_color")] or candidates
        same = exact.get(relative.with_suffix(""))
        if same is None and len(numbers) > 1:
            raise MofmeError(
                f"{path}: has {len(numbers)} label pictures, {', '.join(label.name for label in numbers)}: "
                f"leave in {labels} only those that the label set is for"
            )
        found.append(LabelledFrame(relative.as_posix(), path, same or next(iter(numbers), None)))
    if not any(frame.labels for frame in found):
        raise MofmeError(f"{frames}: no frame has a label picture of its name in {labels}")
    return found


def read_labelled(frame: LabelledFrame, label_set: LabelSet) -> tuple[Tensor, Tensor]:
    """RGB (3, H, W) in [0, 1] and class indices (H, W) uint8. Raises PictureError naming what cannot be used."""
    if frame.labels is None:
        raise PictureError(f"{frame.frame}: no label picture has its name")
    rgb, labels = read_whole(frame.frame).rgb, label_set.read(frame.labels)
    if rgb.shape[1:] != labels.shape:
        size, other = (f"{shape[1]}x{shape[0]}" for shape in (rgb.shape[1:], labels.shape))
        raise PictureError(f"{frame.frame}: {size} pixels, but its labels have {other}")
    return rgb, labels


def _key(path: Path, folder: Path) -> tuple[Path, str]:
    relative = path.relative_to(folder)
    return relative.parent, _TAGS.sub("", relative.stem)
