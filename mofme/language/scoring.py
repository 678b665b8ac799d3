"""How good a language model is: perplexity on a text, and zero-shot multiple choice by log-likelihood.

Source of the second: lm-evaluation-harness (EleutherAI), whose `acc` and `acc_norm` these are.
Axis names: W windows, N questions, C choices, T tokens, V vocabulary.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import DynamicCache, PreTrainedModel

from mofme.errors import ModelError
from mofme.language.pretrained import PretrainedLM
from mofme.language.text import Question
from mofme.measure.result import Figure
from mofme.measure.statistics import students_interval, wilson

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]
Report = Callable[[int, int], None]


@dataclass(frozen=True)
class TextScore:
    """What each window of a text cost: `nats_W` summed over its `tokens_W` scored tokens."""

    nats_W: FloatArray
    tokens_W: FloatArray

    @property
    def nats(self) -> float:
        """Mean negative log-likelihood of a token, in nats; its exponential is the perplexity."""
        return float(self.nats_W.sum() / self.tokens_W.sum())

    @property
    def perplexity(self) -> float:
        return math.exp(self.nats)

    def nats_figure(self) -> Figure:
        """With Student's 95 % interval over the windows, as a ratio of sums; without one for a single window."""
        windows = len(self.nats_W)
        residual_W = self.nats_W - self.nats * self.tokens_W
        error = residual_W.std(ddof=1) / math.sqrt(windows) / self.tokens_W.mean() if windows > 1 else 0.0
        return students_interval(self.nats, float(error), windows)

    def perplexity_figure(self) -> Figure:
        """The exponential of `nats_figure`."""
        return self.nats_figure().map(math.exp)


@torch.inference_mode()
def score_text(
    model: PreTrainedModel, ids: Sequence[int], window: int = 512, stride: int = 256, report: Report | None = None
) -> TextScore:
    """Slide a window of `window` tokens over a text by `stride`; every token but the first is scored exactly once.

    A token is scored where it appears first, so that it sees at least `window - stride` tokens before it, or all there
    are. Raises ModelError for a text of fewer than two tokens.
    """
    if len(ids) < 2:
        raise ModelError("a text of at least two tokens is needed for its perplexity")
    if not 1 <= stride < window:
        raise ValueError(f"the stride must be from 1 to {window - 1}, got {stride}")
    nats, tokens, scored = [], [], 1
    while scored < len(ids):
        end = min(len(ids), scored - 1 + window if scored == 1 else scored + stride)
        start = max(0, end - window)
        nats.append(-float(_log_likelihoods(model, ids[start:end])[scored - end :].sum()))
        tokens.append(float(end - scored))
        scored = end
        if report:
            report(scored, len(ids))
    return TextScore(np.array(nats), np.array(tokens))


def _log_likelihoods(model: PreTrainedModel, ids: Sequence[int]) -> Tensor:
    """Of every token but the first, given those before it: (T - 1,), in float64."""
    ids_1T = torch.tensor([list(ids)])
    logits_TV = model(input_ids=ids_1T, use_cache=False).logits[0, :-1]
    return -F.cross_entropy(logits_TV, ids_1T[0, 1:], reduction="none").double()


@dataclass(frozen=True)
class ChoiceScore:
    """Whether each of N questions was answered rightly: by the likeliest choice, and by the likeliest per character."""

    right_N: BoolArray
    right_normalized_N: BoolArray

    def figures(self) -> dict[str, Figure]:
        """`acc` and `acc_norm` as shares, with Wilson's 95 % intervals."""
        by_name = {"accuracy": self.right_N, "accuracy, normalized": self.right_normalized_N}
        return {name: wilson(int(right_N.sum()), len(right_N)) for name, right_N in by_name.items()}


@torch.inference_mode()
def score_questions(lm: PretrainedLM, questions: Sequence[Question], report: Report | None = None) -> ChoiceScore:
    """Answer each question by the choice whose text, after one space, is likeliest after the context.

    `acc_norm` divides each log-likelihood by the characters of the choice. Ties go to the first choice.
    """
    if not questions:
        raise ModelError("there are no questions to answer")
    right, right_normalized = [], []
    for number, question in enumerate(questions, start=1):
        likelihood_C = choice_likelihoods(lm, question)
        length_C = np.array([max(1, len(choice)) for choice in question.choices])
        right.append(likelihood_C.argmax() == question.answer)
        right_normalized.append((likelihood_C / length_C).argmax() == question.answer)
        if report:
            report(number, len(questions))
    return ChoiceScore(np.array(right), np.array(right_normalized))


@torch.inference_mode()
def choice_likelihoods(lm: PretrainedLM, question: Question) -> FloatArray:
    """log p(choice | context) of every choice (C,), in nats. The context is read once, whatever the choices."""
    context = lm.tokens(question.context)
    # As the harness does it: tokens are of the whole text, split where those of the context alone end.
    choices = [lm.tokens(f"{question.context} {choice}")[len(context) :] for choice in question.choices]
    longest = max(map(len, choices))
    ids_CT = torch.tensor([[*ids, *[0] * (longest - len(ids))] for ids in choices])
    cache = DynamicCache(config=lm.model.config)
    read = lm.model(input_ids=torch.tensor([context]), past_key_values=cache, use_cache=True, logits_to_keep=1)
    cache.batch_repeat_interleave(len(choices))
    # What comes after a shorter choice is padding, which no earlier token sees.
    logits_CTV = lm.model(input_ids=ids_CT, past_key_values=cache, use_cache=True).logits
    first_C1V = read.logits.expand(len(choices), -1, -1)
    log_CTV = torch.cat([first_C1V, logits_CTV[:, :-1]], dim=1).double().log_softmax(-1)
    log_CT = log_CTV.gather(-1, ids_CT[..., None]).squeeze(-1)
    return np.array([float(log_T[: len(ids)].sum()) for log_T, ids in zip(log_CT, choices, strict=True)])
