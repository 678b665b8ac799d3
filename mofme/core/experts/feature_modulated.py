"""Feature-modulated experts (FME) of MoFME (arXiv 2312.16610): E experts are E modulations of one shared network.

    FME(x) = FFN( sum_i r_i (gamma_i o x + beta_i) )
"""

import torch
from torch import Tensor, nn

from mofme.core.experts.feed_forward import FeedForward
from mofme.core.routing import Experts


class FeatureModulatedExperts(Experts):
    """Every expert is a pair of vectors (gamma_i, beta_i); one feed-forward network is shared by all.

    The sum over experts is linear in (gamma, beta), so it is two small products, `weights @ gamma` and
    `weights @ beta`, whatever the number of experts: the network itself runs once a token.
    """

    def __init__(self, dim: int, hidden: int, num_experts: int) -> None:
        super().__init__()
        self.num_experts = num_experts
        self.gamma_ED = nn.Parameter(1 + 0.1 * torch.randn(num_experts, dim))
        self.beta_ED = nn.Parameter(torch.zeros(num_experts, dim))
        self.feed_forward = FeedForward(dim, hidden)

    def forward(self, x_TD: Tensor, weights_TE: Tensor) -> Tensor:
        modulated_TD = torch.addcmul(weights_TE @ self.beta_ED, x_TD, weights_TE @ self.gamma_ED)
        y_TD: Tensor = self.feed_forward(modulated_TD)
        return y_TD


class GeneratedModulationExperts(Experts):
    """The authors' variant: every expert generates gamma_i(x) and beta_i(x) with two D x D linear layers; all run.

    Kept as the reference for the cost table: its parameters and time grow with E.
    """

    def __init__(self, dim: int, hidden: int, num_experts: int) -> None:
        super().__init__()
        self.num_experts = num_experts
        self.gamma = nn.ModuleList(nn.Linear(dim, dim) for _ in range(num_experts))
        self.beta = nn.ModuleList(nn.Linear(dim, dim) for _ in range(num_experts))
        self.feed_forward = FeedForward(dim, hidden)

    def forward(self, x_TD: Tensor, weights_TE: Tensor) -> Tensor:
        modulated_TD = torch.zeros_like(x_TD)
        for gamma, beta, weight_T in zip(self.gamma, self.beta, weights_TE.unbind(-1), strict=True):
            modulated_TD = modulated_TD + weight_T.unsqueeze(-1) * (gamma(x_TD) * x_TD + beta(x_TD))
        y_TD: Tensor = self.feed_forward(modulated_TD)
        return y_TD
