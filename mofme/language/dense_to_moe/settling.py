"""The end of a layer's lesson: what experts put out, and what stands in for idle ones, set by least squares.

Once gates and choices are given, the output of a mixture is linear in both, so that its best weights are known exactly.
Axis names: T tokens, D features, E experts, N neurons, M = N + E.
"""

import torch
from torch import Tensor, nn

from mofme.language.dense_to_moe.converted_layer import ConvertedLayer, Recipe
from mofme.language.dense_to_moe.hidden_states import HiddenStates
from mofme.language.dense_to_moe.lesson import Lesson, about_as_many
from mofme.language.dense_to_moe.policy import Policy

# How much is left of what was learned before, relative to the neurons' mean square: few tokens say little of each.
_RIDGE = 0.3
_IDLE_RIDGE = 1e-3


@torch.no_grad()
def settle(
    moe: ConvertedLayer,
    norm: nn.Module,
    residual: HiddenStates,
    lesson: Lesson,
    recipe: Recipe,
    generator: torch.Generator,
) -> None:
    """Ridge regression of the lesson's targets on the active neurons, around the weights that the layer has.

    Errors count relative to the stream, as in `learn`.
    """
    experts = moe.experts
    neurons, dim = experts.down_ND.shape
    weight_MD = torch.cat([experts.down_ND, experts.idle_ED])
    products_MM = torch.zeros(len(weight_MD), len(weight_MD))
    answers_MD = torch.zeros(len(weight_MD), dim)
    for stream_BLD, target_BLD in zip(residual.blocks(lesson.targets.passages), lesson.targets.blocks(), strict=True):
        stream_TD, target_TD = stream_BLD.flatten(0, 1), target_BLD.flatten(0, 1)
        x_TD = norm(stream_TD)
        moe.router.policy = about_as_many(recipe, generator)
        size_T1 = (stream_TD + target_TD).norm(dim=-1, keepdim=True).clamp_min(1e-10)
        row_TM = active_neurons(moe, x_TD, moe.router(x_TD).weights_TE) / size_T1
        products_MM += row_TM.T @ row_TM
        answers_MD += row_TM.T @ (target_TD / size_T1 - row_TM @ weight_MD)
    square_M = products_MM.diagonal().clone()
    ridge_M = torch.full_like(square_M, _RIDGE * float(square_M[:neurons].mean()))
    ridge_M[neurons:] = _IDLE_RIDGE * float(square_M[neurons:].mean()) + 1e-12
    weight_MD += torch.linalg.solve(products_MM + ridge_M.diag(), answers_MD)
    experts.down_ND.copy_(weight_MD[:neurons])
    experts.idle_ED.copy_(weight_MD[neurons:])
    moe.router.policy = Policy("top-k", recipe.active)


def active_neurons(moe: ConvertedLayer, x_TD: Tensor, weights_TE: Tensor) -> Tensor:
    """What the layer's output is linear in (T, N + E): neurons times their expert's weight, then 1 for idle experts."""
    experts = moe.experts
    h_TN = nn.functional.silu(x_TD @ experts.gate_ND.T) * (x_TD @ experts.up_ND.T)
    weights_TN = weights_TE.repeat_interleave(experts.hidden, dim=1)
    shared_TN = torch.ones(len(x_TD), experts.shared)
    idle_TE = (weights_TE == 0).to(x_TD.dtype)
    return torch.cat([h_TN * torch.cat([shared_TN, weights_TN], dim=1), idle_TE], dim=1)
