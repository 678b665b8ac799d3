"""A feed-forward network that has become a mixture of its own neurons, the recipe for it, and its changeable routing.

Stage 2 of LaDiMo: which of a layer's experts take part is a policy, changed without training, and chosen for a budget
of active experts over all layers. Our reading of "top-k, threshold or dense": those that take part do so at weight 1,
so that with all of them the layer is the dense network again, and a router's weights only say who is needed.

Axis names: L layers, T tokens, D features, E experts, N neurons.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedModel

from mofme.core.gated_experts import GatedFeedForwardExperts, swiglu
from mofme.core.moe import MoE, activated_parameters, observe_routing, parameters
from mofme.core.routers import ROUTERS, RouterKind
from mofme.core.routing import Router, RoutingDecision, ScoreRouter
from mofme.errors import ModelError
from mofme.language.pretrained import decoder_layers, dense_weights
from mofme.measure.statistics import FloatArray

Split = Literal["activation", "co-activation", "random", "importance"]
# Its weights are not the softmax of scores, which the policies go by.
_WITHOUT_SCORES = "uncertainty"


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


@dataclass(frozen=True)
class Recipe:
    """How a model is converted.

    `active` of the `experts` are used while converting; `shared` neurons are always used. `learned` False leaves all
    weights as they are and takes CMoE's untrained router. `tokens` are drawn from the text. Of the routers only the
    linear one begins at a solution of least squares; the others learn from nothing.
    """

    experts: int = 8
    active: int = 5
    shared: int = 0
    split: Split = "activation"
    tokens: int = 100_000
    router: RouterKind = "linear"
    learned: bool = True
    learning_rate: float = 2e-3
    seed: int = 0

    def check(self, neurons: int) -> None:
        """Raises ModelError for what cannot be made of so many neurons, and for a router that does not fit."""
        if self.router not in (kinds := [kind for kind in ROUTERS if kind != _WITHOUT_SCORES]):
            raise ModelError(f"no router for converted layers is called {self.router!r}: choose of {', '.join(kinds)}")
        if not 1 <= self.active <= self.experts:
            raise ModelError(f"{self.active} of {self.experts} experts cannot be active")
        if self.shared < 0 or (neurons - self.shared) % self.experts or self.shared >= neurons:
            rest = f"{neurons} neurons less {self.shared} shared ones"
            raise ModelError(f"{rest} cannot be divided evenly among {self.experts} experts: change one of the numbers")


class ConvertedLayer(MoE):
    """Stands in for a dense feed-forward network; with the policy `dense`, before training, it is that network."""

    router: PolicyRouter
    experts: GatedFeedForwardExperts

    @classmethod
    def empty(cls, dim: int, neurons: int, recipe: Recipe) -> "ConvertedLayer":
        """To load weights into."""
        recipe.check(neurons)
        hidden = (neurons - recipe.shared) // recipe.experts
        return cls.of(GatedFeedForwardExperts(dim, hidden, recipe.experts, recipe.shared), recipe)

    @classmethod
    def of(cls, experts: GatedFeedForwardExperts, recipe: Recipe) -> "ConvertedLayer":
        """Around these experts, with a router as the recipe has it."""
        dim = experts.gate_ND.shape[1]
        if recipe.split == "importance":
            router: ScoreRouter = FixedRouter(recipe.experts)
        elif not recipe.learned:
            router = RepresentativeRouter(dim, recipe.experts)
        else:
            router = cast(ScoreRouter, ROUTERS[recipe.router](dim, recipe.experts, recipe.experts))
        return cls(PolicyRouter(router, Policy("top-k", recipe.active)), experts)

    def each_expert(self, x_TD: Tensor) -> tuple[Tensor, Tensor]:
        """What the shared neurons (T, D) and each expert (E, T, D) add to the output, were all of them active."""
        experts = self.experts
        h_TN = swiglu(x_TD, experts.gate_ND, experts.up_ND)
        shared_TD = h_TN[:, : experts.shared] @ experts.down_ND[: experts.shared]
        h_ETH = h_TN[:, experts.shared :].unflatten(1, (experts.num_experts, -1)).transpose(0, 1)
        parts_ETD = torch.bmm(h_ETH, experts.down_ND[experts.shared :].unflatten(0, (experts.num_experts, -1)))
        return shared_TD.to(x_TD.dtype), parts_ETD.to(x_TD.dtype)


def converted_layers(model: nn.Module) -> list[ConvertedLayer]:
    """In order, those of a model that were converted."""
    return [module for module in model.modules() if isinstance(module, ConvertedLayer)]


_WINDOW = 512  # tokens read at once


def relative(error_TD: Tensor, stream_TD: Tensor) -> Tensor:
    """Mean over tokens of the squared error over the squared norm of the stream."""
    return (error_TD.square().sum(-1) / stream_TD.square().sum(-1).clamp_min(1e-20)).mean()


@dataclass(frozen=True)
class Candidate:
    """A policy, the experts it activates on average, and its error, relative to the stream it is added to."""

    policy: Policy
    active: float
    error: float


@torch.no_grad()
def profile(moe: ConvertedLayer, x_TD: Tensor, y_TD: Tensor, stream_TD: Tensor) -> list[Candidate]:
    """Try every policy on a layer that should turn `x_TD` into `y_TD`, added to `stream_TD`.

    Thresholds are quantiles of the routing weights, so that each has a top-k of about the same number of experts.
    """
    probability_TE = moe.router.router.logits(x_TD).softmax(-1)
    idle_ED = moe.experts.idle_ED
    # Every policy is a sum of the same parts, so that these are computed but once.
    shared_TD, parts_ETD = moe.each_expert(x_TD)
    without_TD = shared_TD + idle_ED.sum(0)
    gains_TED = (parts_ETD - idle_ED.unsqueeze(1)).transpose(0, 1).contiguous()
    experts = moe.experts.num_experts
    policies = [Policy("dense")]
    for k in range(1, experts):
        below = max(1, round((1 - k / experts) * probability_TE.numel()))
        threshold = float(probability_TE.flatten().kthvalue(below)[0])
        policies += [Policy("top-k", k), Policy("threshold", threshold)]
    candidates = []
    for policy in policies:
        chosen_TE = policy.choose(probability_TE)
        out_TD = without_TD + torch.bmm(chosen_TE.to(x_TD.dtype).unsqueeze(1), gains_TED).squeeze(1)
        error = float(relative(out_TD - y_TD, stream_TD + y_TD))
        candidates.append(Candidate(policy, float(chosen_TE.sum(-1).double().mean()), error))
    return candidates


def choose(profiles: list[list[Candidate]], budget: float) -> list[Candidate]:
    """One candidate a layer: the least sum of errors with at most `budget` experts active over all layers together.

    Beginning with what errs least, the layer gives up experts that loses the least error for each, along the lower
    convex hull of its candidates. If even the cheapest of all layers exceed the budget, these are returned.
    """
    hulls = [_hull(candidates) for candidates in profiles]
    while sum(hull[0].active for hull in hulls) > budget + 1e-9:
        steps = [(_slope(*hull[:2]), layer) for layer, hull in enumerate(hulls) if len(hull) > 1]
        if not steps:
            break
        hulls[min(steps)[1]].pop(0)
    return [hull[0] for hull in hulls]


def _hull(candidates: list[Candidate]) -> list[Candidate]:
    """Lower convex hull of error over active experts, from the most active to the least."""
    hull: list[Candidate] = []
    for candidate in sorted(candidates, key=lambda one: (-one.active, one.error)):
        while hull and candidate.error <= hull[-1].error:
            hull.pop()
        if hull and candidate.active == hull[-1].active:
            continue
        while len(hull) > 1 and _slope(hull[-2], hull[-1]) > _slope(hull[-1], candidate):
            hull.pop()
        hull.append(candidate)
    return hull


def _slope(more: Candidate, less: Candidate) -> float:
    """Error gained for each expert given up."""
    return (less.error - more.error) / (more.active - less.active)


def budget(model: PreTrainedModel, recipe: Recipe, target: float) -> float:
    """Experts that may be active, over all layers together, to save the share `target` of the dense `model`."""
    sizes = [tuple(dense_weights(layer.mlp)[0].shape) for layer in decoder_layers(model)]
    empty = [ConvertedLayer.empty(dim, neurons, recipe) for neurons, dim in sizes]
    added = sum(parameters(moe) for moe in empty) - sum(3 * neurons * dim for neurons, dim in sizes)
    idle = (target * parameters(model) + added) / empty[0].experts.expert_parameters
    return len(sizes) * recipe.experts - idle


def set_policies(model: PreTrainedModel, policies: Sequence[Policy]) -> None:
    """One for every converted layer, in order."""
    for moe, policy in zip(converted_layers(model), policies, strict=True):
        moe.router.policy = policy


def uniform(layers: int, affordable: float) -> list[Policy]:
    """Top-k with the same k for every layer, or two neighbouring ones spread evenly where k would not be whole."""
    share = affordable / layers
    ends = [int(share * number + 1e-9) for number in range(layers + 1)]
    return [Policy("top-k", end - start) for start, end in itertools.pairwise(ends)]


@torch.inference_mode()
def expert_visits(model: PreTrainedModel, ids: Sequence[int]) -> FloatArray:
    """How many tokens of a text each expert of each converted layer takes part in (L, E)."""
    layers = converted_layers(model)
    visits_LE = np.zeros((len(layers), layers[0].experts.num_experts if layers else 0))
    for start in range(0, len(ids), _WINDOW):
        with observe_routing(model) as observed:
            model.model(input_ids=torch.tensor([list(ids[start : start + _WINDOW])]), use_cache=False)
        for visits_E, one in zip(visits_LE, observed, strict=True):
            visits_E += one.decision.chosen_TE.sum(0).double().numpy()
    return visits_LE


def activated(model: PreTrainedModel, ids: Sequence[int]) -> float:
    """Parameters of a converted model, or a dense one, that an average token of a text uses."""
    return activated_parameters(model, expert_visits(model, ids).sum(-1) / len(ids))
