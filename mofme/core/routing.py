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

    @property
    def probabilities_TE(self) -> Tensor:
        """The softmax of the scores over all experts, chosen or not."""
        return self.logits_TE.softmax(dim=-1)


class Router(nn.Module, ABC):
    """Maps tokens (T, D) to a RoutingDecision over `num_experts`, of which a token visits `top_k` at the most."""

    num_experts: int
    top_k: int

    @abstractmethod
    def forward(self, x_TD: Tensor) -> RoutingDecision: ...


class ScoreRouter(Router):
    """A router that scores the experts and takes the best (Shazeer et al. 2017): a subclass says how it scores.

        p = softmax(logits(x))

    of which the top k stay; for k > 1 they are scaled to sum to 1.
    """

    def __init__(self, num_experts: int, top_k: int) -> None:
        super().__init__()
        self.num_experts = num_experts
        self.top_k = top_k

    @abstractmethod
    def logits(self, x_TD: Tensor) -> Tensor:
        """The scores (T, E), in single precision also under autocast: of half-precise scores many are equal."""

    def forward(self, x_TD: Tensor) -> RoutingDecision:
        logits_TE = self.logits(x_TD)
        weights_TE = keep_top_k(expert_probabilities(logits_TE), self.top_k)
        if self.top_k > 1:  # a single one, scaled, would be the constant 1 and teach nothing
            weights_TE = weights_TE / weights_TE.sum(dim=-1, keepdim=True)
        return RoutingDecision(weights_TE, logits_TE)


class Experts(nn.Module, ABC):
    """Maps tokens (T, D) and routing weights (T, E) to outputs (T, F)."""

    num_experts: int

    @abstractmethod
    def forward(self, x_TD: Tensor, weights_TE: Tensor) -> Tensor: ...

    @property
    def expert_parameters(self) -> int:
        """Parameters of one expert alone, without which a token does that leaves it out.

        Experts stack what is their own along E in parameters of the layer itself; what they share is in submodules.
        """
        return sum(parameter.numel() for parameter in self.parameters(recurse=False)) // self.num_experts


# Every expert that is kept costs a pass over all scores; for more than so many they are sorted instead.
_MOST_PASSES = 4


def expert_scores(x_TD: Tensor, weight_ED: Tensor) -> Tensor:
    """Linear scores (T, E), the tokens of one expert side by side in memory.

    What a router does next goes over the experts of every token. In this order a CPU does so for many tokens at once,
    several times faster than for the few experts of one token after the other.
    """
    return (weight_ED @ x_TD.T).T


def expert_probabilities(logits_TE: Tensor) -> Tensor:
    """The softmax over the experts, by hand: `torch.softmax` would put the experts of a token side by side again."""
    odds_TE = (logits_TE - logits_TE.detach().amax(dim=-1, keepdim=True)).exp()
    return odds_TE / odds_TE.sum(dim=-1, keepdim=True)


def keep_top_k(scores_TE: Tensor, k: int) -> Tensor:
    """Zero all but the k largest of every token's finite scores; differentiable in those that stay.

    Of equal scores those stay that `torch.topk` would take.
    """
    num_experts = scores_TE.shape[-1]
    if not 1 <= k <= num_experts:
        raise ValueError(f"top-k needs 1 <= k <= {num_experts} experts, got k = {k}")
    if k == num_experts:
        return scores_TE
    # Not in a trace, which cannot hold what the passes do where scores are equal.
    traced = torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]
    few_on_cpu = k <= _MOST_PASSES and scores_TE.device.type == "cpu" and not traced
    return scores_TE * (_chosen_by_passes if few_on_cpu else _chosen_by_sorting)(scores_TE.detach(), k)


def _chosen_by_sorting(scores_TE: Tensor, k: int) -> Tensor:
    """1 for the k largest scores of every token, else 0."""
    return torch.zeros_like(scores_TE).scatter_(-1, scores_TE.topk(k, dim=-1).indices, 1)


def _chosen_by_passes(scores_TE: Tensor, k: int) -> Tensor:
    """The same without the branches of a sort: k times the largest that is left, and a sort where scores are equal."""
    rest_TE = scores_TE.clone()
    for _ in range(k - 1):
        rest_TE.sub_(_largest(rest_TE), alpha=torch.finfo(rest_TE.dtype).max)
    chosen_TE = scores_TE.clone().ge_(rest_TE.amax(dim=-1, keepdim=True))
    if chosen_TE.count_nonzero() != k * len(scores_TE):
        undecided_N = (chosen_TE.sum(dim=-1) != k).nonzero().squeeze(-1)
        chosen_TE[undecided_N] = _chosen_by_sorting(scores_TE[undecided_N], k)
    return chosen_TE


def _largest(scores_TE: Tensor) -> Tensor:
    # Compared in place: zeros and ones of the scores' own type are several times faster to make and use than booleans.
    return scores_TE.clone().ge_(scores_TE.amax(dim=-1, keepdim=True))
