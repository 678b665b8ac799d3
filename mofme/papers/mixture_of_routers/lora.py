"""Banks of LoRA experts beside the frozen linear layers of a pretrained model, and a text classifier that has them.

    y = W x + sum_e w_e B_e A_e x * alpha / r

Axis names: B texts, T tokens, D features, C classes.
"""

import math
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mofme.core.experts import LowRankExperts
from mofme.core.moe import MoE
from mofme.core.routers import ROUTERS, LinearRouter, MixtureOfRouters, RouterKind
from mofme.core.routing import Router, ScoreRouter
from mofme.errors import ModelError
from mofme.language.minilm import BLOCKS, DIM, MiniLM

SINGLE = "single"
WIDE = "wide"
MIXTURE = "mixture"
WINDOW = 32  # tokens of a text; what follows in longer ones is left out
# The last feed-forward network, as in MixLoRA: what lies below it can be computed once and kept.
LAST = (f"blocks.{BLOCKS - 1}.widen", f"blocks.{BLOCKS - 1}.narrow")


@dataclass(frozen=True)
class Recipe:
    """The banks of one model. `wrapped` are endings of the names of the linear layers that get one.

    `router` is SINGLE, MIXTURE (of `sub_routers`), WIDE: two layers with no fewer parameters than that mixture, or any
    other of `core.routers`.
    """

    wrapped: tuple[str, ...]
    router: str = MIXTURE
    sub_routers: int = 2
    experts: int = 8
    top_k: int = 2
    rank: int = 8
    alpha: float = 16.0
    dropout: float = 0.05


class WideRouter(ScoreRouter):
    """The control with as many parameters: scores from one layer of ReLU features, then as the linear router."""

    def __init__(self, dim: int, num_experts: int, top_k: int, hidden: int) -> None:
        super().__init__(num_experts, top_k)
        self.widen = nn.Linear(dim, hidden, bias=False)
        self.score = LinearRouter(hidden, num_experts, top_k)

    def logits(self, x_TD: Tensor) -> Tensor:
        return self.score.logits(self.widen(x_TD).relu())


class LoraBank(nn.Module):
    """A frozen linear layer and, added to it, what the experts that a router chose make of the same input."""

    def __init__(self, frozen: nn.Linear, recipe: Recipe) -> None:
        super().__init__()
        self.frozen = frozen.requires_grad_(False)
        experts = LowRankExperts(
            frozen.in_features, frozen.out_features, recipe.experts, recipe.rank, recipe.alpha, recipe.dropout
        )
        # Whatever numbers the router draws, those that follow stay the same: arms that differ in it alone are paired.
        with torch.random.fork_rng(devices=[]):
            router = make_router(frozen.in_features, recipe)
        self.mixture = MoE(router, experts)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.frozen(x)
        return y + self.mixture(x)


def make_router(dim: int, recipe: Recipe) -> Router:
    """A new router of the recipe's kind. Raises ValueError for an unknown one."""
    if recipe.router == SINGLE:
        return LinearRouter(dim, recipe.experts, recipe.top_k)
    if recipe.router == MIXTURE:
        return MixtureOfRouters(dim, recipe.experts, recipe.top_k, recipe.sub_routers)
    if recipe.router == WIDE:
        parameters = recipe.sub_routers * (dim * recipe.experts + dim)
        return WideRouter(dim, recipe.experts, recipe.top_k, math.ceil(parameters / (dim + recipe.experts)))
    if recipe.router not in ROUTERS:
        raise ValueError(f"{recipe.router!r} is no router: {', '.join([SINGLE, WIDE, *ROUTERS])} are")
    return ROUTERS[cast(RouterKind, recipe.router)](dim, recipe.experts, recipe.top_k)


def wrap(model: nn.Module, recipe: Recipe) -> dict[str, LoraBank]:
    """Put a bank on every linear layer whose name ends with one of `recipe.wrapped`; freezes all the rest.

    Returns the banks by the layers' names. Raises ModelError if no layer has such a name.
    """
    # Whole parts of the name: `0.up` is the ending of `layers.0.up`, not of `layers.10.up`.
    endings = tuple(f".{ending}" for ending in recipe.wrapped)
    layers = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and f".{name}".endswith(endings)
    }
    if not layers:
        raise ModelError(f"the model has no linear layer called {' or '.join(recipe.wrapped)}")
    model.requires_grad_(False)
    banks = {}
    for name, layer in layers.items():
        parent, _, child = name.rpartition(".")
        banks[name] = LoraBank(layer, recipe)
        setattr(model.get_submodule(parent), child, banks[name])
    return banks


def adapter_state(model: nn.Module) -> dict[str, Tensor]:
    """What was added and learns, by the names in `model.state_dict()`: nothing of the frozen model."""
    learning = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    return {name: tensor for name, tensor in model.state_dict().items() if name in learning}


class Classifier(nn.Module):
    """Hidden states that enter block `first`, the lowest with a bank -> scores (B, C). Raises ModelError as `wrap`."""

    def __init__(self, encoder: MiniLM, recipe: Recipe, classes: int) -> None:
        super().__init__()
        self.banks = wrap(encoder, recipe)
        self.encoder = encoder
        self.head = nn.Linear(DIM, classes)
        self.first = lowest_block(recipe)

    def forward(self, x_BTD: Tensor, seen_BT: Tensor) -> Tensor:
        scores_BC: Tensor = self.head(features(self.encoder.run(x_BTD, seen_BT, self.first), seen_BT))
        return scores_BC


def features(x_BTD: Tensor, seen_BT: Tensor) -> Tensor:
    """The mean (B, D) over each text's tokens, scaled so that the features have variance 1.

    Those of the encoder are so small that at the banks' learning rate a head would hardly learn.
    """
    seen_BT1 = seen_BT.unsqueeze(-1).to(x_BTD.dtype)
    return F.layer_norm((x_BTD * seen_BT1).sum(1) / seen_BT1.sum(1), (DIM,))


def lowest_block(recipe: Recipe) -> int:
    """The first of the encoder's blocks that has a bank. Raises ModelError for names without a block's number."""
    try:
        return min(int(name.removeprefix("blocks.").split(".")[0]) for name in recipe.wrapped)
    except ValueError:
        raise ModelError(f"{recipe.wrapped} has to name layers of the encoder as blocks.11.widen does") from None
