"""What one layer learns, from the hidden states that really reach it.

Our reading. A choice of experts has no gradient of its own, so the router learns how the layer's output is shared
among its experts: cross-entropy with the shares of squared norm. The experts learn MSE(MoE(x), FFN(x)), as the paper
says, with some of them left out, each token's relative to the stream it is added to: all that follows normalizes the
stream, and else the few tokens with huge states would be all that counts. Axis names: T tokens, D features, E experts.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from mofme.core.routers import LinearRouter
from mofme.core.training import Run, linear
from mofme.language.dense_to_moe.converted_layer import ConvertedLayer, Recipe
from mofme.language.dense_to_moe.hidden_states import HiddenStates
from mofme.language.dense_to_moe.policy import FixedRouter, Policy

_BATCH = 512


@dataclass(frozen=True)
class Lesson:
    """A dense layer's output for every token, its mean size (see `relative`), and each expert's share of it."""

    targets: HiddenStates
    size: float
    shares_TE: Tensor


def relative(error_TD: Tensor, stream_TD: Tensor) -> Tensor:
    """Mean over tokens of the squared error over the squared norm of the stream."""
    return (error_TD.square().sum(-1) / stream_TD.square().sum(-1).clamp_min(1e-20)).mean()


@torch.no_grad()
def prepare(
    moe: ConvertedLayer, norm: nn.Module, residual: HiddenStates, passages: int, active: int, path: Path
) -> Lesson:
    """One pass of the layer over the first `passages` while it is still the dense one, written to `path`.

    It also sets where training begins: a linear router by least squares on the logarithms of the squared norms, and
    what stands in for an expert as the mean of its outputs where it is not among the `active` strongest.
    """
    begin = _Beginning(moe, residual.dim, active)
    shares: list[Tensor] = []
    sizes: list[Tensor] = []

    def outputs() -> Iterator[Tensor]:
        for block_BLD in residual.blocks(passages):
            x_TD = norm(block_BLD).flatten(0, 1)
            shared_TD, parts_ETD = moe.each_expert(x_TD)
            y_TD = shared_TD + parts_ETD.sum(0)
            energy_TE = parts_ETD.square().sum(-1).T.clamp_min(1e-20)
            shares.append(energy_TE / energy_TE.sum(-1, keepdim=True))
            begin.see(x_TD, parts_ETD, energy_TE)
            sizes.append(relative(y_TD, block_BLD.flatten(0, 1) + y_TD) * len(y_TD))
            yield y_TD.unflatten(0, block_BLD.shape[:2])

    shape = (passages, residual.length, residual.dim)
    targets = HiddenStates.write(path, shape, outputs())
    begin.set()
    return Lesson(targets, float(sum(sizes)) / len(targets), torch.cat(shares))


class _Beginning:
    """Sums over all tokens, from which router and stand-ins begin."""

    def __init__(self, moe: ConvertedLayer, dim: int, active: int) -> None:
        self.moe = moe
        self.policy = Policy("top-k", active)
        experts = moe.experts.num_experts
        self.products_DD, self.answers_DE = torch.zeros(dim, dim), torch.zeros(dim, experts)
        self.left_out_ED, self.counts_E = torch.zeros(experts, dim), torch.zeros(experts)

    def see(self, x_TD: Tensor, parts_ETD: Tensor, energy_TE: Tensor) -> None:
        router = self.moe.router.router
        # A fixed router leaves out the same experts whatever the token.
        score_TE = router.logits(x_TD) if isinstance(router, FixedRouter) else energy_TE
        left_out_TE = (~self.policy.choose(score_TE)).to(x_TD.dtype)
        self.left_out_ED += torch.bmm(left_out_TE.T.unsqueeze(1), parts_ETD).squeeze(1)
        self.counts_E += left_out_TE.sum(0)
        log_TE = energy_TE.log()
        self.products_DD += x_TD.T @ x_TD
        self.answers_DE += x_TD.T @ (log_TE - log_TE.mean(-1, keepdim=True))

    def set(self) -> None:
        self.moe.experts.idle_ED.copy_(self.left_out_ED / self.counts_E.clamp_min(1).unsqueeze(-1))
        router = self.moe.router.router
        if isinstance(router, LinearRouter):
            ridge_DD = 1e-3 * self.products_DD.diagonal().mean() * torch.eye(len(self.products_DD))
            router.score.weight.copy_(torch.linalg.solve(self.products_DD + ridge_DD, self.answers_DE).T)


def about_as_many(recipe: Recipe, generator: torch.Generator) -> Policy:
    """Top-k with a k near the recipe's: what is learned should serve whichever policy is chosen later."""
    span = recipe.experts // 4
    k = recipe.active + int(torch.randint(-span, span + 1, (), generator=generator))
    return Policy("top-k", max(1, min(k, recipe.experts - 1)))


def learn(
    moe: ConvertedLayer,
    norm: nn.Module,
    residual: HiddenStates,
    lesson: Lesson,
    recipe: Recipe,
    generator: torch.Generator,
) -> None:
    """One pass over the lesson's tokens. Each batch uses another number of experts, as no policy is chosen yet."""
    moe.requires_grad_(True)
    optimizer = torch.optim.Adam(moe.parameters(), lr=recipe.learning_rate)
    batches = torch.randperm(len(lesson.targets), generator=generator).split(_BATCH)
    run = Run(moe, optimizer, steps=len(batches), schedule=linear)
    for step in run:
        index_T = batches[step]
        moe.router.policy = about_as_many(recipe, generator)
        with torch.no_grad():
            stream_TD, target_TD = residual.tokens(index_T), lesson.targets.tokens(index_T)
            x_TD = norm(stream_TD)
        decision = moe.router(x_TD)
        y_TD = moe.experts(x_TD, decision.weights_TE)
        error = relative(y_TD - target_TD, stream_TD + target_TD) / lesson.size
        surprise = -(lesson.shares_TE[index_T] * decision.logits_TE.log_softmax(-1)).sum(-1).mean()
        run.learn(error + surprise)
    moe.router.policy = Policy("top-k", recipe.active)
    moe.requires_grad_(False)
