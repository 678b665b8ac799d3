"""Texts as tokens: most of each to learn from, its end held back to measure on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mofme.errors import TableError
from mofme.language.small_lm.vocabulary import Vocabulary


@dataclass(frozen=True)
class Corpus:
    """`learned_N`: tokens to learn from, text after text. `held_back`: for each text, passages (P, T + 1) of its end.

    A passage holds T tokens to read, each with the one after it.
    """

    learned_N: Tensor
    held_back: Mapping[str, Tensor]


def make_corpus(texts: Mapping[str, str], vocabulary: Vocabulary, context: int, passages: int) -> Corpus:
    """Hold back the last tenth of every text, of which `passages` passages of `context` tokens, evenly spread, stay.

    Raises TableError naming a text that is too short for it.
    """
    learned, held_back = [], {}
    for name, text in texts.items():
        ids = torch.tensor(vocabulary.encode(text))
        begin = len(ids) * 9 // 10
        found_PT = ids[begin:].unfold(0, context + 1, context) if len(ids) - begin > context else ids[:0, None]
        if len(found_PT) < passages:
            raise TableError(
                f"{name} is too short: its last tenth holds {len(found_PT)} of {passages} passages of {context} tokens"
            )
        chosen = torch.arange(passages) * len(found_PT) // passages
        learned.append(ids[:begin])
        held_back[name] = found_PT[chosen].clone()
    return Corpus(torch.cat(learned), held_back)


def learned_parts(texts: Sequence[str]) -> list[str]:
    """The part of each text that a vocabulary may be learned from: none of what `make_corpus` holds back."""
    return [text[: len(text) * 85 // 100] for text in texts]
