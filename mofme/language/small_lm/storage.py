"""A small language model in one folder: weights, card and vocabulary."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mofme.core.weights import ModelCard, load_as, save_model
from mofme.language.small_lm.model import Shape, SmallLM
from mofme.language.small_lm.vocabulary import Vocabulary

NET = "small-lm"


def save_lm(
    folder: Path,
    model: SmallLM,
    vocabulary: Vocabulary,
    licence: str,
    training: Mapping[str, Any],
    metrics: Mapping[str, Any],
) -> ModelCard:
    """Write a model in half precision, as `load_lm` reads it. The card comes last: with it the folder is complete."""
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary.save(folder)
    card = ModelCard(folder.name, NET, asdict(model.shape), licence, training, metrics)
    return save_model(folder, card, model.state_dict())


def load_lm(folder: Path) -> tuple[SmallLM, Vocabulary]:
    """Raises ModelError if something is missing, damaged or of another kind."""
    model, _ = load_as(folder, NET, lambda **shape: SmallLM(Shape(**shape)))
    return model, Vocabulary.load(folder)
