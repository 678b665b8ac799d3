"""What is asked of any language model, and the two kinds that answer: small ones, and those of transformers.

Axis names: B texts, T tokens, V vocabulary.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from transformers import DynamicCache

from mofme.language.pretrained import PretrainedLM
from mofme.language.small_lm import SmallLM, Vocabulary, generate


class CausalLM(ABC):
    """A language model that predicts the next token. `module` holds its weights.

    `unit_gates`: its mixtures weigh every expert that takes part by 1, instead of by weights that sum to 1.
    """

    unit_gates = False

    def __init__(self, module: nn.Module) -> None:
        self.module = module

    @abstractmethod
    def logits(self, ids_BT: Tensor) -> Tensor:
        """(B, T, V) for the token after each."""

    @abstractmethod
    def write(self, ids_BT: Tensor, count: int, generator: torch.Generator) -> Tensor:
        """`count` tokens (B, count) that follow, drawn at temperature 1."""

    @abstractmethod
    def encode(self, text: str) -> list[int]:
        """Token ids of a text."""

    @abstractmethod
    def decode(self, ids: Sequence[int]) -> str:
        """The text of token ids."""


class SmallCausalLM(CausalLM):
    """One that `small_lm` trained."""

    def __init__(self, model: SmallLM, vocabulary: Vocabulary) -> None:
        super().__init__(model)
        self.model = model
        self.vocabulary = vocabulary

    def logits(self, ids_BT: Tensor) -> Tensor:
        logits_BTV: Tensor = self.model(ids_BT)
        return logits_BTV

    def write(self, ids_BT: Tensor, count: int, generator: torch.Generator) -> Tensor:
        # What inference mode made cannot be learned from; a copy of it can.
        return generate(self.model, ids_BT, count, generator=generator).clone()

    def encode(self, text: str) -> list[int]:
        return self.vocabulary.encode(text)

    def decode(self, ids: Sequence[int]) -> str:
        return self.vocabulary.decode(ids)


class PretrainedCausalLM(CausalLM):
    """One of transformers, dense or converted by `dense_to_moe`."""

    unit_gates = True

    def __init__(self, lm: PretrainedLM) -> None:
        super().__init__(lm.model)
        self.lm = lm

    def logits(self, ids_BT: Tensor) -> Tensor:
        logits_BTV: Tensor = self.lm.model(input_ids=ids_BT, use_cache=False).logits
        return logits_BTV

    @torch.no_grad()
    def write(self, ids_BT: Tensor, count: int, generator: torch.Generator) -> Tensor:
        cache = DynamicCache(config=self.lm.model.config)
        written: list[Tensor] = []
        for _ in range(count):
            read = self.lm.model(
                input_ids=written[-1] if written else ids_BT, past_key_values=cache, use_cache=True, logits_to_keep=1
            )
            written.append(torch.multinomial(read.logits[:, -1].softmax(-1), 1, generator=generator))
        return torch.cat(written, dim=1)

    def encode(self, text: str) -> list[int]:
        return self.lm.tokens(text)

    def decode(self, ids: Sequence[int]) -> str:
        return str(self.lm.tokenizer.decode(list(ids)))
