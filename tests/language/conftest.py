"""A tiny random model of the Llama architecture, and a tokenizer of single characters: nothing is downloaded."""

from __future__ import annotations

import string
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from mofme.language.pretrained import PretrainedLM

CHARACTERS = string.ascii_letters + string.digits + " \n.,:;?!'-"


@pytest.fixture(scope="session")
def tiny_pretrained() -> Callable[..., PretrainedLM]:
    """Makes one of three layers with 16 features and feed-forwards of 48 neurons, the same for the same seed."""
    return make_tiny_pretrained


def make_tiny_pretrained(layers: int = 3, seed: int = 0) -> PretrainedLM:
    # Imported here: other tests in this folder do without transformers, whose import takes seconds.
    import torch
    from tokenizers import Regex, Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Split
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    from mofme.language.pretrained import PretrainedLM

    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(CHARACTERS) + 1,
        hidden_size=16,
        intermediate_size=48,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        initializer_range=0.3,
        tie_word_embeddings=True,
        max_position_embeddings=512,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=None,
    )
    model = LlamaForCausalLM(config).eval().requires_grad_(False)
    vocabulary = {"<unk>": 0, **{character: index for index, character in enumerate(CHARACTERS, start=1)}}
    characters = Tokenizer(WordLevel(vocabulary, unk_token="<unk>"))
    characters.pre_tokenizer = Split(Regex(r"[\s\S]"), "isolated")
    return PretrainedLM("tiny", model, PreTrainedTokenizerFast(tokenizer_object=characters, unk_token="<unk>"))
