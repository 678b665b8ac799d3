"""A prompt written on by a language model, token by token: always the likeliest."""

import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np
import torch
from transformers import DynamicCache

from mofme.core.moe import activated_parameters, observe_routing, parameters
from mofme.errors import MofmeError
from mofme.language.dense_to_moe.converted_layer import converted_layers
from mofme.language.host import Host

TOKENS = 40
CHARACTERS = 2000


@dataclass(frozen=True)
class Written:
    """What has been written so far, at how many tokens a second, using which share (0 to 1) of all parameters.

    Speed 0: the model ended the text at once.
    """

    text: str
    speed: float
    used: float


@torch.inference_mode()
def write(host: Host, prompt: str, tokens: int = TOKENS) -> Iterator[Written]:
    """Write up to `tokens` tokens after the prompt. Speed is wall time, without reading the prompt.

    Raises MofmeError for a prompt that is empty or too long.
    """
    ids = host.tokens(prompt)
    if not ids:
        raise MofmeError("Type how the text begins first.")
    if len(prompt) > CHARACTERS:
        raise MofmeError(f"The beginning has {len(prompt):,} characters, more than the limit of {CHARACTERS:,}.")
    model = host.model
    layers = len(converted_layers(model))
    total = parameters(model)
    cache = DynamicCache(config=model.config)
    read = model(input_ids=torch.tensor([ids]), past_key_values=cache, use_cache=True, logits_to_keep=1)
    written = [int(read.logits[0, -1].argmax())]
    if written[0] == host.tokenizer.eos_token_id:
        yield Written("", 0.0, 1.0)
        return
    active = np.zeros(layers)
    with ExitStack() as watching:
        observed = watching.enter_context(observe_routing(model)) if layers else []
        start = time.perf_counter()
        for step in range(1, tokens):
            if written[-1] == host.tokenizer.eos_token_id:
                break
            read = model(input_ids=torch.tensor([written[-1:]]), past_key_values=cache, use_cache=True)
            written.append(int(read.logits[0, -1].argmax()))
            speed = step / (time.perf_counter() - start)
            active += [float(one.decision.chosen_TE.sum()) for one in observed]
            observed.clear()
            used = activated_parameters(model, active / step) / total
            yield Written(str(host.tokenizer.decode(written, skip_special_tokens=True)), speed, used)
