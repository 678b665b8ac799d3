"""The paper's net for digits whose pixels stand in no order (section 3.1)."""

from itertools import pairwise

from torch import Tensor, nn

from mofme.core.binary import BinaryLinear, binary_layers
from mofme.vision.digits.data import CLASSES, SIDE

DETERMINISTIC, STOCHASTIC, FLOAT, DROPOUT = "deterministic", "stochastic", "float", "dropout"
ARMS = (DETERMINISTIC, STOCHASTIC, FLOAT, DROPOUT)
BINARY = (DETERMINISTIC, STOCHASTIC)

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


def _linear(arm: str, inputs: int, outputs: int) -> nn.Linear:
    if arm in BINARY:
        return BinaryLinear(inputs, outputs, bias=False, stochastic=arm == STOCHASTIC)
    layer = nn.Linear(inputs, outputs, bias=False)
    nn.init.xavier_uniform_(layer.weight)
    return layer
