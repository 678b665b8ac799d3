"""What training minimises. Restored, weathered and clean are (B, 3, H, W) in [0, 1]."""

import torch
from torch import Tensor
from torch.nn import functional as F

from mofme.core.losses.balance import importance_loss
from mofme.core.moe import ObservedRouting
from mofme.vision.nets.unet import NetOutput

_FLOOR = 0.03
_BALANCE = 1e-3
_WEATHER = 0.1


def relative_loss(restored: Tensor, weathered: Tensor, clean: Tensor) -> Tensor:
    """Per picture `|restored - clean| / (|weathered - clean| + .03)`, averaged over the batch.

    Each weather then counts by the share of it that is removed. Under a plain L1 haze, whose error is seven times that
    of drops, would rule, and the net would learn to shift tints and leave streaks, flakes and drops alone.
    """
    error_B = (restored - clean).abs().mean(dim=(1, 2, 3))
    untouched_B = (weathered - clean).abs().mean(dim=(1, 2, 3))
    return (error_B / (untouched_B + _FLOOR)).mean()


def objective(
    output: NetOutput, weathered: Tensor, clean: Tensor, labels_BW: Tensor, routing: list[ObservedRouting]
) -> Tensor:
    """Relative loss, plus small terms: balanced experts, and naming the weathers (labels_BW is 0 or 1)."""
    loss = relative_loss(output.image.float(), weathered, clean)
    loss = loss + _WEATHER * F.binary_cross_entropy_with_logits(output.weather_BW.float(), labels_BW)
    if routing:
        balance = torch.stack([importance_loss(observed.decision) for observed in routing]).mean()
        loss = loss + _BALANCE * balance.float()
    return loss
