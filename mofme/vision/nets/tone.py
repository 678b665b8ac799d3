"""The tone of a whole picture: how bright and how rich in contrast it was before the haze.

No part of a picture tells how thick the haze is that lies on all of it. What a restorer leaves of haze is mostly one
wrong gain and offset for each colour: the right ones would bring another 6 dB. A small net judges them from thumbnails
of the picture as it came and as the restorer left it.
"""

from itertools import pairwise

import torch
from torch import Tensor, nn

TONE_SIZE = 64
_WIDTHS = (6, 24, 32, 56)
_MEAN, _STD = 0.45, 0.25
_DROPOUT = 0.2
_LEAST_HAZE = 0.8


class ToneNet(nn.Module):
    """Thumbnails (B, 3, 64, 64) before and after restoring, in [0, 1] -> log gain and offset of each colour, (B, 2, 3).

    Both start at 0.
    """

    def __init__(self) -> None:
        super().__init__()
        last = _WIDTHS[-1]
        self.features = nn.Sequential(
            *(_convolution(*channels, stride=2) for channels in pairwise(_WIDTHS)),
            _convolution(last, last, stride=1),
            _convolution(last, last, stride=1),
        )
        self.dropout = nn.Dropout(_DROPOUT)
        self.project = nn.Linear(2 * last, 6)
        nn.init.zeros_(self.project.weight)
        nn.init.zeros_(self.project.bias)

    def forward(self, before: Tensor, after: Tensor) -> Tensor:
        features = self.features((torch.cat((before, after), dim=1) - _MEAN) / _STD)
        # Haze is read off the brightest and darkest as well as the mean.
        pooled = torch.cat((features.mean(dim=(-2, -1)), features.amax(dim=(-2, -1))), dim=1)
        tone: Tensor = self.project(self.dropout(pooled))
        return tone.unflatten(-1, (2, 3))


def trust(haze: Tensor) -> Tensor:
    """How much of the tone is applied, in [0, 1], for a probability of haze: nothing up to 0.8, all at 1.

    Trusted from 0.5 on, it costs clean photographs that look hazy 1.3 dB on average, instead of 0.2.
    """
    return ((haze - _LEAST_HAZE) / (1 - _LEAST_HAZE)).clamp(0, 1)


def apply_tone(image: Tensor, tone: Tensor, out: Tensor | None = None) -> Tensor:
    """image * exp(gain) + offset; image (..., 3, H, W), tone (..., 2, 3). Not clamped; `out` may be the image."""
    gain, offset = tone[..., None, None].unbind(-4)
    return torch.addcmul(offset, image, gain.exp(), out=out)


def _convolution(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()
    )
