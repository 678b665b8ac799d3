"""A converted model in one folder: weights, card and tokenizer, ready to be opened anywhere."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from mofme.core.moe import activated_parameters
from mofme.core.weights import ModelCard, read_as, save_model
from mofme.files import CARD_FILE
from mofme.language.pretrained import PretrainedLM, decoder_layers, dense_weights, open_pretrained
from mofme.papers.ladimo.conversion import Conversion
from mofme.papers.ladimo.converted_layer import ConvertedLayer, Policy, Recipe, converted_layers

NET = "dense-to-moe"


def save_converted(
    folder: Path,
    lm: PretrainedLM,
    recipe: Recipe,
    licence: str,
    training: Mapping[str, Any],
    metrics: Mapping[str, Any],
) -> ModelCard:
    """Write a converted model in half precision, with the policies its layers have, as `open_model` reads it."""
    state = lm.model.state_dict()
    if lm.model.config.tie_word_embeddings:
        del state["lm_head.weight"]
    arguments = {
        "config": lm.model.config.to_diff_dict(),
        "recipe": asdict(recipe),
        "policies": [asdict(moe.router.policy) for moe in converted_layers(lm.model)],
    }
    lm.tokenizer.save_pretrained(folder)
    return save_model(folder, ModelCard(folder.name, NET, arguments, licence, training, metrics), state)


def describe(lm: PretrainedLM, conversion: Conversion, texts: Sequence[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """What the card tells of a conversion's training and of what it measured on the passages held back."""
    active = np.array([candidate.active for candidate in conversion.chosen])
    training = {"model": lm.name, "texts": list(texts), "tokens": conversion.recipe.tokens}
    errors = [candidate.error for candidate in conversion.chosen]
    metrics = {
        "activated parameters": activated_parameters(lm.model, active),
        "active experts": [round(float(mean), 3) for mean in active],
        "relative squared error": [float(f"{error:.3g}") for error in errors],
    }
    return training, metrics


def open_model(name: str) -> PretrainedLM:
    """Open a folder that `save_converted` wrote, or else whatever `open_pretrained` opens."""
    folder = Path(name)
    if not (folder / CARD_FILE).is_file():
        return open_pretrained(name)

    def filled(card: ModelCard, state: dict[str, Tensor]) -> PretrainedLM:
        values = dict(card.arguments["config"])
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(values.pop("model_type"), **values))
        set_layers(model, Recipe(**card.arguments["recipe"]), card.arguments["policies"])
        model.float()
        if model.config.tie_word_embeddings:
            state["lm_head.weight"] = state["model.embed_tokens.weight"]
        model.load_state_dict(state)
        return PretrainedLM(name, model.eval().requires_grad_(False), AutoTokenizer.from_pretrained(folder))

    return read_as(folder, NET, filled)


def set_layers(model: PreTrainedModel, recipe: Recipe, policies: Sequence[Mapping[str, Any]]) -> None:
    """Put empty converted layers, with their policies, in the place of the dense ones."""
    for layer, policy in zip(decoder_layers(model), policies, strict=True):
        neurons, dim = dense_weights(layer.mlp)[0].shape
        moe = ConvertedLayer.empty(dim, neurons, recipe)
        moe.router.policy = Policy(**policy)
        layer.mlp = moe
