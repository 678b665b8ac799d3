"""Stage 2 of LaDiMo: which of the experts a layer's router scored take part is a policy, changed without training.

Our reading of "top-k, threshold or dense": those that take part do so at weight 1, so that with all of them the layer
is the dense network again, and a router's weights only say who is needed.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mofme.core.routing import Router, RoutingDecision, ScoreRouter


@dataclass(frozen=True)
class Policy:
    """`top-k`: the `value` best; `threshold`: every weight of at least `value`, and the best one; `dense`: all."""

    kind: Literal["top-k", "threshold", "dense"]
    value: float = 0.0

    def choose(self, probabilities_TE: Tensor) -> Tensor:
        """Boolean mask (T, E) of the experts that take part. For a top-k any scores of the same order will do."""
        if self.kind == "dense":
            return torch.ones_like(probabilities_TE, dtype=torch.bool)
        best_TE = torch.zeros_like(probabilities_TE, dtype=torch.bool)
        k = int(self.value) if self.kind == "top-k" else 1
        best_TE.scatter_(-1, probabilities_TE.topk(k, dim=-1, sorted=False).indices, True)
        return best_TE if self.kind == "top-k" else best_TE | (probabilities_TE >= self.value)


class PolicyRouter(Router):
    """Lets another router score, and chooses by `policy` from the softmax of its scores."""

    def __init__(self, router: ScoreRouter, policy: Policy) -> None:
        super().__init__()
        self.num_experts = router.num_experts
        self.router = router
        self.policy = policy

    @property
    def top_k(self) -> int:  # type: ignore[override]
        """As the policy has it now; by a threshold a token may visit all."""
        return int(self.policy.value) if self.policy.kind == "top-k" else self.num_experts

    def forward(self, x_TD: Tensor) -> RoutingDecision:
        logits_TE = self.router.logits(x_TD)
        # The best are the best by any measure: only a threshold needs probabilities.
        scores_TE = logits_TE.softmax(-1) if self.policy.kind == "threshold" else logits_TE
        return RoutingDecision(self.policy.choose(scores_TE).to(x_TD.dtype), logits_TE)


class FixedRouter(ScoreRouter):
    """The same order of experts for every token, the first first: what is left out is pruned for good (a control)."""

    def __init__(self, num_experts: int) -> None:
        super().__init__(num_experts, top_k=num_experts)

    def logits(self, x_TD: Tensor) -> Tensor:
        logits_E = -torch.arange(self.num_experts, dtype=x_TD.dtype, device=x_TD.device)
        return logits_E.expand(len(x_TD), -1)


class RepresentativeRouter(ScoreRouter):
    """Scores an expert by how active one neuron is that stands for it: CMoE's router (arXiv 2502.04416), untrained."""

    def __init__(self, dim: int, num_experts: int) -> None:
        super().__init__(num_experts, top_k=num_experts)
        self.gate_ED = nn.Parameter(torch.zeros(num_experts, dim))
        self.up_ED = nn.Parameter(torch.zeros(num_experts, dim))

    def logits(self, x_TD: Tensor) -> Tensor:
        return (F.silu(F.linear(x_TD, self.gate_ED)) * F.linear(x_TD, self.up_ED)).abs()
