import math
from collections.abc import Callable

import pytest
import torch

from mofme.language.pretrained import SmallCausalLM
from mofme.language.small_lm_training import Corpus
from mofme.papers.moe_distillation.quality import (
    Passages,
    cross_entropy,
    held_out_kl,
    measure,
    passages_in,
    passages_of,
    rouge_l,
)

MakeLM = Callable[..., SmallCausalLM]


@pytest.mark.parametrize(
    ("text", "reference", "expected"),
    [
        # common subsequence: the ... sat on mat, 4 words of 5 and 6: 2 * 4 / 11
        ("The cat sat on mat", "the dog sat on the mat!", 8 / 11),
        ("police kill the gunman", "police killed the gunman", 0.75),
        ("the gunman kill police", "police killed the gunman", 0.5),
        ("same words", "Same, words.", 1.0),
        ("one two", "two one", 0.5),
        ("", "anything", 0.0),
        ("...", "...", 0.0),
    ],
)
def test_rouge_l_by_hand(text: str, reference: str, expected: float) -> None:
    assert rouge_l(text, reference) == pytest.approx(expected)


def test_divergence_and_cross_entropy_against_a_loop(tiny_lm: MakeLM) -> None:
    student, teacher = tiny_lm("dense", layers=1, seed=1), tiny_lm()
    ids = torch.randint(260, (2, 5), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        p, q = (model.logits(ids).double().softmax(-1).tolist() for model in (student, teacher))
    # A prompt of three: what stands at 2 and 3 predicts the tokens at 3 and 4.
    kl = [
        sum(a * math.log(a / b) for at in (2, 3) for a, b in zip(p[text][at], q[text][at], strict=True)) / 2
        for text in range(2)
    ]
    nats = [-sum(math.log(p[text][at][ids[text, at + 1]]) for at in (2, 3)) / 2 for text in range(2)]
    assert held_out_kl(student, teacher, ids, 3).tolist() == pytest.approx(kl, rel=1e-4)
    assert cross_entropy(student, ids, 3).tolist() == pytest.approx(nats, rel=1e-4)


def test_a_model_is_no_distance_from_itself(tiny_lm: MakeLM, tiny_passages: Passages) -> None:
    teacher = tiny_lm()
    quality = measure(teacher, teacher, tiny_passages, samplings=2)
    assert quality.kl == pytest.approx(0, abs=1e-6) and quality.own_kl == pytest.approx(0, abs=1e-6)
    assert quality.kl_P.shape == (8,) and quality.rouge_l_SP.shape == (2, 8)
    assert 0 <= quality.rouge_l <= 1
    again = measure(teacher, teacher, tiny_passages, samplings=2)
    assert (quality.rouge_l_SP == again.rouge_l_SP).all()


def test_the_end_of_a_text_is_held_out(tiny_lm: MakeLM) -> None:
    model = tiny_lm()
    text = "".join(chr(0x4E00 + number) for number in range(2000))  # three tokens each, no two alike
    passages = passages_of(text, model, held_out=4)
    assert passages.held_out_PT.shape == (4, 96) and passages.response == 64
    learned = {tuple(row) for row in passages.learned_PT.unfold(1, 6, 1).flatten(0, 1).tolist()}
    held_out = {tuple(row) for row in passages.held_out_PT.unfold(1, 6, 1).flatten(0, 1).tolist()}
    assert not learned & held_out


def test_passages_of_a_corpus() -> None:
    held_back = {"a": torch.zeros(2, 129, dtype=torch.long), "b": torch.ones(3, 129, dtype=torch.long)}
    passages = passages_in(Corpus(torch.arange(1000), held_back), count=5)
    assert passages.learned_PT.shape == (5, 96)
    assert torch.equal(passages.learned_PT.diff(dim=1), torch.ones(5, 95, dtype=torch.long))
    assert passages.held_out_PT[:, 0].tolist() == [0, 0, 1, 1, 1]
