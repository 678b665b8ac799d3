"""What training minimises. Restored and clean are (B, 3, H, W) in [0, 1]."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from mofme.core.losses import importance_loss
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


def rmse_loss(restored: Tensor, clean: Tensor) -> Tensor:
    """Root mean square error of each picture, in tenths of the range: for short runs.

    It weighs light weather less than `psnr_loss`, and gets a net that starts as the identity off the ground sooner
    (measured after 400 steps: +0.9 against +0.4 dB on rain, +1.4 against +0.3 on haze, but worse on drops).
    """
    error_B = (restored - clean).square().mean(dim=(1, 2, 3))
    return 10 * torch.sqrt(error_B + 1e-6).mean()


def objective(
    output: NetOutput,
    clean: Tensor,
    labels_BW: Tensor,
    routing: list[ObservedRouting],
    loss_of: Callable[[Tensor, Tensor], Tensor] = psnr_loss,
) -> Tensor:
    """`loss_of(restored, clean)`, plus small terms: balanced experts, naming the weathers.

    labels_BW is 0 or 1, NaN where nobody knows, which costs nothing.
    """
    loss = loss_of(output.image.float(), clean)
    known_BW = labels_BW.isfinite().float()
    loss = loss + _WEATHER * F.binary_cross_entropy_with_logits(
        output.weather_BW.float(), labels_BW.nan_to_num(), known_BW
    )
    if routing:
        balance = torch.stack([importance_loss(observed.decision) for observed in routing]).mean()
        loss = loss + _BALANCE * balance.float()
    return loss
