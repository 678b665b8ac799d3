"""What each policy would cost a layer and what it would lose, by the layer's routing weights on tokens held back.

Axis names: T tokens, D features, E experts.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from mofme.language.dense_to_moe.converted_layer import ConvertedLayer
from mofme.language.dense_to_moe.lesson import relative
from mofme.language.dense_to_moe.policy import Policy


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
        threshold = float(
            probability_TE.flatten().kthvalue(max(1, round((1 - k / experts) * probability_TE.numel())))[0]
        )
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
    at = [0] * len(hulls)
    while sum(hull[i].active for hull, i in zip(hulls, at, strict=True)) > budget + 1e-9:
        steps = [
            (_slope(hull[i], hull[i + 1]), n)
            for n, (hull, i) in enumerate(zip(hulls, at, strict=True))
            if i + 1 < len(hull)
        ]
        if not steps:
            break
        at[min(steps)[1]] += 1
    return [hull[i] for hull, i in zip(hulls, at, strict=True)]


def _hull(candidates: list[Candidate]) -> list[Candidate]:
    """Lower convex hull of error over active experts, from the most active to the least."""
    hull: list[Candidate] = []
    for candidate in sorted(candidates, key=lambda one: (-one.active, one.error)):
        if hull and candidate.error <= hull[-1].error:
            while hull and candidate.error <= hull[-1].error:
                hull.pop()
        elif hull and candidate.active == hull[-1].active:
            continue
        while len(hull) > 1 and _slope(hull[-2], hull[-1]) > _slope(hull[-1], candidate):
            hull.pop()
        hull.append(candidate)
    return hull


def _slope(more: Candidate, less: Candidate) -> float:
    """Error gained for each expert given up."""
    return (less.error - more.error) / (more.active - less.active)
