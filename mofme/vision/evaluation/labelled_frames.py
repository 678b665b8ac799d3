"""Folders of frames and of label pictures that say what each pixel shows."""

import re
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from mofme.errors import MofmeError, PictureError
from mofme.vision.evaluation.label_sets import LabelSet
from mofme.vision.image import find_pictures, read_picture

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
    Cityscapes and CamVid add. Raises MofmeError if not one frame has labels."""
    by_name = {_key(path, labels): path for path in find_pictures(labels)}
    found = [
        LabelledFrame(path.relative_to(frames).as_posix(), path, by_name.get(_key(path, frames)))
        for path in find_pictures(frames)
    ]
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
