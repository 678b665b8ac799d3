"""Four kinds of experts, all from tokens (T, D) and routing weights (T, E) to outputs: E networks, E modulations of one
network, E low-rank updates, E linear maps. Those cut out of a gated network are in `gated_experts.py`.

Axis names beside those of `routing.py`: N pairs of a token and an expert it visits, R the rank of one expert.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mofme.core.routing import Experts

# A CPU still has the hidden features of so many tokens in its cache when it comes to contract them.
_HIDDEN_VALUES = 2**19
_FEWEST_TOKENS = 1024  # with fewer at a time, fetching the weights anew costs more


class FeedForward(nn.Module):
    """Linear, GELU, linear: (..., D) -> (..., D) through H hidden features: the dense layer that a mixture replaces."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.expand = nn.Linear(dim, hidden)
        self.contract = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        layers = (self.expand.weight, self.expand.bias, self.contract.weight, self.contract.bias)
        return _two_layers(x.reshape(-1, x.shape[-1]), *layers).reshape(x.shape)


class FeedForwardExperts(Experts):
    """Conventional experts (Shazeer et al. 2017, arXiv 1701.06538): E feed-forward networks side by side.

        y = sum_e w_e FFN_e(x), (T, D) -> (T, D)

    Each token visits only the experts whose weight is not 0 (sparse dispatch).
    """

    def __init__(self, dim: int, hidden: int, num_experts: int) -> None:
        super().__init__()
        self.num_experts = num_experts
        self.expand_EHD = nn.Parameter(_uniform(num_experts, hidden, dim))
        self.expand_bias_EH = nn.Parameter(torch.zeros(num_experts, hidden))
        self.contract_EDH = nn.Parameter(_uniform(num_experts, dim, hidden))
        self.contract_bias_ED = nn.Parameter(torch.zeros(num_experts, dim))

    def forward(self, x_TD: Tensor, weights_TE: Tensor) -> Tensor:
        # Sorted by expert, so that each expert takes its tokens in one block.
        expert_N, token_N = weights_TE.T.nonzero(as_tuple=True)
        gates_N1 = weights_TE[token_N, expert_N].unsqueeze(-1)
        counts = torch.bincount(expert_N, minlength=self.num_experts).tolist()
        y_TD = torch.zeros_like(x_TD)
        # Unbound at once: the gradient of E single selections would be E tensors as large as all experts together.
        stacked = (self.expand_EHD, self.expand_bias_EH, self.contract_EDH, self.contract_bias_ED)
        experts = (parameter.unbind() for parameter in stacked)
        blocks = zip(token_N.split(counts), gates_N1.split(counts), *experts, strict=True)
        for tokens, gates_n1, expand_HD, expand_bias_H, contract_DH, contract_bias_D in blocks:
            if len(tokens):
                y = _two_layers(x_TD[tokens], expand_HD, expand_bias_H, contract_DH, contract_bias_D)
                y_TD.index_add_(0, tokens, (y * gates_n1).to(y_TD.dtype))
        return y_TD


class FeatureModulatedExperts(Experts):
    """Feature-modulated experts of MoFME (arXiv 2312.16610): E modulations (gamma_e, beta_e) of one shared network.

        y = FFN( sum_e w_e (gamma_e o x + beta_e) ), (T, D) -> (T, D)

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
    """The variant of MoFME's authors: every expert generates gamma_e(x) and beta_e(x) by two D x D layers; all run.

        y = FFN( sum_e w_e (gamma_e(x) o x + beta_e(x)) ), (T, D) -> (T, D)

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


class LowRankExperts(Experts):
    """Each expert is one LoRA adapter (arXiv 2106.09685); MixLoRA and MoLA put banks of them on a layer.

        y = sum_e w_e B_e A_e dropout(x) * alpha / rank, (T, D) -> (T, F)

    B begins at zero, so that the layer beside it is left alone at first. All experts together are two thin products: to
    gather each one's tokens would cost more than the work that it saves.
    """

    def __init__(
        self, dim: int, out: int, num_experts: int, rank: int = 8, alpha: float = 16.0, dropout: float = 0.05
    ) -> None:
        super().__init__()
        self.num_experts = num_experts
        self.scale = alpha / rank
        self.down_ERD = nn.Parameter(_uniform(num_experts, rank, dim))  # as in LoRA's published code
        self.up_ERF = nn.Parameter(torch.zeros(num_experts, rank, out))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x_TD: Tensor, weights_TE: Tensor) -> Tensor:
        low_TER = (self.dropout(x_TD) @ self.down_ERD.flatten(0, 1).T).unflatten(-1, self.down_ERD.shape[:2])
        weighted_TER = low_TER * (weights_TE * self.scale).unsqueeze(-1)
        return weighted_TER.flatten(1) @ self.up_ERF.flatten(0, 1)


class LinearExperts(Experts):
    """Shallow experts (SMOSE, arXiv 2412.13053): each is one linear map, so what it does can be read off its weights.

        y = sum_e w_e W_e x, (T, D) -> (T, F)

    All maps are computed for all tokens: for so small ones that is faster than to gather each one's tokens.
    """

    def __init__(self, dim: int, out: int, num_experts: int) -> None:
        super().__init__()
        self.num_experts = num_experts
        self.weight_EFD = nn.Parameter(_uniform(num_experts, out, dim))

    def forward(self, x_TD: Tensor, weights_TE: Tensor) -> Tensor:
        y_TEF = (x_TD @ self.weight_EFD.flatten(0, 1).T).unflatten(-1, (self.num_experts, -1))
        return (weights_TE.unsqueeze(-1) * y_TEF).sum(dim=1)


def _two_layers(
    x_TD: Tensor, expand_HD: Tensor, expand_bias_H: Tensor, contract_DH: Tensor, contract_bias_D: Tensor
) -> Tensor:
    tokens = max(_FEWEST_TOKENS, _HIDDEN_VALUES // len(expand_HD))
    if x_TD.device.type == "cpu" and len(x_TD) > tokens:
        layers = (expand_HD, expand_bias_H, contract_DH, contract_bias_D)
        return torch.cat([_two_layers(part_TD, *layers) for part_TD in x_TD.split(tokens)])
    return F.linear(F.gelu(F.linear(x_TD, expand_HD, expand_bias_H)), contract_DH, contract_bias_D)


def _uniform(*shape: int) -> Tensor:
    bound = 1 / math.sqrt(shape[-1])  # nn.Linear's own initialisation
    return torch.empty(shape).uniform_(-bound, bound)
