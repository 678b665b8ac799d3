"""What the sub-routers of a mixture decide for one text, layer by layer and token by token.

Axis names: S sub-routers, T tokens, E experts, C classes.
"""

from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mofme.core.routers import LinearRouter, MixtureOfRouters
from mofme.errors import ModelError
from mofme.language.lora_mixture.classifier import Classifier

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class ExplainedLayer:
    """One wrapped layer. All but `weights_TE` are probabilities that sum to 1 along the last axis.

    `weights_STE`: what each sub-router would give each expert. `shares_TS`: how the main router weighs the
    sub-routers. `mixed_TE`: the sum of both. `weights_TE`: the top k of it, scaled to sum to 1, 0 elsewhere: what the
    experts really get. `agreement` in [0, 1]: share of the tokens for which all sub-routers have the same first
    expert. `divergence` in [0, 1]: Jensen-Shannon's between the sub-routers, mean over tokens, over its largest value
    log S; 0 means the same votes.
    """

    name: str
    weights_STE: FloatArray
    shares_TS: FloatArray
    mixed_TE: FloatArray
    weights_TE: FloatArray
    agreement: float
    divergence: float


@dataclass(frozen=True)
class Explained:
    """One text: its tokens as the model reads them, every wrapped layer from the lowest, and the answer.

    `probabilities_C` are those of `labels`. `agreement` and `divergence` are means over the layers.
    """

    tokens: tuple[str, ...]
    layers: tuple[ExplainedLayer, ...]
    labels: tuple[str, ...]
    probabilities_C: FloatArray

    @property
    def answer(self) -> str:
        return self.labels[int(self.probabilities_C.argmax())]

    @property
    def agreement(self) -> float:
        return float(np.mean([layer.agreement for layer in self.layers]))

    @property
    def divergence(self) -> float:
        return float(np.mean([layer.divergence for layer in self.layers]))


@torch.no_grad()
def explain_batch(classifier: Classifier, x_BTD: Tensor, seen_BT: Tensor) -> tuple[Tensor, tuple[ExplainedLayer, ...]]:
    """The classes' scores (B, C) of a batch, and what the sub-routers of every bank make of its tokens, one after the
    other and without padding. Raises ModelError if the banks have another kind of router.
    """
    routers = {name: bank.mixture.router for name, bank in classifier.banks.items()}
    reached: dict[str, Tensor] = {}
    handles = [
        router.register_forward_pre_hook(lambda _, args, name=name: reached.update({name: args[0]}))
        for name, router in routers.items()
    ]
    try:
        scores_BC = classifier(x_BTD, seen_BT)
    finally:
        for handle in handles:
            handle.remove()
    layers = []
    for name, router in routers.items():
        if not isinstance(router, MixtureOfRouters):
            raise ModelError("these adapters have no mixture of routers to explain")
        layers.append(explain_layer(readable(name), router, reached[name][seen_BT.flatten()]))
    return scores_BC, tuple(layers)


@torch.no_grad()
def explain_layer(name: str, router: MixtureOfRouters, x_TD: Tensor) -> ExplainedLayer:
    """What a mixture of routers makes of the tokens that reach it."""
    votes_STE = torch.stack([cast(LinearRouter, member).logits(x_TD).softmax(-1) for member in router.members])
    shares_TS = router.main.logits(x_TD).softmax(-1)
    return ExplainedLayer(
        name,
        _array(votes_STE),
        _array(shares_TS),
        _array(torch.einsum("ts,ste->te", shares_TS, votes_STE)),
        _array(router(x_TD).weights_TE),
        agreement(votes_STE),
        divergence(votes_STE),
    )


def readable(name: str) -> str:
    """`layer 6, widen` for `blocks.11.widen`: layers as people count them, of two blocks each."""
    _, block, part = name.split(".")
    return f"layer {int(block) // 2 + 1}, {part}"


def agreement(votes_STE: Tensor) -> float:
    """Share of the tokens for which every sub-router's largest vote is for the same expert."""
    first_ST = votes_STE.argmax(-1)
    return float((first_ST == first_ST[0]).all(0).double().mean())


def divergence(votes_STE: Tensor) -> float:
    """Jensen-Shannon divergence of the sub-routers with equal weights, mean over tokens, over log S; 0 for S = 1."""
    if len(votes_STE) == 1:
        return 0.0
    votes_STE = votes_STE.double()
    spread_T = _entropy(votes_STE.mean(0)) - _entropy(votes_STE).mean(0)
    return float(spread_T.mean() / np.log(len(votes_STE)))


def _entropy(probabilities: Tensor) -> Tensor:
    return torch.special.entr(probabilities).sum(-1)


def _array(tensor: Tensor) -> FloatArray:
    return tensor.double().numpy()
