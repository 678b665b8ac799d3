"""The paper's net for digits whose pixels stand in no order (section 3.1), and the same net as it is shipped.

On disk batch normalisation is folded away, binary weights are packed, real ones in half precision.
"""

from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor, nn

from mofme.core.binary import BinaryLinear, binary_layers
from mofme.core.weights import ModelCard, load_as
from mofme.errors import ModelError
from mofme.papers.binaryconnect.data import CLASSES, SIDE

DETERMINISTIC, STOCHASTIC, FLOAT, DROPOUT = "deterministic", "stochastic", "float", "dropout"
ARMS = (DETERMINISTIC, STOCHASTIC, FLOAT, DROPOUT)
BINARY = (DETERMINISTIC, STOCHASTIC)

KIND = "digits"  # on the card
_EPSILON = 1e-4  # of the batch normalisation, as in the authors' code


class DigitNet(nn.Sequential):
    """(N, 784) in [0, 1] -> (N, 10) scores: hidden layers of ReLU, each linear layer batch-normalised.

    `arm` is one of ARMS: weights drawn or fixed to -1 and +1, or real ones without a regulariser or with half of each
    hidden layer dropped out. In eval mode the stochastic arm uses its real weights, as in the paper. `width` units in
    each of `depth` hidden layers.
    """

    def __init__(self, arm: str, width: int = 1024, depth: int = 3) -> None:
        super().__init__()
        sizes = [SIDE * SIDE, *[width] * depth, CLASSES]
        for place, (inputs, outputs) in enumerate(pairwise(sizes)):
            if place:
                self.append(nn.ReLU())
                if arm == DROPOUT:
                    self.append(nn.Dropout(0.5))
            self.append(_linear(arm, inputs, outputs))
            self.append(nn.BatchNorm1d(outputs, eps=_EPSILON))
        self.use_real_weights(arm == STOCHASTIC)

    def use_real_weights(self, real: bool = True) -> None:
        """Test with the real weights (option 2 of section 2.6) instead of their signs (option 1)."""
        for _, layer in binary_layers(self):
            layer.real_at_test = real


def squared_hinge(scores_NC: Tensor, labels_N: Tensor) -> Tensor:
    """Mean of max(0, 1 - t y)^2, t being +1 for the right class and -1 for the others."""
    targets_NC = nn.functional.one_hot(labels_N, scores_NC.shape[1]).to(scores_NC) * 2 - 1
    return (1 - targets_NC * scores_NC).relu().square().mean()


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


def load_digit_net(folder: Path) -> tuple[nn.Sequential, ModelCard]:
    """What `save_digit_net` wrote: (N, 784) in [0, 1] -> scores (N, 10). Raises ModelError if it is something else."""
    return load_as(folder, KIND, lambda **arguments: folded(DigitNet(**arguments).eval()))


def _linear(arm: str, inputs: int, outputs: int) -> nn.Linear:
    if arm in BINARY:
        return BinaryLinear(inputs, outputs, bias=False, stochastic=arm == STOCHASTIC)
    layer = nn.Linear(inputs, outputs, bias=False)
    nn.init.xavier_uniform_(layer.weight)
    return layer


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
