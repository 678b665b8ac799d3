"""A trained mixture of routers as users meet it: a text goes in, and out come its class and what each router said."""

from pathlib import Path

import torch
from torch import Tensor

from mofme.core.model_card import CARD_FILE
from mofme.core.routers.mixture import MixtureOfRouters
from mofme.errors import ModelError
from mofme.language.lora_mixture.classifier import Classifier
from mofme.language.lora_mixture.encoder import read_tokens
from mofme.language.lora_mixture.explanation import Explained, FloatArray, explain_layer
from mofme.language.lora_mixture.storage import load_adapters

WEIGHTS = Path(__file__).resolve().parents[3] / "weights"
SHIPPED = "lora-mixture"


class LoraMixture:
    """Classifies a text by the encoder with its adapters, without any network."""

    def __init__(self, classifier: Classifier, labels: tuple[str, ...], name: str = "") -> None:
        self.classifier = classifier.eval()
        self.labels = labels
        self.name = name

    @classmethod
    def from_pretrained(cls, name: str = SHIPPED) -> "LoraMixture":
        """By the name of a shipped one or the folder of one. Raises ModelError if it is missing or damaged."""
        folder = WEIGHTS / name if (WEIGHTS / name / CARD_FILE).is_file() else Path(name)
        classifier, labels = load_adapters(folder)
        return cls(classifier, labels, folder.name)

    def classify(self, text: str) -> FloatArray:
        """The probability (C,) of each of `labels`."""
        return self.explain(text).probabilities_C

    @torch.no_grad()
    def explain(self, text: str) -> Explained:
        """What the sub-routers of every wrapped layer make of the text, and the answer. Of long texts the beginning.

        Raises ModelError if the adapters were trained with another kind of router.
        """
        routers = {name: bank.mixture.router for name, bank in self.classifier.banks.items()}
        if not all(isinstance(router, MixtureOfRouters) for router in routers.values()):
            raise ModelError(f"{self.name or 'this model'} has no mixture of routers to explain")
        reached: dict[str, Tensor] = {}
        handles = [
            router.register_forward_pre_hook(lambda _, args, name=name: reached.update({name: args[0]}))
            for name, router in routers.items()
        ]
        ids, tokens = read_tokens(text)
        try:
            x_BTD, seen_BT = self.classifier.encoder.embed([ids])
            x_BTD = self.classifier.encoder.run(x_BTD, seen_BT, stop=self.classifier.first)
            probabilities_BC = self.classifier(x_BTD, seen_BT).softmax(-1)
        finally:
            for handle in handles:
                handle.remove()
        layers = [
            explain_layer(name, router, reached[name])
            for name, router in routers.items()
            if isinstance(router, MixtureOfRouters)
        ]
        return Explained(tuple(tokens), tuple(layers), self.labels, probabilities_BC[0].double().numpy())
