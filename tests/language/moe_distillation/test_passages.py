from collections.abc import Callable

import pytest
import torch

from mofme.errors import TableError
from mofme.language.causal_lm import SmallCausalLM
from mofme.language.moe_distillation.passages import passages_in, passages_of
from mofme.language.small_lm_training import Corpus

MakeLM = Callable[..., SmallCausalLM]


def test_the_end_of_a_text_is_held_out(tiny_lm: MakeLM) -> None:
    model = tiny_lm()
    text = "".join(chr(0x4E00 + number) for number in range(2000))  # three tokens each, no two alike
    passages = passages_of(text, model, held_out=4)
    assert passages.held_out_PT.shape == (4, 96) and passages.response == 64
    learned = {tuple(row) for row in passages.learned_PT.unfold(1, 6, 1).flatten(0, 1).tolist()}
    held_out = {tuple(row) for row in passages.held_out_PT.unfold(1, 6, 1).flatten(0, 1).tolist()}
    assert not learned & held_out


def test_too_short_a_text_is_refused(tiny_lm: MakeLM) -> None:
    with pytest.raises(TableError, match="at least 1920 are needed"):
        passages_of("short", tiny_lm())


def test_passages_of_a_corpus() -> None:
    held_back = {"a": torch.zeros(2, 129, dtype=torch.long), "b": torch.ones(3, 129, dtype=torch.long)}
    passages = passages_in(Corpus(torch.arange(1000), held_back), count=5)
    assert passages.learned_PT.shape == (5, 96)
    assert torch.equal(passages.learned_PT.diff(dim=1), torch.ones(5, 95, dtype=torch.long))
    assert passages.held_out_PT[:, 0].tolist() == [0, 0, 1, 1, 1]
