"""How near a student is to its teacher and to the text, on passages that neither learned from.

Axis names: B texts, T tokens, V vocabulary, P passages, S samplings.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from mofme.language.causal_lm import CausalLM
from mofme.language.moe_distillation.passages import Passages
from mofme.language.scoring import FloatArray

_BATCH = 32


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
    return _array(parts)


@torch.no_grad()
def cross_entropy(model: CausalLM, passages_PT: Tensor, prompt: int) -> FloatArray:
    """Of the true continuation of every passage (P), in nats a token."""
    parts = []
    for ids_BT in passages_PT.split(_BATCH):
        logits_BVT = response_logits(model, ids_BT, prompt).transpose(1, 2)
        parts.append(F.cross_entropy(logits_BVT, ids_BT[:, prompt:], reduction="none").mean(-1))
    return _array(parts)


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


def _array(parts: Sequence[Tensor]) -> FloatArray:
    array: FloatArray = torch.cat(list(parts)).double().numpy()
    return array
