"""Answering a question in one pass, whose last layers can be re-routed, with gradients, at a fraction of its cost.

A question and its choices are one row of tokens: every choice sees the question and itself, not the other choices. So
the mean over the row's tokens is the routing of the question, known before anybody knows the answer.

Our readings: only the last layers are re-routed, so that what enters them is computed once; and as a converted layer
has a stand-in for an idle expert, a gate g between 0 and 1 gives g of the expert and 1 - g of its stand-in.

Axis names: L tokens of a row, D features, C choices, A tokens of all choices, R routing weights.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mofme.core.gated_experts import GatedFeedForwardExperts
from mofme.core.rerouting import rerouted, routing_of, shifted
from mofme.language.pretrained import PretrainedLM, decoder_layers
from mofme.language.text import Question


@dataclass(frozen=True)
class Row:
    """A question as it enters the last layers. `before_A` is the place whose logits say a choice's token `token_A`;
    `choice_A` the choice that it belongs to; `share_C` the characters of each choice in units of their mean."""

    hidden_LD: Tensor
    position_L: Tensor
    sees_LL: Tensor
    before_A: Tensor
    token_A: Tensor
    choice_A: Tensor
    share_C: Tensor
    answer: int


class Tail(nn.Module):
    """The last `layers` of a model: row -> score (C,) of every choice after the question.

    A score is the log-likelihood per character, as in lm-evaluation-harness' `acc_norm`, times the mean characters of a
    choice, so that its softmax is as sharp as that of the log-likelihoods.
    """

    def __init__(self, lm: PretrainedLM, layers: int) -> None:
        super().__init__()
        every = decoder_layers(lm.model)
        self.lm = [lm]  # in a list, so that its other layers are no part of this module
        self.first = len(every) - layers
        self.layers = nn.ModuleList(list(lm.model.model.layers)[self.first :])
        self.norm = lm.model.model.norm
        self.head = lm.model.lm_head

    @torch.no_grad()
    def read(self, question: Question) -> Row:
        """Run the layers before."""
        model = self.lm[0].model.model
        ids_L, position_L, sees_LL, before_A, choice_A = _row(self.lm[0], question)
        hidden_1LD = model.embed_tokens(ids_L[None])
        hidden_1LD = self._through(list(model.layers)[: self.first], hidden_1LD, position_L, sees_LL)
        context = len(ids_L) - len(before_A)
        length_C = torch.tensor([float(max(1, len(choice))) for choice in question.choices])
        share_C = length_C / length_C.mean()
        return Row(hidden_1LD[0], position_L, sees_LL, before_A, ids_L[context:], choice_A, share_C, question.answer)

    def forward(self, row: Row) -> Tensor:
        hidden_LD = self._through(list(self.layers), row.hidden_LD[None], row.position_L, row.sees_LL)[0]
        logits_AV = self.head(self.norm(hidden_LD[row.before_A]))
        log_A = -F.cross_entropy(logits_AV, row.token_A, reduction="none")
        return log_A.new_zeros(len(row.share_C)).index_add(0, row.choice_A, log_A) / row.share_C

    def routing(self, row: Row) -> Tensor:
        """The row's own routing (R)."""
        return routing_of(self, lambda: self(row))

    def loss(self, row: Row, routing_R: Tensor) -> Tensor:
        """Cross-entropy of the right choice among all, under a routing."""
        with rerouted(self, routing_R):
            return F.cross_entropy(self(row), torch.tensor(row.answer))

    @torch.no_grad()
    def answer(self, row: Row, shift_R: Tensor | None = None) -> tuple[int, float]:
        """The likeliest choice, the first of equal ones, and how much of the probability the right one is given."""
        if shift_R is None:
            log_C = self(row)
        else:
            with shifted(self, shift_R):
                log_C = self(row)
        return int(log_C.argmax()), float(log_C.softmax(0)[row.answer])

    def _through(self, layers: Sequence[nn.Module], hidden_1LD: Tensor, position_L: Tensor, sees_LL: Tensor) -> Tensor:
        rotary = self.lm[0].model.model.rotary_emb(hidden_1LD, position_ids=position_L[None])
        for layer in layers:
            hidden_1LD = layer(hidden_1LD, attention_mask=sees_LL[None, None], position_embeddings=rotary)
        return hidden_1LD


def _row(lm: PretrainedLM, question: Question) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Tokens, places and who sees whom; of the choices' tokens the place before each, and the choice."""
    context = lm.tokens(question.context)
    choices = [lm.tokens(f"{question.context} {choice}")[len(context) :] for choice in question.choices]
    ids, positions = list(context), list(range(len(context)))
    belongs, before = [-1] * len(context), []
    for number, tokens in enumerate(choices):
        start = len(ids)
        before += [len(context) - 1, *range(start, start + len(tokens) - 1)]
        ids += tokens
        positions += range(len(context), len(context) + len(tokens))
        belongs += [number] * len(tokens)
    belongs_L = torch.tensor(belongs)
    earlier_LL = torch.ones(len(ids), len(ids), dtype=torch.bool).tril()
    sees_LL = earlier_LL & ((belongs_L == -1) | (belongs_L == belongs_L[:, None]))
    return torch.tensor(ids), torch.tensor(positions), sees_LL, torch.tensor(before), belongs_L[len(context) :]


@contextmanager
def continuous_gates(model: nn.Module) -> Iterator[None]:
    """Inside the block an expert with gate g is stood in for by 1 - g: for gates of 0 and 1 nothing changes."""

    def fill(experts: nn.Module, args: tuple[Tensor, Tensor], y_TD: Tensor) -> Tensor:
        weights_TE, idle_ED = args[1], experts.get_parameter("idle_ED")
        share_TE = 1 - weights_TE - (weights_TE == 0).to(weights_TE)
        filled_TD: Tensor = y_TD + share_TE @ idle_ED
        return filled_TD

    found = [module for module in model.modules() if isinstance(module, GatedFeedForwardExperts)]
    handles = [experts.register_forward_hook(fill) for experts in found]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
