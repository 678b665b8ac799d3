"""What a language model costs: experts that a token activates, and time."""

import time
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch
from transformers import PreTrainedModel

from mofme.core.moe import observe_routing, parameters
from mofme.language.dense_to_moe.converted_layer import ConvertedLayer, Recipe, converted_layers
from mofme.language.pretrained import decoder_layers, dense_weights

FloatArray = npt.NDArray[np.float64]
_TOKENS = 8  # written one by one, to time one


def budget(model: PreTrainedModel, recipe: Recipe, target: float) -> float:
    """Experts that may be active, over all layers together, to save the share `target` of the dense `model`."""
    sizes = [tuple(dense_weights(layer.mlp)[0].shape) for layer in decoder_layers(model)]
    total = parameters(model)
    empty = [ConvertedLayer.empty(dim, neurons, recipe) for neurons, dim in sizes]
    added = sum(parameters(moe) for moe in empty) - sum(3 * neurons * dim for neurons, dim in sizes)
    idle = (target * total + added) / empty[0].experts.expert_parameters
    return len(sizes) * recipe.experts - idle


@torch.inference_mode()
def active_experts(model: PreTrainedModel, ids: Sequence[int], window: int = 512) -> FloatArray:
    """The mean number of experts that each converted layer activates for a token of a text."""
    total, tokens = np.zeros(len(converted_layers(model))), 0
    for start in range(0, len(ids), window):
        part = list(ids[start : start + window])
        with observe_routing(model) as observed:
            model.model(input_ids=torch.tensor([part]), use_cache=False)
        total += [float(one.decision.chosen_TE.sum()) for one in observed]
        tokens += len(part)
    return total / tokens


@torch.inference_mode()
def seconds(models: Mapping[str, PreTrainedModel], ids: Sequence[int], repeats: int) -> Mapping[str, FloatArray]:
    """CPU seconds of each model to read the text, and to write one more token after it: (repeats, 2), all in turn.

    Time of the process's own threads: what others do on the machine does not count.
    """
    ids_1T = torch.tensor([list(ids)])
    taken: dict[str, list[list[float]]] = {name: [] for name in models}
    for repeat in range(repeats + 1):
        for name, model in models.items():
            start = time.process_time()
            read = model(input_ids=ids_1T, use_cache=True, logits_to_keep=1)
            middle = time.process_time()
            for _ in range(_TOKENS):
                read = model(
                    input_ids=read.logits[:, -1:].argmax(-1), past_key_values=read.past_key_values, use_cache=True
                )
            if repeat:  # the first warms up
                taken[name].append([middle - start, (time.process_time() - middle) / _TOKENS])
    return {name: np.array(rows) for name, rows in taken.items()}
