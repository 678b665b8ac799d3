"""Four ways to score the experts for a token: linear, by two layers, by attention between experts, by several routers.

All choose alike (`ScoreRouter`). A fifth, which knows how unsure it is, has a page of its own (`uncertainty.py`).
Axis names beside those of `routing.py`: S routers.
"""

from collections.abc import Callable, Mapping
from typing import Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mofme.core.routing import Router, ScoreRouter, expert_probabilities, expert_scores
from mofme.core.uncertainty import UncertaintyRouter


class LinearRouter(ScoreRouter):
    """Scores W x: the router of sparsely-gated mixtures of experts (Shazeer et al. 2017, arXiv 1701.06538)."""

    def __init__(self, dim: int, num_experts: int, top_k: int = 2) -> None:
        super().__init__(num_experts, top_k)
        self.score = nn.Linear(dim, num_experts, bias=False)

    def logits(self, x_TD: Tensor) -> Tensor:
        weight_ED = self.score.weight
        with torch.autocast(x_TD.device.type, enabled=False):
            return expert_scores(x_TD.to(weight_ED.dtype), weight_ED)


class MLPRouter(ScoreRouter):
    """Scores W silu(W' x): the control for routers with more parameters than the linear one. It has as many as the
    attention router (3 D E), up to half a hidden feature.
    """

    def __init__(self, dim: int, num_experts: int, top_k: int = 2) -> None:
        super().__init__(num_experts, top_k)
        hidden = max(1, round(3 * dim * num_experts / (dim + num_experts)))
        self.expand = nn.Linear(dim, hidden, bias=False)
        self.score = nn.Linear(hidden, num_experts, bias=False)

    def logits(self, x_TD: Tensor) -> Tensor:
        weight_HD = self.expand.weight
        dtype = torch.promote_types(weight_HD.dtype, torch.float32)
        with torch.autocast(x_TD.device.type, enabled=False):
            hidden_HT = F.silu(weight_HD.to(dtype) @ x_TD.to(dtype).T)
            return (self.score.weight.to(dtype) @ hidden_HT).T


class AttentionRouter(ScoreRouter):
    """Scores from experts that attend to each other: Yuan 2.0-M32 (arXiv 2405.17976, section 2.1).

    For every token on its own, q = W x, k = W' x and v = W'' x give each expert three numbers, and

        P = softmax(q k^T) v, a row of the E x E softmax for each expert, without 1 / sqrt(d),

    is the scores: three linear maps in place of the linear router's one, and E x E more numbers a token. There is no
    attention between tokens. With top_k = 1, which the paper never uses, the weight is the softmax over all of P.
    """

    def __init__(self, dim: int, num_experts: int, top_k: int = 2) -> None:
        super().__init__(num_experts, top_k)
        self.query_key_value = nn.Linear(dim, 3 * num_experts, bias=False)

    def logits(self, x_TD: Tensor) -> Tensor:
        weight = self.query_key_value.weight
        dtype = torch.promote_types(weight.dtype, torch.float32)
        with torch.autocast(x_TD.device.type, enabled=False):
            # Tokens last, as in `expert_scores`: the softmax then goes over many tokens at once.
            query_ET, key_ET, value_ET = (weight.to(dtype) @ x_TD.to(dtype).T).chunk(3)
            attention_EET = (query_ET[:, None] * key_ET).softmax(dim=1)
            return (attention_EET * value_ET).sum(dim=1).T


class MixtureOfRouters(ScoreRouter):
    """Several linear routers choose together, under a main one that weighs their votes (arXiv 2503.23362).

        g = softmax(W_main x),  p = sum_s g_s softmax(W_s x),  and the scores are log p.

    Our reading: the paper does not say what is mixed. Mixed logits under a constant g would be one linear router again,
    so probabilities are. The paper finds S = 2 nearly best. With S = 1 it is its only member, exactly.
    Raises ValueError for fewer than 1 router.
    """

    def __init__(self, dim: int, num_experts: int, top_k: int = 2, num_routers: int = 2) -> None:
        super().__init__(num_experts, top_k)
        if num_routers < 1:
            raise ValueError(f"a mixture needs at least 1 router, got {num_routers}")
        self.members = nn.ModuleList(LinearRouter(dim, num_experts, top_k) for _ in range(num_routers))
        self.main = LinearRouter(dim, num_routers, top_k=num_routers)

    def logits(self, x_TD: Tensor) -> Tensor:
        logits_STE = [cast(LinearRouter, member).logits(x_TD) for member in self.members]
        if len(logits_STE) == 1:
            return logits_STE[0]
        shares_ST1 = expert_probabilities(self.main.logits(x_TD)).split(1, dim=-1)
        p_TE = torch.zeros_like(logits_STE[0])
        for share_T1, logits_TE in zip(shares_ST1, logits_STE, strict=True):
            p_TE = p_TE + share_T1 * expert_probabilities(logits_TE)
        return p_TE.clamp_min(torch.finfo(p_TE.dtype).tiny).log()


RouterKind = Literal["linear", "mlp", "attention", "mixture", "uncertainty"]

# Each is made of the features of a token, the number of experts, and how many of them a token visits.
ROUTERS: Mapping[RouterKind, Callable[[int, int, int], Router]] = {
    "linear": LinearRouter,
    "mlp": MLPRouter,
    "attention": AttentionRouter,
    "mixture": MixtureOfRouters,
    "uncertainty": UncertaintyRouter,
}
