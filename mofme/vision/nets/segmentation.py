"""The segmentation net that is shipped: EfficientNet-Lite0's features and a light decoder in the manner of LR-ASPP.

EfficientNet-Lite (Tan and Le 2019, arXiv:1905.11946, in the variant without squeeze-and-excitation) was made for CPUs.
LR-ASPP (Howard et al. 2019, arXiv:1905.02244) adds one coarse map, gated by the whole picture, to one finer map; ours
goes one step finer, since poles and signs are a few pixels wide in small frames.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# Of each stage: expansion, kernel, stride, channels, blocks.
_STAGES = (
    (1, 3, 1, 16, 1),
    (6, 3, 2, 24, 2),
    (6, 5, 2, 40, 2),
    (6, 3, 2, 80, 3),
    (6, 5, 1, 112, 3),
    (6, 5, 2, 192, 4),
    (6, 3, 1, 320, 1),
)
_FINE, _MIDDLE, _COARSE, _LAST = 1, 2, 4, 6  # the stages whose output is used: a 4th, 8th, 16th and 32nd of the size
_MEAN = (0.485, 0.456, 0.406)
_DEVIATION = (0.229, 0.224, 0.225)


class SegmentationNet(nn.Module):
    """RGB (B, 3, H, W) in [0, 1], any size, -> logits (B, classes, H, W)."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, classes: int, width: int = 96) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(_MEAN)[:, None, None], persistent=False)
        self.register_buffer("deviation", torch.tensor(_DEVIATION)[:, None, None], persistent=False)
        self.stem = _convolution(3, 32, kernel=3, stride=2)
        self.stages = nn.ModuleList()
        channels = 32
        for expansion, kernel, stride, out, blocks in _STAGES:
            first = _InvertedResidual(channels, out, expansion, kernel, stride)
            others = (_InvertedResidual(out, out, expansion, kernel, 1) for _ in range(blocks - 1))
            self.stages.append(nn.Sequential(first, *others))
            channels = out
        self.gate = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(channels, width, 1), nn.Sigmoid())
        self.last = _convolution(channels, width)
        self.from_coarse = _convolution(_STAGES[_COARSE][3], width)
        self.from_middle = _convolution(_STAGES[_MIDDLE][3], width)
        self.mix_coarse = _convolution(width, width, kernel=3)
        self.mix_middle = _convolution(width, width, kernel=3)
        self.classify = nn.Conv2d(width, classes, 1)
        self.classify_fine = nn.Conv2d(_STAGES[_FINE][3], classes, 1)

    def backbone(self) -> nn.ModuleList:
        """The part that ImageNet can teach."""
        return nn.ModuleList([self.stem, *self.stages])

    def forward(self, image: Tensor) -> Tensor:
        x = self.stem((image - self.mean) / self.deviation)
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        x = self.last(maps[_LAST]) * self.gate(maps[_LAST])
        x = self.mix_coarse(_resize(x, maps[_COARSE]) + self.from_coarse(maps[_COARSE]))
        x = self.mix_middle(_resize(x, maps[_MIDDLE]) + self.from_middle(maps[_MIDDLE]))
        logits = _resize(self.classify(x), maps[_FINE]) + self.classify_fine(maps[_FINE])
        return _resize(logits, image)


def fill_backbone(net: SegmentationNet, state: Mapping[str, Tensor]) -> None:
    """Copy an ImageNet classifier's features, whose tensors come in this net's order; its head is left out.

    Raises ValueError if they are of another net.
    """
    own = net.backbone().state_dict()
    given = list(state.values())[: len(own)]
    if [tensor.shape for tensor in given] != [tensor.shape for tensor in own.values()]:
        raise ValueError("these are not the weights of EfficientNet-Lite0")
    net.backbone().load_state_dict(dict(zip(own, given, strict=True)))


class _InvertedResidual(nn.Module):
    def __init__(self, channels: int, out: int, expansion: int, kernel: int, stride: int) -> None:
        super().__init__()
        hidden = channels * expansion
        self.expand = _convolution(channels, hidden) if expansion > 1 else nn.Identity()
        self.depthwise = _convolution(hidden, hidden, kernel, stride, groups=hidden)
        self.project = _convolution(hidden, out, activation=False)
        self.residual = stride == 1 and channels == out

    def forward(self, x: Tensor) -> Tensor:
        y = self.project(self.depthwise(self.expand(x)))
        return x + y if self.residual else y


def _convolution(
    channels: int, out: int, kernel: int = 1, stride: int = 1, groups: int = 1, activation: bool = True
) -> nn.Sequential:
    layers: list[nn.Module] = [
        nn.Conv2d(channels, out, kernel, stride, padding=kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(out, eps=1e-3, momentum=0.01),
    ]
    return nn.Sequential(*layers, nn.ReLU6(inplace=True)) if activation else nn.Sequential(*layers)


def _resize(x: Tensor, like: Tensor) -> Tensor:
    return F.interpolate(x, size=like.shape[-2:], mode="bilinear", align_corners=False)
