"""A mixture of two layers and a dense student with random weights, and passages of random tokens."""

from collections.abc import Callable

import pytest
import torch

from mofme.language.pretrained import SmallCausalLM
from mofme.language.small_lm import Shape, SmallLM, Vocabulary
from mofme.papers.moe_distillation.quality import Passages

VOCABULARY = Vocabulary.learn(["the cat and the hat"], 260)
TINY = {"vocabulary": 260, "dim": 8, "heads": 2, "hidden": 8}


@pytest.fixture(scope="session")
def tiny_lm() -> Callable[..., SmallCausalLM]:
    """Makes a model of 260 tokens; a mixture visits two of its experts."""
    return make_tiny_lm


def make_tiny_lm(router: str = "linear", layers: int = 2, experts: int = 4, seed: int = 0) -> SmallCausalLM:
    shape = Shape(**TINY, layers=layers, router=router, experts=experts)  # type: ignore[arg-type]
    return SmallCausalLM(SmallLM(shape, seed).eval(), VOCABULARY)


@pytest.fixture(scope="session")
def tiny_passages() -> Passages:
    ids_PT = torch.randint(260, (40, 10), generator=torch.Generator().manual_seed(0))
    return Passages(ids_PT[:32], ids_PT[32:], prompt=4)
