"""Mixture of Routers (arXiv 2503.23362): several routers choose together, under a main one that weighs their votes.

    g = softmax(W_main x),  p = sum_s g_s softmax(W_s x),  then the top k of p, scaled to sum to 1.

Our reading: the paper does not say what is mixed. Mixed logits under a constant g would be one linear router again, so
probabilities are. Loss of balance is left to `core/losses/balance.py`, as for every router.
"""

from typing import cast

import torch
from torch import Tensor, nn

from mofme.core.routers.linear import LinearRouter
from mofme.core.routing import Router, RoutingDecision, expert_probabilities, top_k_weights


class MixtureOfRouters(Router):
    """S linear routers and a main one; the paper finds S = 2 nearly best. With S = 1 it is its only member, exactly."""

    def __init__(self, dim: int, num_experts: int, top_k: int = 2, num_routers: int = 2) -> None:
        super().__init__()
        if num_routers < 1:
            raise ValueError(f"a mixture needs at least 1 router, got {num_routers}")
        self.num_experts = num_experts
        self.top_k = top_k
        self.members = nn.ModuleList(LinearRouter(dim, num_experts, top_k) for _ in range(num_routers))
        self.main = LinearRouter(dim, num_routers, top_k=num_routers)

    def logits(self, x_TD: Tensor) -> Tensor:
        """Scores (T, E) whose softmax is p."""
        return self.forward(x_TD).logits_TE

    def forward(self, x_TD: Tensor) -> RoutingDecision:
        logits_STE = [cast(LinearRouter, member).logits(x_TD) for member in self.members]
        shares_ST1 = expert_probabilities(self.main.logits(x_TD)).split(1, dim=-1)
        votes_STE = [
            share_T1 * expert_probabilities(logits_TE)
            for share_T1, logits_TE in zip(shares_ST1, logits_STE, strict=True)
        ]
        probabilities_TE = sum(votes_STE[1:], start=votes_STE[0])
        # Logits whose softmax is p; those of an only member are its own, which differ from them by a constant.
        tiny = torch.finfo(probabilities_TE.dtype).tiny
        logits_TE = logits_STE[0] if len(logits_STE) == 1 else probabilities_TE.clamp_min(tiny).log()
        return RoutingDecision(top_k_weights(probabilities_TE, self.top_k), logits_TE)
