"""Colours that transparency hides: stored all the same, they must not change what is made of the colours seen."""

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

if TYPE_CHECKING:
    from mofme.vision.restorer import Restoration

_REACH = 8  # pixels around one that say how visible it could be: more than a soft edge is wide


def fill_hidden(image: Tensor, alpha: Tensor) -> Tensor:
    """`image` (3, H, W) as it is to be looked at: what `alpha` (1, H, W) hides is continued from what is seen.

    A pixel counts as much as it is seen beside its neighbours: edges are continued, evenly transparent pictures stay.
    """
    visible = alpha.to(image)
    around = np.ones((2 * _REACH + 1, 2 * _REACH + 1), np.uint8)
    most = torch.from_numpy(cv2.dilate(alpha[0].float().cpu().numpy(), around)).to(image)
    # Squared: programs round colours that are hardly seen to almost anything.
    weight = (visible / most.clamp_min(1e-9)).square()
    if bool((weight == 1).all()) or not visible.any():
        return image
    return torch.cat([torch.lerp(_continued(plane[None], weight), plane[None], weight) for plane in image])


def restore_seen(
    restorer: "Callable[..., Restoration]", image: Tensor, alpha: Tensor | None, **settings: Any
) -> "Restoration":
    """What `restorer` makes of `image` (3, H, W) when the colours that `alpha` (1, H, W) hides do not count.

    They come out as they are, and soft edges with the change that was made there. Raises ValueError for another size.
    """
    if alpha is not None and alpha.shape != (1, *image.shape[1:]):
        raise ValueError(f"alpha is {tuple(alpha.shape)}, the picture {tuple(image.shape)}")
    if alpha is None or bool((alpha == 1).all()):
        return restorer(image, **settings)
    filled = fill_hidden(image, alpha)
    result = restorer(filled, **settings)
    changed = (image + (result.image - filled)).clamp_(0, 1)
    restored = torch.where(image == filled, result.image, changed)
    return replace(result, image=torch.where(alpha.to(image.device) == 0, image, restored))


def _continued(plane: Tensor, weight: Tensor) -> Tensor:
    """For every pixel of (1, H, W) the mean around it, weighted: near where something near is seen, wider elsewhere."""
    if plane.numel() == 1:
        return plane
    seen, mean = (F.avg_pool2d(one, 2, ceil_mode=True, count_include_pad=False) for one in (weight, plane * weight))
    mean = mean / seen.clamp_min(1e-9)
    weight = (4 * seen).clamp_(max=1)
    coarse = torch.lerp(_continued(mean, weight), mean, weight)
    return F.interpolate(coarse[None], plane.shape[1:], mode="bilinear", align_corners=False)[0]
