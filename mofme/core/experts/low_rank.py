"""Low-rank experts: each is one LoRA adapter (arXiv 2106.09685); MixLoRA and MoLA put banks of them on a layer."""

import math

import torch
from torch import Tensor, nn

from mofme.core.routing import Experts


class LowRankExperts(Experts):
    """sum_e w_e B_e A_e x * alpha / rank, (T, D) -> (T, F); dropout is on x, as in LoRA.

    B begins at zero, so that the layer beside it is left alone at first. All experts together are two thin products: to
    gather each one's tokens would cost more than the work that it saves. R is the rank of one expert.
    """

    def __init__(
        self, dim: int, out: int, num_experts: int, rank: int = 8, alpha: float = 16.0, dropout: float = 0.05
    ) -> None:
        super().__init__()
        self.num_experts = num_experts
        self.scale = alpha / rank
        bound = 1 / math.sqrt(dim)  # nn.Linear's own initialisation, as in LoRA's published code
        self.down_ERD = nn.Parameter(torch.empty(num_experts, rank, dim).uniform_(-bound, bound))
        self.up_ERF = nn.Parameter(torch.zeros(num_experts, rank, out))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x_TD: Tensor, weights_TE: Tensor) -> Tensor:
        low_TER = (self.dropout(x_TD) @ self.down_ERD.flatten(0, 1).T).unflatten(-1, self.down_ERD.shape[:2])
        weighted_TER = low_TER * (weights_TE * self.scale).unsqueeze(-1)
        return weighted_TER.flatten(1) @ self.up_ERF.flatten(0, 1)
