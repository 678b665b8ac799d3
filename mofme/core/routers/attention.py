"""The attention router of Yuan 2.0-M32 (arXiv 2405.17976, section 2.1): experts are scored by attending to each other.

For every token on its own, q = W x, k = W' x and v = W'' x give each expert three numbers, and

    P = softmax(q k^T) v, a row of the E x E softmax for each expert, without 1 / sqrt(d).

The top k of P stay, with the softmax of those k as weights. No attention between tokens, no balancing loss.
"""

import torch
from torch import Tensor, nn

from mofme.core.routing import Router, RoutingDecision, expert_probabilities, top_k_weights


class AttentionRouter(Router):
    """Three linear maps in place of the linear router's one, and E x E more numbers a token.

    With top_k = 1, which the paper never uses, the weight is the softmax over all of P: over P's largest alone it would
    be the constant 1. For k > 1, scaling the softmax of P to sum to 1 over the top k is the softmax of those k.
    """

    def __init__(self, dim: int, num_experts: int, top_k: int = 2) -> None:
        super().__init__()
        self.num_experts = num_experts
        self.top_k = top_k
        self.query_key_value = nn.Linear(dim, 3 * num_experts, bias=False)

    def forward(self, x_TD: Tensor) -> RoutingDecision:
        logits_TE = self.logits(x_TD)
        return RoutingDecision(top_k_weights(expert_probabilities(logits_TE), self.top_k), logits_TE)

    def logits(self, x_TD: Tensor) -> Tensor:
        """P (T, E), in single precision also under autocast, as in the paper."""
        weight = self.query_key_value.weight
        dtype = torch.promote_types(weight.dtype, torch.float32)
        with torch.autocast(x_TD.device.type, enabled=False):
            # Tokens last, as in `expert_scores`: the softmax then goes over many tokens at once.
            query_ET, key_ET, value_ET = (weight.to(dtype) @ x_TD.to(dtype).T).chunk(3)
            attention_EET = (query_ET[:, None] * key_ET).softmax(dim=1)
            return (attention_EET * value_ET).sum(dim=1).T
