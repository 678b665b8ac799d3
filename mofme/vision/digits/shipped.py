"""Nets for digits on disk: batch normalisation folded away, binary weights packed, real ones in half precision."""

from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor, nn

from mofme.core.binary import BinaryLinear
from mofme.core.weights import ModelCard, check_replaceable, load_as, save_packed
from mofme.errors import ModelError
from mofme.vision.digits.data import Mnist
from mofme.vision.digits.net import DigitNet
from mofme.vision.digits.training import STATE, Run, error_of, load_run, recalibrated

_KIND = "digits"


@torch.no_grad()
def folded(net: DigitNet) -> nn.Sequential:
    """The same function in eval mode without batch normalisation, which is a scale and a bias of each output.

    Binary layers use their signs.
    """
    layers: list[nn.Module] = []
    for layer, after in pairwise(net):
        if isinstance(layer, nn.Linear) and isinstance(after, nn.BatchNorm1d):
            layers.append(_folded(layer, after))
        elif isinstance(layer, nn.ReLU):
            layers.append(nn.ReLU())
    return nn.Sequential(*layers).eval()


def pack_run(path: Path, mnist: Mnist, folder: Path, licence: str) -> ModelCard:
    """Pack the best net that a run had so far, batch normalisation measured anew, with its errors on the card.

    Raises ModelError if there is no run, or if `folder` holds a model of another kind.
    """
    check_replaceable(folder, _KIND)
    run, net = load_run(path / STATE)
    net.use_real_weights(False)
    ready = recalibrated(net, mnist.training)
    parts = {"validation": mnist.validation, "test": mnist.test}
    metrics = {f"{name} error, %": round(100 * error_of(ready, digits), 2) for name, digits in parts.items()}
    return save_digit_net(folder, ready, run, licence, metrics)


def save_digit_net(folder: Path, net: DigitNet, run: Run, licence: str, metrics: dict[str, float]) -> ModelCard:
    """Pack a trained net, its batch normalisation as it shall be used; returns its card."""
    plan = run.plan
    card = ModelCard(
        name=folder.resolve().name,
        net=_KIND,
        arguments={"arm": plan.arm, "width": plan.width},
        licence=licence,
        training={
            "data": "MNIST, the first 50,000 of its 60,000 digits to train on",
            "seed": plan.seed,
            "epochs": run.epochs,
            "planned_epochs": plan.epochs,
            "best_epoch": run.best_epoch,
            "batch": plan.batch,
            "learning_rate": plan.learning_rate,
            "decay": plan.decay,
        },
        metrics=metrics,
    )
    return save_packed(folder, card, folded(net))


def load_digit_net(folder: Path) -> tuple[nn.Sequential, ModelCard]:
    """What `save_digit_net` wrote: (N, 784) in [0, 1] -> scores (N, 10). Raises ModelError if it is something else."""
    return load_as(folder, _KIND, lambda **arguments: folded(DigitNet(**arguments).eval()))


def _folded(layer: nn.Linear, norm: nn.BatchNorm1d) -> nn.Linear:
    mean, variance = norm.running_mean, norm.running_var
    if mean is None or variance is None:
        raise ModelError("batch normalisation without statistics cannot be folded")
    scale: Tensor = norm.weight / (variance + norm.eps).sqrt()
    if isinstance(layer, BinaryLinear):
        binary = BinaryLinear(layer.in_features, layer.out_features)
        binary.weight.copy_(layer.weight)
        binary.scale = nn.Parameter(scale.clone())
        binary.bias.copy_(norm.bias - mean * scale)
        return binary
    real = nn.Linear(layer.in_features, layer.out_features)
    real.weight.copy_(layer.weight * scale[:, None])
    real.bias.copy_(norm.bias - mean * scale)
    return real
