"""Folders of frames and of label pictures that say what each pixel shows."""

import re
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from mofme.errors import MofmeError, PictureError
from mofme.vision.evaluation.label_sets import LabelSet
from mofme.vision.picture.file import find_pictures, read_picture

# What data sets add to a frame's name in that of its labels, and the other way round.
_TAGS = re.compile(r"(_leftImg8bit|_gtFine_label(Train)?Ids|_gtFine_color|_L|_labels?)$")


@dataclass(frozen=True)
class LabelledFrame:
    """A frame and its label picture; None where that is missing."""

    name: str  # path below the folder of frames, with forward slashes
    frame: Path
    labels: Path | None


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
    rgb, labels = read_picture(frame.frame).rgb, label_set.read(frame.labels)
    if rgb.shape[1:] != labels.shape:
        size, other = (f"{shape[1]}x{shape[0]}" for shape in (rgb.shape[1:], labels.shape))
        raise PictureError(f"{frame.frame}: {size} pixels, but its labels have {other}")
    return rgb, labels


def _key(path: Path, folder: Path) -> tuple[Path, str]:
    relative = path.relative_to(folder)
    return relative.parent, _TAGS.sub("", relative.stem)
