import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from mofme.errors import ModelError
from mofme.language.pretrained import PretrainedLM
from mofme.language.scoring import TextScore, choice_likelihoods, score_questions, score_text
from mofme.language.text import Question

TEXT = "The quick brown fox jumps over the lazy dog. How vexingly quick daft zebras jump!"


@pytest.fixture(scope="module")
def lm(tiny_pretrained: Callable[..., PretrainedLM]) -> PretrainedLM:
    return tiny_pretrained()


class Remembers:
    """A model that computes next to nothing; what it says of a token depends on all it read before, in order."""

    def __init__(self) -> None:
        self.table = torch.randn(997, 64, generator=torch.Generator().manual_seed(0))

    def __call__(self, input_ids: Tensor, use_cache: bool = False) -> SimpleNamespace:
        place = torch.arange(1, input_ids.shape[1] + 1)
        return SimpleNamespace(logits=self.table[(input_ids * place**2).cumsum(1) % 997])


def log_probability(model: Callable[..., Any], before: list[int], token: int) -> float:
    """By the definition: all that came before, one forward, one softmax."""
    logits = model(input_ids=torch.tensor([before])).logits[0, -1].double()
    return float(logits[token] - torch.logsumexp(logits, 0))


def test_a_text_within_one_window_is_scored_as_a_loop_would(lm: PretrainedLM) -> None:
    ids = lm.tokens(TEXT)
    expected = -sum(log_probability(lm.model, ids[:i], ids[i]) for i in range(1, len(ids)))
    score = score_text(lm.model, ids, window=len(ids), stride=1)
    assert score.tokens_W.tolist() == [len(ids) - 1]
    assert score.nats_W.sum() == pytest.approx(expected, rel=1e-5)
    assert score.perplexity == pytest.approx(math.exp(expected / (len(ids) - 1)), rel=1e-5)


@given(length=st.integers(2, 60), window=st.integers(2, 20), data=st.data())
def test_every_token_is_scored_once_with_enough_before_it(length: int, window: int, data: st.DataObject) -> None:
    stride, model = data.draw(st.integers(1, window - 1)), Remembers()
    ids = [(i * i + i // 7) % 64 for i in range(length)]
    # Where a window of the definition starts: it ends at the token that ends the window scoring token i.
    expected = 0.0
    for i in range(1, length):
        end = window if i < window else window + math.ceil((i + 1 - window) / stride) * stride
        start = max(0, min(end, length) - window)
        expected -= log_probability(model, ids[start:i], ids[i])
    score = score_text(model, ids, window, stride)  # type: ignore[arg-type]
    assert score.tokens_W.sum() == length - 1
    assert score.nats_W.sum() == pytest.approx(expected, rel=1e-4)


def test_the_interval_of_equal_windows_is_students() -> None:
    # Means of 1, 2 and 3 nats: mean 2, standard error 1 / sqrt(3), t(0.975, 2 degrees) = 4.30265.
    score = TextScore(np.array([10.0, 20.0, 30.0]), np.full(3, 10.0))
    figure = score.nats_figure()
    assert (figure.value, figure.high) == pytest.approx((2, 2 + 4.30265 / math.sqrt(3)), rel=1e-5)
    assert score.perplexity_figure().low == pytest.approx(math.exp(2 - 4.30265 / math.sqrt(3)), rel=1e-5)


def test_choices_are_as_likely_as_a_loop_says(lm: PretrainedLM) -> None:
    question = Question("Question: Who jumps?\nAnswer:", ("the fox", "a dog", "no one at all"), 0)
    context = lm.tokens(question.context)
    expected = []
    for choice in question.choices:
        ids = lm.tokens(" " + choice)
        expected.append(sum(log_probability(lm.model, context + ids[:i], ids[i]) for i in range(len(ids))))
    np.testing.assert_allclose(choice_likelihoods(lm, question), expected, rtol=1e-5)


def test_normalized_accuracy_divides_by_the_characters(lm: PretrainedLM, monkeypatch: pytest.MonkeyPatch) -> None:
    # -4 for 2 characters is -2 each; -6 for 6 characters is -1 each: the longer one wins once normalized.
    monkeypatch.setattr("mofme.language.scoring.choice_likelihoods", lambda *_: np.array([-4.0, -6.0]))
    questions = [Question("q", ("ab", "abcdef"), 0), Question("q", ("ab", "abcdef"), 1)]
    score = score_questions(lm, questions)
    assert score.right_N.tolist() == [True, False]
    assert score.right_normalized_N.tolist() == [False, True]


def test_progress_reaches_the_end_and_too_little_to_score_is_said(lm: PretrainedLM) -> None:
    told: list[tuple[int, int]] = []
    score_text(lm.model, lm.tokens(TEXT), 20, 10, lambda done, total: told.append((done, total)))
    assert told[-1] == (len(TEXT), len(TEXT))
    assert [done for done, _ in told] == sorted(done for done, _ in told)
    with pytest.raises(ModelError, match="two tokens"):
        score_text(lm.model, [3])
    with pytest.raises(ModelError, match="no questions"):
        score_questions(lm, [])
