"""Conventional experts: E separate feed-forward networks side by side."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mofme.core.routing import Experts

# A CPU still has the hidden features of so many tokens in its cache when it comes to contract them.
_HIDDEN_VALUES = 2**19
_FEWEST_TOKENS = 1024  # with fewer at a time, fetching the weights anew costs more


class FeedForward(nn.Module):
    """Linear, GELU, linear: (..., D) -> (..., D) through H hidden features."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.expand = nn.Linear(dim, hidden)
        self.contract = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        layers = (self.expand.weight, self.expand.bias, self.contract.weight, self.contract.bias)
        return _two_layers(x.reshape(-1, x.shape[-1]), *layers).reshape(x.shape)


class FeedForwardExperts(Experts):
    """E feed-forward networks; each token visits only the experts whose weight is not 0 (sparse dispatch)."""

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
        blocks = zip(token_N.split(counts), gates_N1.split(counts), *self._each_expert(), strict=True)
        for tokens, gates_n1, expand_HD, expand_bias_H, contract_DH, contract_bias_D in blocks:
            if len(tokens):
                y = _two_layers(x_TD[tokens], expand_HD, expand_bias_H, contract_DH, contract_bias_D)
                y_TD.index_add_(0, tokens, (y * gates_n1).to(y_TD.dtype))
        return y_TD

    def _each_expert(self) -> list[tuple[Tensor, ...]]:
        # Unbound at once: the gradient of E single selections would be E tensors as large as all experts together.
        stacked = (self.expand_EHD, self.expand_bias_EH, self.contract_EDH, self.contract_bias_ED)
        return [parameter.unbind() for parameter in stacked]


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
