"""What is distilled on, and how near a student is to its teacher and to the text on passages that neither learned from.

Axis names: B texts, T tokens, V vocabulary, P passages, S samplings.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from mofme.errors import TableError
from mofme.language.pretrained import CausalLM
from mofme.language.small_lm_training import Corpus
from mofme.measure.statistics import FloatArray

PROMPT, RESPONSE = 32, 64
_PASSAGES = 2048
_BATCH = 32


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


def passages_of(text: str, model: CausalLM, held_out: int = 64, name: str = "the text") -> Passages:
    """Passages of one's own text; at most `held_out` of its last tenth are held out.

    Raises TableError for a text that is too short, which it calls `name`.
    """
    length = PROMPT + RESPONSE
    ids = torch.tensor(model.encode(text))
    begin = len(ids) * 9 // 10
    if len(ids) - begin < 2 * length:
        least = 20 * length
        raise TableError(f"{name} has {len(ids)} tokens (pieces of words); at least {least} are needed: add more text.")
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


@dataclass(frozen=True)
class Quality:
    """Of every held-out passage: KL(student || teacher) and cross-entropy in nats a token of what follows the prompt.

    Of `samplings` continuations that the student wrote: KL on its own text, and ROUGE-L with the true continuation.
    """

    kl_P: FloatArray
    cross_entropy_P: FloatArray
    own_kl_SP: FloatArray
    rouge_l_SP: FloatArray

    @property
    def kl(self) -> float:
        return float(self.kl_P.mean())

    @property
    def cross_entropy(self) -> float:
        return float(self.cross_entropy_P.mean())

    @property
    def own_kl(self) -> float:
        return float(self.own_kl_SP.mean())

    @property
    def rouge_l(self) -> float:
        return float(self.rouge_l_SP.mean())


def response_logits(model: CausalLM, ids_BT: Tensor, prompt: int) -> Tensor:
    """(B, T - prompt, V): for each token after the prompt, what was predicted before it was seen."""
    return model.logits(ids_BT)[:, prompt - 1 : -1]


@torch.no_grad()
def held_out_kl(student: CausalLM, teacher: CausalLM, passages_PT: Tensor, prompt: int) -> FloatArray:
    """KL(student || teacher as it is) of every passage (P), in nats a token."""
    parts = []
    for ids_BT in passages_PT.split(_BATCH):
        log_p = response_logits(student, ids_BT, prompt).log_softmax(-1)
        log_q = response_logits(teacher, ids_BT, prompt).log_softmax(-1)
        parts.append((log_p.exp() * (log_p - log_q)).sum(-1).mean(-1))
    return torch.cat(parts).double().numpy()


@torch.no_grad()
def cross_entropy(model: CausalLM, passages_PT: Tensor, prompt: int) -> FloatArray:
    """Of the true continuation of every passage (P), in nats a token."""
    parts = []
    for ids_BT in passages_PT.split(_BATCH):
        logits_BVT = response_logits(model, ids_BT, prompt).transpose(1, 2)
        parts.append(F.cross_entropy(logits_BVT, ids_BT[:, prompt:], reduction="none").mean(-1))
    return torch.cat(parts).double().numpy()


def measure(student: CausalLM, teacher: CausalLM, passages: Passages, samplings: int = 5) -> Quality:
    """On the held-out passages; the seeds of the samplings are 0, 1, ... for every student alike."""
    held_out_PT, prompt = passages.held_out_PT, passages.prompt
    own_kl, rouge = [], []
    truth = [student.decode(ids) for ids in held_out_PT[:, prompt:].tolist()]
    for seed in range(samplings):
        generator = torch.Generator().manual_seed(seed)
        written_PT = student.write(held_out_PT[:, :prompt], passages.response, generator)
        own_kl.append(held_out_kl(student, teacher, torch.cat([held_out_PT[:, :prompt], written_PT], dim=1), prompt))
        texts = [student.decode(ids) for ids in written_PT.tolist()]
        rouge.append([rouge_l(one, true) for one, true in zip(texts, truth, strict=True)])
    return Quality(
        held_out_kl(student, teacher, held_out_PT, prompt),
        cross_entropy(student, held_out_PT, prompt),
        np.array(own_kl),
        np.array(rouge),
    )


def rouge_l(text: str, reference: str) -> float:
    """F1 of the longest common subsequence of words (Lin 2004), lower-cased, without stemming; 0 without any word."""
    words, others = (re.findall(r"[a-z0-9]+", one.lower()) for one in (text, reference))
    common = _longest_common(words, others)
    return 2 * common / (len(words) + len(others)) if common else 0.0


def _longest_common(words: Sequence[str], others: Sequence[str]) -> int:
    best = [0] * (len(others) + 1)
    for word in words:
        before = best
        best = [0]
        for index, other in enumerate(others):
            best.append(before[index] + 1 if word == other else max(before[index + 1], best[index]))
    return best[-1]
