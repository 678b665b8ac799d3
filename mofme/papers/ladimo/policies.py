"""The policies of all layers: what each would cost and lose, and which to choose for a budget of active experts.

Axis names: L layers, T tokens, D features, E experts.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from mofme.core.moe import observe_routing, parameters
from mofme.language.pretrained import decoder_layers, dense_weights
from mofme.measure.statistics import FloatArray
from mofme.papers.ladimo.converted_layer import ConvertedLayer, Policy, Recipe, converted_layers
from mofme.papers.ladimo.layer_training import relative

_WINDOW = 512  # tokens read at once


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


def budget(model: PreTrainedModel, recipe: Recipe, target: float) -> float:
    """Experts that may be active, over all layers together, to save the share `target` of the dense `model`."""
    sizes = [tuple(dense_weights(layer.mlp)[0].shape) for layer in decoder_layers(model)]
    total = parameters(model)
    empty = [ConvertedLayer.empty(dim, neurons, recipe) for neurons, dim in sizes]
    added = sum(parameters(moe) for moe in empty) - sum(3 * neurons * dim for neurons, dim in sizes)
    idle = (target * total + added) / empty[0].experts.expert_parameters
    return len(sizes) * recipe.experts - idle


def set_policies(model: PreTrainedModel, policies: Sequence[Policy]) -> None:
    """One for every converted layer, in order."""
    for moe, policy in zip(converted_layers(model), policies, strict=True):
        moe.router.policy = policy


def uniform(layers: int, affordable: float) -> list[Policy]:
    """Top-k with the same k for every layer, or two neighbouring ones spread evenly where k would not be whole."""
    share = affordable / layers
    ends = [int(share * number + 1e-9) for number in range(layers + 1)]
    return [Policy("top-k", ends[number + 1] - ends[number]) for number in range(layers)]


def active_experts(model: PreTrainedModel, ids: Sequence[int]) -> FloatArray:
    """The mean number of experts (L,) that each converted layer activates for a token of a text."""
    active_L: FloatArray = _visits(model, ids).sum(-1) / len(ids)
    return active_L


def expert_use(model: PreTrainedModel, ids: Sequence[int]) -> FloatArray:
    """The share of a text's tokens that each expert of each converted layer takes part in (L, E)."""
    return _visits(model, ids) / len(ids)


@torch.inference_mode()
def _visits(model: PreTrainedModel, ids: Sequence[int]) -> FloatArray:
    """Tokens of a text that each expert takes part in (L, E)."""
    layers = converted_layers(model)
    visits_LE = np.zeros((len(layers), layers[0].experts.num_experts if layers else 0))
    for start in range(0, len(ids), _WINDOW):
        with observe_routing(model) as observed:
            model.model(input_ids=torch.tensor([list(ids[start : start + _WINDOW])]), use_cache=False)
        for visits_E, one in zip(visits_LE, observed, strict=True):
            visits_E += one.decision.chosen_TE.sum(0).double().numpy()
    return visits_LE
