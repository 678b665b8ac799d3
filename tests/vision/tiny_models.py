"""The same small net twice in folders, with real weights and with binary ones."""

import math
from pathlib import Path
from typing import Any

import torch

from mofme.core.binary import binarise
from mofme.core.weights import ModelCard, save_model, save_packed
from mofme.vision.nets.unet import RestorationNet
from mofme.vision.weather import WEATHERS

ARGUMENTS: dict[str, Any] = {"widths": [8, 8, 8], "blocks": [1, 1, 1], "feed_forward": "mofme", "num_experts": 4}


def save_two_models(folder: Path) -> tuple[Path, Path]:
    """Folders of the binary and of the real net: two of its convolutions, 8 to 8 channels by 3 x 3, are of one bit."""
    torch.manual_seed(0)
    net = RestorationNet(**ARGUMENTS)
    torch.nn.init.normal_(net.head.weight, std=0.1)  # or it would return its input
    save_model(folder / "tiny", ModelCard("tiny", "restoration", ARGUMENTS, "CC0"), net.state_dict())
    names = binarise(net, keep=lambda name: not name.startswith("middle.0.0"))
    card = ModelCard("tiny-binary", "restoration", {**ARGUMENTS, "binary": names}, "CC0")
    save_packed(folder / "tiny-binary", card, net)
    return folder / "tiny-binary", folder / "tiny"


def leaving_all(haze: float) -> RestorationNet:
    """Leaves pictures as they are and sees haze with this probability, nothing else."""
    torch.manual_seed(0)
    built = RestorationNet(widths=(8, 8, 8), blocks=(1, 1, 1), feed_forward="dense")
    weight, bias = built.weather[-1].parameters()
    with torch.no_grad():
        weight.zero_()
        bias.fill_(-20.0)
        bias[WEATHERS.index("haze")] = math.log(haze / (1 - haze))
    return built
