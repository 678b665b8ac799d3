"""Teachers and students: the shipped pair, models from folders, and students cut out of deeper models."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from mofme.core.moe import moe_layers
from mofme.core.weights import as_stored, load_card
from mofme.errors import ModelError
from mofme.files import CARD_FILE, WEIGHTS, atomic_file
from mofme.language.causal_lm import CausalLM, PretrainedCausalLM, SmallCausalLM
from mofme.language.pretrained import decoder_layers
from mofme.language.small_lm import NET, load_lm, save_lm
from mofme.papers.ladimo.storage import open_model

_NOTES = "distillation.json"


def shipped_teacher() -> SmallCausalLM:
    """A mixture of eight experts a layer, of which a token visits two. Raises ModelError if it is missing."""
    return SmallCausalLM(*load_lm(WEIGHTS / "distillation-teacher"))


def fresh_student() -> SmallCausalLM:
    """The smaller dense student as it was before any distillation, a new one each time."""
    return SmallCausalLM(*load_lm(WEIGHTS / "distillation-student"))


def open_lm(name: str) -> CausalLM:
    """A folder that `save_lm`, `save_converted` or transformers wrote, `smollm2`, or a hub's name.

    Raises ModelError for anything else.
    """
    folder = Path(name)
    if (folder / CARD_FILE).is_file() and load_card(folder).net == NET:
        return SmallCausalLM(*load_lm(folder))
    return PretrainedCausalLM(open_model(name))


def open_student(name: str, layers: int | None = None) -> CausalLM:
    """What `open_lm` opens, cut to `layers` layers. Raises ModelError if it is a mixture, or cannot be cut so."""
    model = open_lm(name)
    if isinstance(model, PretrainedCausalLM) and moe_layers(model.module):
        raise ModelError(f"{name} is a converted model, which teaches: give a dense one as the student")
    if layers is not None:
        keep_layers(model, layers)
    return model


def keep_layers(model: CausalLM, count: int) -> None:
    """Keep `count` layers of a model of transformers, evenly spread, with the first and the last, as DistilBERT began.

    Raises ModelError for another kind of model, or if it has no more layers than that.
    """
    if not isinstance(model, PretrainedCausalLM):
        raise ModelError("only models of transformers can be cut to fewer layers")
    net = model.lm.model
    layers = decoder_layers(net)
    if not 1 <= count < len(layers):
        raise ModelError(f"the student has {len(layers)} layers: between 1 and {len(layers) - 1} can be kept")
    kept = [layers[index * (len(layers) - 1) // max(1, count - 1)] for index in range(count)]
    for number, layer in enumerate(kept):
        cast(Any, layer.self_attn).layer_idx = number  # where the cache keeps its keys and values
    net.model.layers = nn.ModuleList(kept)  # type: ignore[arg-type]
    net.config.num_hidden_layers = count
    if getattr(net.config, "layer_types", None):
        net.config.layer_types = net.config.layer_types[:count]


def save_student(
    student: CausalLM, folder: Path, licence: str, training: Mapping[str, Any], metrics: Mapping[str, Any]
) -> None:
    """Write it as `open_lm` reads it, in half precision; a model of transformers as transformers does it."""
    if isinstance(student, SmallCausalLM):
        save_lm(folder, student.model, student.vocabulary, licence, training, metrics)
    elif isinstance(student, PretrainedCausalLM):
        model = student.lm.model
        fits = all(tensor.dtype != torch.float32 for tensor in as_stored(model.state_dict()).values())
        (model.half() if fits else model).save_pretrained(folder)
        student.lm.tokenizer.save_pretrained(folder)
        notes = {"licence": licence, "training": training, "metrics": metrics}
        with atomic_file(folder / _NOTES, "w") as file:
            file.write(json.dumps(notes, indent=2) + "\n")
