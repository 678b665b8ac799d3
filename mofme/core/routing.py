"""What a router decides, and the two parts every mixture of experts is made of.

Axis names used throughout the package: T tokens, D features in, F features out, E experts, H hidden features.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class RoutingDecision:
    """One router's decision for T tokens over E experts.

    `weights_TE` is dense: exactly 0 means "not chosen". `logits_TE` holds the scores before selection, for losses and
    for explanations. `uncertainty_T` in [0, 1] says how unsure the router is; None if it does not know.
    """

    weights_TE: Tensor
    logits_TE: Tensor
    uncertainty_T: Tensor | None = None

    @property
    def chosen_TE(self) -> Tensor:
        """Boolean mask of the experts that take part."""
        return self.weights_TE != 0


class Router(nn.Module, ABC):
    """Maps tokens (T, D) to a RoutingDecision over `num_experts`."""

    num_experts: int

    @abstractmethod
    def forward(self, x_TD: Tensor) -> RoutingDecision: ...


class Experts(nn.Module, ABC):
    """Maps tokens (T, D) and routing weights (T, E) to outputs (T, F)."""

    num_experts: int

    @abstractmethod
    def forward(self, x_TD: Tensor, weights_TE: Tensor) -> Tensor: ...


def keep_top_k(scores_TE: Tensor, k: int) -> Tensor:
    """Zero all but the k largest scores of every token; differentiable in those that stay."""
    num_experts = scores_TE.shape[-1]
    if not 1 <= k <= num_experts:
        raise ValueError(f"top-k needs 1 <= k <= {num_experts} experts, got k = {k}")
    if k == num_experts:
        return scores_TE
    top_Tk, index_Tk = scores_TE.topk(k, dim=-1)
    return torch.zeros_like(scores_TE).scatter(-1, index_Tk, top_Tk)
