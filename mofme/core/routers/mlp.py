"""A two-layer router: the control for routers with more parameters than the linear one."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mofme.core.routing import Router, RoutingDecision, expert_probabilities, top_k_weights


class MLPRouter(Router):
    """Linear, SiLU, linear, without biases; then as the linear router: softmax, of which the top k stay.

    Without `hidden` it has as many parameters as the attention router (3 D E), up to half a hidden feature.
    """

    def __init__(self, dim: int, num_experts: int, top_k: int = 2, hidden: int | None = None) -> None:
        super().__init__()
        self.num_experts = num_experts
        self.top_k = top_k
        hidden = hidden or max(1, round(3 * dim * num_experts / (dim + num_experts)))
        self.expand = nn.Linear(dim, hidden, bias=False)
        self.score = nn.Linear(hidden, num_experts, bias=False)

    def forward(self, x_TD: Tensor) -> RoutingDecision:
        logits_TE = self.logits(x_TD)
        return RoutingDecision(top_k_weights(expert_probabilities(logits_TE), self.top_k), logits_TE)

    def logits(self, x_TD: Tensor) -> Tensor:
        """The scores (T, E), in single precision also under autocast, as those of the other routers."""
        weight = self.expand.weight
        dtype = torch.promote_types(weight.dtype, torch.float32)
        with torch.autocast(x_TD.device.type, enabled=False):
            hidden_HT = F.silu(weight.to(dtype) @ x_TD.to(dtype).T)
            return (self.score.weight.to(dtype) @ hidden_HT).T
