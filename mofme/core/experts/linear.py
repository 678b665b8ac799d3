"""Shallow experts: each is one linear map, so that what it does can be read off its weights."""

import math

import torch
from torch import Tensor, nn

from mofme.core.routing import Experts


class LinearExperts(Experts):
    """E linear maps (T, D) -> (T, F); the output is their sum, weighed by the router.

    All maps are computed for all tokens: for so small ones that is faster than to gather each one's tokens.
    """

    def __init__(self, dim: int, out: int, num_experts: int) -> None:
        super().__init__()
        self.num_experts = num_experts
        bound = 1 / math.sqrt(dim)  # nn.Linear's own initialisation
        self.weight_EFD = nn.Parameter(torch.empty(num_experts, out, dim).uniform_(-bound, bound))

    def forward(self, x_TD: Tensor, weights_TE: Tensor) -> Tensor:
        y_TEF = (x_TD @ self.weight_EFD.flatten(0, 1).T).unflatten(-1, (self.num_experts, -1))
        return (weights_TE.unsqueeze(-1) * y_TEF).sum(dim=1)
