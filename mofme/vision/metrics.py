"""How close pictures are to their references, one number a picture: PSNR, SSIM and LPIPS; and what training minimises.

A picture is a float tensor (B, C, H, W) in [0, 1]; C is 3 (RGB), or 1 (`rgb_to_y`) where that makes sense.
"""

import warnings
from collections.abc import Callable
from pathlib import Path
from zipfile import BadZipFile

import kornia.metrics
import torch
from numpy.lib.npyio import NpzFile
from torch import Tensor
from torch.nn import functional as F

from mofme.core.losses import importance_loss
from mofme.core.moe import ObservedRouting
from mofme.errors import ModelError
from mofme.vision.nets.unet import NetOutput

SSIM_WINDOW = 11
LPIPS_MIN_SIDE = 32  # AlexNet's strides leave nothing of a smaller picture


def psnr(a: Tensor, b: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB, over all channels; infinite for equal pictures."""
    return -10 * (torch.as_tensor(a) - torch.as_tensor(b)).square().mean(dim=(1, 2, 3)).log10()


def ssim(a: Tensor, b: Tensor) -> Tensor:
    """Structural similarity (Wang et al. 2004): 11 x 11 Gaussian of sigma 1.5, whole windows only.

    The mean over channels; ValueError when a side is shorter than the window.
    """
    a, b = torch.as_tensor(a), torch.as_tensor(b)
    if min(a.shape[-2:]) < SSIM_WINDOW:
        raise ValueError(f"SSIM needs pictures of at least {SSIM_WINDOW} pixels a side, got {tuple(a.shape)}")
    return kornia.metrics.ssim(a, b, SSIM_WINDOW, padding="valid").mean(dim=(1, 2, 3))


def rgb_to_y(rgb: Tensor) -> Tensor:
    """Luma (B, 1, H, W) in studio range, 16/255 to 235/255 (BT.601, as MATLAB's rgb2ycbcr, not rounded).

    The deraining literature measures PSNR and SSIM on it, with 1 as the peak.
    """
    red, green, blue = rgb.split(1, dim=1)
    return (65.481 * red + 128.553 * green + 24.966 * blue + 16) / 255


class Lpips:
    """Learned perceptual distance (Zhang et al. 2018) on AlexNet, version 0.1: 0 for equal pictures.

    `weights` is an .npz of AlexNet's convolutions under torchvision's names (`features.0.weight`, ...).
    Without it torchvision takes them from its cache or downloads them. ModelError if they cannot be had.
    """

    def __init__(self, weights: Path | None = None) -> None:
        import lpips  # takes more than a second

        with warnings.catch_warnings():
            # lpips still calls torchvision by its old argument names.
            warnings.simplefilter("ignore", UserWarning)
            try:
                self.net = lpips.LPIPS(net="alex", pnet_rand=weights is not None, verbose=False).eval()
            except OSError as error:
                raise ModelError(
                    f"AlexNet's weights for LPIPS cannot be downloaded ({error}): name a file that holds them"
                ) from error
        if weights is not None:
            self._load_alexnet(Path(weights))

    def _load_alexnet(self, path: Path) -> None:
        # lpips spreads torchvision's `features` over five slices, and keeps their numbers.
        layers = {
            f"features.{number}.{kind}": f"{piece}.{number}.{kind}"
            for piece, children in self.net.net.named_children()
            for number, layer in children.named_children()
            for kind in layer.state_dict()
        }
        try:
            with path.open("rb") as file, NpzFile(file, allow_pickle=False) as stored:
                state = {ours: torch.from_numpy(stored[theirs]) for theirs, ours in layers.items()}
            self.net.net.load_state_dict(state, strict=True)
        except KeyError as error:
            raise ModelError(f"{path} does not hold AlexNet's weights: {error.args[0]}") from error
        except (OSError, ValueError, RuntimeError, BadZipFile) as error:
            raise ModelError(f"{path} cannot be read as AlexNet's weights: {error}") from error

    @torch.inference_mode()
    def __call__(self, a: Tensor, b: Tensor) -> Tensor:
        """Distance of RGB pictures; ValueError when a side is shorter than 32 pixels."""
        if min(a.shape[-2:]) < LPIPS_MIN_SIDE:
            raise ValueError(f"LPIPS needs at least {LPIPS_MIN_SIDE} pixels a side, got {tuple(a.shape)}")
        distance: Tensor = self.net(a, b, normalize=True)
        return distance.flatten()


def psnr_loss(restored: Tensor, clean: Tensor) -> Tensor:
    """Minus the mean PSNR of the batch in units of 20 dB, with errors below 40 dB PSNR counting ever less.

    So a decibel counts the same whether haze took 25 or drops took 5. Better than a relative L1, which pulls as hard on
    what is right already (at equal steps: +2.5 against +1.4 dB on snow, +4.7 against +3.4 on haze).
    """
    error_B = (restored - clean).square().mean(dim=(1, 2, 3))
    return 0.5 * torch.log10(error_B + 1e-4).mean()


def rmse_loss(restored: Tensor, clean: Tensor) -> Tensor:
    """Root mean square error of each picture, in tenths of the range: for short runs.

    It gets a net that starts as the identity off the ground sooner than `psnr_loss` (after 400 steps: +0.9 against
    +0.4 dB on rain, +1.4 against +0.3 on haze, but worse on drops).
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
    known_BW = labels_BW.isfinite().float()
    naming = F.binary_cross_entropy_with_logits(output.weather_BW.float(), labels_BW.nan_to_num(), known_BW)
    loss = loss_of(output.image.float(), clean) + 0.1 * naming
    if routing:
        loss = loss + 1e-3 * torch.stack([importance_loss(one.decision) for one in routing]).mean().float()
    return loss
