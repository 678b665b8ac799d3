"""A drawn or photographed digit, brought to what MNIST's digits look like."""

import torch
import torch.nn.functional as F
from torch import Tensor

from mofme.errors import PictureError
from mofme.vision.digits.data import SIDE

_BOX = 20  # MNIST's digits fill a box of this side, and their centre of mass is the picture's centre
_INK = 0.2


def ink_of(rgb_3HW: Tensor) -> Tensor:
    """How much ink (H, W) in [0, 1] a picture holds, dark on light or light on dark: its border is no ink."""
    grey = rgb_3HW.mean(0)
    border = torch.cat([grey[0], grey[-1], grey[:, 0], grey[:, -1]])
    return (grey - border.median()).abs()


def as_digit(ink_HW: Tensor) -> Tensor:
    """Ink in [0, 1] -> 784 pixels in [0, 1], cut out, scaled and centred as MNIST's. Raises PictureError for no ink."""
    strongest = ink_HW.max() if ink_HW.numel() else torch.zeros(())
    if strongest < _INK:
        raise PictureError("Nothing is drawn yet: draw a digit from 0 to 9.")
    ink_HW = ink_HW / strongest
    rows, columns = (torch.nonzero((ink_HW > _INK).any(axis))[:, 0] for axis in (1, 0))
    cut = ink_HW[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    scale = _BOX / max(cut.shape)
    size = [max(1, round(side * scale)) for side in cut.shape]
    small = F.interpolate(cut[None, None], size=size, mode="bilinear", antialias=True)[0, 0]
    top, left = (_offset(small.sum(1 - axis), axis_length) for axis, axis_length in enumerate(size))
    digit = torch.zeros(SIDE, SIDE)
    digit[top : top + size[0], left : left + size[1]] = small
    return digit.clamp(0, 1).flatten()


def _offset(mass: Tensor, length: int) -> int:
    """Where a side must begin for its centre of mass to be in the middle, as far as it stays inside."""
    centre = (mass * torch.arange(length)).sum() / mass.sum()
    return min(max(0, round((SIDE - 1) / 2 - centre.item())), SIDE - length)
