"""What training minimises. Restored and clean are (B, 3, H, W) in [0, 1]."""

import torch
from torch import Tensor
from torch.nn import functional as F

from mofme.core.losses.balance import importance_loss
from mofme.core.moe import ObservedRouting
from mofme.vision.nets.unet import NetOutput

_FLOOR = 1e-4
_BALANCE = 1e-3
_WEATHER = 0.1


def psnr_loss(restored: Tensor, clean: Tensor) -> Tensor:
    """Minus the mean PSNR of the batch in units of 20 dB, with errors below 40 dB PSNR counting ever less.

    A logarithm for each picture: a decibel gained counts the same whether haze took 25 or drops took 5. Squared errors
    pull hardest where weather is; a relative L1 pulls as hard on what is right already, which holds a net back that
    starts as the identity (measured at equal steps: +2.5 against +1.4 dB on snow, +4.7 against +3.4 on haze).
    """
    error_B = (restored - clean).square().mean(dim=(1, 2, 3))
    return 0.5 * torch.log10(error_B + _FLOOR).mean()


def objective(output: NetOutput, clean: Tensor, labels_BW: Tensor, routing: list[ObservedRouting]) -> Tensor:
    """PSNR loss, plus small terms: balanced experts, and naming the weathers (labels_BW is 0 or 1)."""
    loss = psnr_loss(output.image.float(), clean)
    loss = loss + _WEATHER * F.binary_cross_entropy_with_logits(output.weather_BW.float(), labels_BW)
    if routing:
        balance = torch.stack([importance_loss(observed.decision) for observed in routing]).mean()
        loss = loss + _BALANCE * balance.float()
    return loss
