"""A trained mixture of routers as users meet it: a text goes in, and out come its class and what each router said."""

import torch
from torch import Tensor

from mofme.files import model_folder
from mofme.language.lora_mixture.classifier import WINDOW, Classifier
from mofme.language.lora_mixture.explanation import Explained, FloatArray, explain_batch
from mofme.language.lora_mixture.storage import load_adapters
from mofme.language.minilm import read_tokens

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
        folder = model_folder(name)
        classifier, labels = load_adapters(folder)
        return cls(classifier, labels, folder.name)

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
