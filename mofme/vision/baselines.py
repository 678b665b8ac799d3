"""What people reach for before a trained net: classical filters, each with its published or customary parameters.

A baseline maps a picture (3, H, W), RGB in [0, 1], to one of the same size.
"""

from collections.abc import Callable, Mapping
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Array = NDArray[Any]


def guided_filter(guide_HW: Array, image_HW: Array, radius: int, epsilon: float) -> Array:
    """He, Sun and Tang, "Guided image filtering" (ECCV 2010): `image` smoothed along the edges of `guide`, float32."""
    # kornia's gives the same, but takes ten times as long: its time would tell of the library, not of the filter.

    def mean(x: Array) -> Array:
        return cv2.boxFilter(x, -1, (2 * radius + 1, 2 * radius + 1), borderType=cv2.BORDER_REFLECT_101)

    mean_guide, mean_image = mean(guide_HW), mean(image_HW)
    covariance = mean(guide_HW * image_HW) - mean_guide * mean_image
    variance = mean(guide_HW * guide_HW) - mean_guide * mean_guide
    slope = covariance / (variance + epsilon)  # Eq. (5)
    offset = mean_image - slope * mean_guide  # Eq. (6)
    return mean(slope) * guide_HW + mean(offset)  # Eq. (8)


def dehaze(rgb_HWC: Array) -> Array:
    """He, Sun and Tang, "Single image haze removal using dark channel prior" (CVPR 2009), float32.

    Patches of 15 x 15, omega .95 and a transmission of at least .1, as published; the transmission is refined by the
    guided filter (radius 20, epsilon .001), with which its authors replaced soft matting.
    """
    dark = _dark_channel(rgb_HWC)
    # The air's light: of the .1 % with the brightest dark channel, the pixel that is brightest in the picture.
    count = max(dark.size // 1000, 1)
    candidates = rgb_HWC.reshape(-1, 3)[np.argpartition(dark.ravel(), -count)[-count:]]
    light = np.maximum(candidates[candidates.sum(axis=1).argmax()], 1 / 255)
    transmission = 1 - 0.95 * _dark_channel(rgb_HWC / light)  # Eq. (12)
    transmission = guided_filter(rgb_HWC.mean(axis=2), transmission, 20, 1e-3)
    return (rgb_HWC - light) / np.maximum(transmission, 0.1)[..., None] + light  # Eq. (16)


def _dark_channel(rgb_HWC: Array) -> Array:
    return cv2.erode(rgb_HWC.min(axis=2), np.ones((15, 15), np.uint8))


def _smooth_along_edges(rgb_HWC: Array) -> Array:
    """Each channel its own guide; radius 4 and epsilon .1^2, the weakest setting of the paper's examples."""
    return np.stack([guided_filter(channel, channel, 4, 0.1**2) for channel in cv2.split(rgb_HWC)], axis=2)


def _equalize(rgb_HWC: Array) -> Array:
    """Contrast-limited adaptive histogram equalization of the lightness, as in OpenCV's tutorial."""
    lightness, a, b = cv2.split(cv2.cvtColor(rgb_HWC, cv2.COLOR_RGB2LAB))
    lightness = cv2.createCLAHE(clipLimit=2.0, tileGridSize=(8, 8)).apply(lightness)
    return cv2.cvtColor(cv2.merge([lightness, a, b]), cv2.COLOR_LAB2RGB)


def _on_floats(restore: Callable[[Array], Array]) -> Callable[[Tensor], Tensor]:
    def restore_tensor(image: Tensor) -> Tensor:
        rgb_HWC = np.ascontiguousarray(image.permute(1, 2, 0).numpy())
        restored = np.ascontiguousarray(restore(rgb_HWC).transpose(2, 0, 1), np.float32)
        return torch.from_numpy(restored).clamp(0, 1)

    return restore_tensor


def _on_bytes(restore: Callable[[Array], Array]) -> Callable[[Tensor], Tensor]:
    def restore_floats(rgb_HWC: Array) -> Array:
        return restore((rgb_HWC * 255).round().astype(np.uint8)).astype(np.float32) / 255

    return _on_floats(restore_floats)


# OpenCV's filters with its own defaults, or the numbers of its manual where it has none.
BASELINES: Mapping[str, Callable[[Tensor], Tensor]] = {
    "median blur, 3 wide": _on_bytes(lambda rgb: cv2.medianBlur(rgb, 3)),
    "bilateral filter, 9 wide": _on_bytes(lambda rgb: cv2.bilateralFilter(rgb, 9, 75, 75)),
    "non-local means": _on_bytes(lambda rgb: cv2.fastNlMeansDenoisingColored(rgb, None, 3, 3, 7, 21)),
    "guided filter": _on_floats(_smooth_along_edges),
    "dark channel": _on_floats(dehaze),
    "CLAHE": _on_bytes(_equalize),
}
