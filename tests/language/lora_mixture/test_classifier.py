import pytest
import torch
from torch.nn import functional as F

from mofme.errors import ModelError
from mofme.language.lora_mixture.bank import Recipe
from mofme.language.lora_mixture.classifier import LAST, WINDOW, Classifier, lowest_block
from mofme.language.minilm import MiniLM, read_tokens

TEXTS = ["What is the capital of France?", "hi", "Write a function that reverses a linked list, please."]


@pytest.mark.parametrize("wrapped", [LAST, ("blocks.10.query", "blocks.10.value")])
def test_gradients_reach_the_banks_and_nothing_else(wrapped: tuple[str, ...]) -> None:
    torch.manual_seed(0)
    classifier = Classifier(MiniLM.pretrained(), Recipe(wrapped), 3)
    for bank in classifier.banks.values():
        bank.mixture.experts.up_ERF.data.normal_(std=0.01)  # type: ignore[union-attr, operator]
    x_BTD, seen_BT = classifier.encoder.embed([read_tokens(text, WINDOW)[0] for text in TEXTS])
    x_BTD = classifier.encoder.run(x_BTD, seen_BT, stop=classifier.first)
    F.cross_entropy(classifier(x_BTD, seen_BT), torch.tensor([0, 1, 2])).backward()
    reached = {name for name, parameter in classifier.named_parameters() if parameter.grad is not None}
    assert all("mixture" in name or name.startswith("head.") for name in reached)
    assert {name for name, parameter in classifier.named_parameters() if parameter.requires_grad} == reached
    assert all(classifier.get_parameter(name).grad.any() for name in reached)  # type: ignore[union-attr]
    assert len(classifier.banks) == 2


def test_padding_changes_nothing() -> None:
    torch.manual_seed(0)
    classifier = Classifier(MiniLM.pretrained(), Recipe(("blocks.10.value", *LAST)), 3).eval()
    for bank in classifier.banks.values():
        bank.mixture.experts.up_ERF.data.normal_(std=0.01)  # type: ignore[union-attr, operator]
    ids = [read_tokens(text, WINDOW)[0] for text in TEXTS]

    def scores(rows: list[list[int]]) -> torch.Tensor:
        x_BTD, seen_BT = classifier.encoder.embed(rows)
        result: torch.Tensor = classifier(classifier.encoder.run(x_BTD, seen_BT, stop=classifier.first), seen_BT)
        return result

    torch.testing.assert_close(scores(ids), torch.cat([scores([row]) for row in ids]), rtol=1e-4, atol=1e-4)


def test_layers_need_a_blocks_number() -> None:
    assert lowest_block(Recipe(("blocks.11.widen", "blocks.8.query"))) == 8
    with pytest.raises(ModelError, match=r"as blocks\.11\.widen does"):
        lowest_block(Recipe(("widen",)))
