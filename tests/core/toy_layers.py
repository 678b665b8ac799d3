"""A router and experts so simple that what a mixture of them computes can be told by hand."""

import torch
from torch import Tensor, nn

from mofme.core.routing import Experts, Router, RoutingDecision


class Fixed(Router):
    """Gives every token the same weights."""

    def __init__(self, *weights: float) -> None:
        super().__init__()
        self.num_experts = len(weights)
        self.weights = nn.Parameter(torch.tensor(weights, dtype=torch.float32))

    def forward(self, x_TD: Tensor) -> RoutingDecision:
        weights_TE = self.weights.expand(len(x_TD), -1)
        return RoutingDecision(weights_TE, weights_TE)


class Multiples(Experts):
    """Expert i multiplies by i + 1 and writes `copies` of the result."""

    def __init__(self, num_experts: int, copies: int = 1) -> None:
        super().__init__()
        self.num_experts = num_experts
        self.copies = copies

    def forward(self, x_TD: Tensor, weights_TE: Tensor) -> Tensor:
        factor_T = weights_TE @ torch.arange(1.0, self.num_experts + 1, dtype=weights_TE.dtype)
        return (x_TD * factor_T[:, None]).repeat(1, self.copies)
