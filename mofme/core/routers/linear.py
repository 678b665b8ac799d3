"""The linear top-k router of sparsely-gated mixtures of experts (Shazeer et al. 2017)."""

import torch
from torch import Tensor, nn

from mofme.core.routing import Router, RoutingDecision, expert_probabilities, expert_scores, top_k_weights


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
        logits_TE = self.logits(x_TD)
        return RoutingDecision(top_k_weights(expert_probabilities(logits_TE), self.top_k), logits_TE)

    def logits(self, x_TD: Tensor) -> Tensor:
        """The scores (T, E), in single precision also under autocast: of half-precise scores many are equal."""
        weight_ED = self.score.weight
        with torch.autocast(x_TD.device.type, enabled=False):
            return expert_scores(x_TD.to(weight_ED.dtype), weight_ED)
