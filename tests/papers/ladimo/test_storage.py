from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from mofme.core.weights import load_card
from mofme.language.pretrained import PretrainedLM
from mofme.papers.ladimo.conversion import convert_layers, open_model, save_converted
from mofme.papers.ladimo.converted_layer import Policy, Recipe, converted_layers

IDS = [(i * i) % 60 + 1 for i in range(2048)]


@pytest.mark.parametrize(
    "recipe",
    [
        Recipe(experts=4, active=3, tokens=512),
        Recipe(experts=4, active=2, tokens=512, split="importance"),
        Recipe(experts=4, active=2, shared=8, tokens=512, learned=False),
        Recipe(experts=4, active=2, tokens=512, router="attention"),
        Recipe(experts=4, active=2, tokens=512, router="mixture"),
    ],
)
def test_it_loads_back_to_the_same_logits(
    tmp_path: Path, tiny_pretrained: Callable[..., PretrainedLM], recipe: Recipe
) -> None:
    lm = tiny_pretrained()
    convert_layers(lm.model, IDS, recipe, tmp_path / "work")
    policies = [Policy("top-k", 2), Policy("threshold", 0.2), Policy("dense")]
    for moe, policy in zip(converted_layers(lm.model), policies, strict=True):
        moe.router.policy = policy
    save_converted(tmp_path / "model", lm, recipe, "CC0", {"tokens": 512}, {"perplexity": 3.5})
    for parameter in lm.model.parameters():  # stored in half precision
        parameter.data = parameter.data.half().float()
    opened = open_model(str(tmp_path / "model"))
    ids = torch.tensor([IDS[:50]])
    torch.testing.assert_close(opened.model(ids).logits, lm.model(ids).logits, rtol=1e-5, atol=1e-6)
    assert [moe.router.policy for moe in converted_layers(opened.model)] == policies
    assert opened.tokens("Every good boy") == lm.tokens("Every good boy")
    card = load_card(tmp_path / "model")
    assert (card.licence, card.metrics) == ("CC0", {"perplexity": 3.5})


def test_a_dense_folder_opens_too(tmp_path: Path, tiny_pretrained: Callable[..., PretrainedLM]) -> None:
    lm = tiny_pretrained()
    lm.model.save_pretrained(tmp_path)
    lm.tokenizer.save_pretrained(tmp_path)
    assert converted_layers(open_model(str(tmp_path)).model) == []
