"""A small language model in one folder: weights, card and vocabulary."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mofme.core.model_card import ModelCard, load_card, load_state, save_model
from mofme.errors import ModelError
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
    card = load_card(folder)
    if card.net != NET:
        raise ModelError(f"{folder} holds a model of another kind: {card.net}")
    state = load_state(folder, card)
    try:
        model = SmallLM(Shape(**card.arguments))
        model.load_state_dict(state)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ModelError(f"{folder} does not hold what its card says: {error}") from error
    return model.eval(), Vocabulary.load(folder)
