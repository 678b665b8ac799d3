"""What is distilled on and what is measured on: passages of text, each a prompt and what follows it.

Axis names: P passages, T tokens.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from mofme.errors import TableError
from mofme.language.causal_lm import CausalLM
from mofme.language.small_lm_training import Corpus

PROMPT, RESPONSE = 32, 64
_PASSAGES = 2048


@dataclass(frozen=True)
class Passages:
    """Token ids, of which the first `prompt` of every passage are its prompt; `held_out_PT` is never learned from."""

    learned_PT: Tensor
    held_out_PT: Tensor
    prompt: int = PROMPT

    @property
    def response(self) -> int:
        """How many tokens follow a prompt."""
        return self.learned_PT.shape[1] - self.prompt


def passages_of(text: str, model: CausalLM, held_out: int = 64) -> Passages:
    """Passages of one's own text; at most `held_out` of its last tenth are held out.

    Raises TableError for a text that is too short.
    """
    length = PROMPT + RESPONSE
    ids = torch.tensor(model.encode(text))
    begin = len(ids) * 9 // 10
    if len(ids) - begin < 2 * length:
        raise TableError(f"the text has {len(ids)} tokens; at least {20 * length} are needed to distil and to measure")
    learned_PT = _evenly(ids[:begin].unfold(0, length, length // 2), _PASSAGES)
    return Passages(learned_PT, _evenly(ids[begin:].unfold(0, length, length), held_out))


def passages_in(corpus: Corpus, count: int = 8192, seed: int = 0) -> Passages:
    """Of a corpus: `count` passages drawn from what was learned, and the beginnings of those that were held back."""
    length = PROMPT + RESPONSE
    generator = torch.Generator().manual_seed(seed)
    start_P1 = torch.randint(len(corpus.learned_N) - length, (count, 1), generator=generator)
    held_out_PT = torch.cat(list(corpus.held_back.values()))[:, :length]
    return Passages(corpus.learned_N[start_P1 + torch.arange(length)], held_out_PT)


def _evenly(found_PT: Tensor, most: int) -> Tensor:
    count = min(most, len(found_PT))
    return found_PT[torch.arange(count) * len(found_PT) // count].clone()
