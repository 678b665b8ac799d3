"""The linear top-k router of sparsely-gated mixtures of experts (Shazeer et al. 2017)."""

import torch
from torch import Tensor, nn

from mofme.core.routing import Router, RoutingDecision, expert_scores, keep_top_k


class LinearRouter(Router):
    """`softmax` over E linear scores, of which the top k stay; for k > 1 they are scaled to sum to 1.

    The softmax comes first: taken after the selection, a top-1 weight would be the constant 1 and teach nothing.
    """

    def __init__(self, dim: int, num_experts: int, top_k: int = 2) -> None:
        super().__init__()
        self.num_experts = num_experts
        self.top_k = top_k
        self.score = nn.Linear(dim, num_experts, bias=False)

    def forward(self, x_TD: Tensor) -> RoutingDecision:
        # In single precision also under autocast: of half-precise scores many are equal.
        weight_ED = self.score.weight
        with torch.autocast(x_TD.device.type, enabled=False):
            logits_TE = expert_scores(x_TD.to(weight_ED.dtype), weight_ED)
        # By hand, for torch.softmax would put the experts of a token side by side again.
        odds_TE = (logits_TE - logits_TE.detach().amax(dim=-1, keepdim=True)).exp()
        probabilities_TE = odds_TE / odds_TE.sum(dim=-1, keepdim=True)
        weights_TE = keep_top_k(probabilities_TE, self.top_k)
        if self.top_k > 1:
            weights_TE = weights_TE / weights_TE.sum(dim=-1, keepdim=True)
        return RoutingDecision(weights_TE, logits_TE)
