import pytest
import torch
from torch.nn import functional as F

from mofme.errors import ModelError
from mofme.language.llm_routing.minilm import DIM, MiniLM
from mofme.language.lora_mixture.bank import Recipe
from mofme.language.lora_mixture.classifier import LAST, Classifier, lowest_block
from mofme.language.lora_mixture.encoder import BLOCKS, WINDOW, Encoder, read_tokens

TEXTS = ["What is the capital of France?", "hi", "Write a function that reverses a linked list, please."]


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return Encoder.pretrained()


def test_it_is_the_encoder_that_embeds_prompts(encoder: Encoder) -> None:
    exact = MiniLM(torch.float32)
    ids = [read_tokens(text)[0] for text in TEXTS]
    assert ids == [exact.tokens(text) for text in TEXTS]
    x_BTD, seen_BT = encoder.embed(ids)
    mean_BD = (encoder.run(x_BTD, seen_BT) * seen_BT[:, :, None]).sum(1)
    torch.testing.assert_close(F.normalize(mean_BD, dim=1), exact.embed_tokens(ids), rtol=0, atol=2e-6)


def test_what_was_kept_halfway_goes_on_to_the_same_end(encoder: Encoder) -> None:
    x_BTD, seen_BT = encoder.embed([read_tokens(text)[0] for text in TEXTS])
    for first in range(BLOCKS + 1):
        halfway_BTD = encoder.run(x_BTD, seen_BT, stop=first)
        assert torch.equal(encoder.run(halfway_BTD, seen_BT, first), encoder.run(x_BTD, seen_BT))


def test_long_texts_are_cut() -> None:
    ids, tokens = read_tokens("and so on " * 100)
    assert len(ids) == len(tokens) == WINDOW
    assert tokens[:3] == ["[CLS]", "and", "so"] and tokens[-1] == "[SEP]"


@pytest.mark.parametrize("wrapped", [LAST, ("blocks.10.query", "blocks.10.value")])
def test_gradients_reach_the_banks_and_nothing_else(wrapped: tuple[str, ...]) -> None:
    torch.manual_seed(0)
    classifier = Classifier(Encoder.pretrained(), Recipe(wrapped), 3)
    for bank in classifier.banks.values():
        bank.mixture.experts.up_ERF.data.normal_(std=0.01)  # type: ignore[union-attr, operator]
    x_BTD, seen_BT = classifier.encoder.embed([read_tokens(text)[0] for text in TEXTS])
    x_BTD = classifier.encoder.run(x_BTD, seen_BT, stop=classifier.first)
    F.cross_entropy(classifier(x_BTD, seen_BT), torch.tensor([0, 1, 2])).backward()
    reached = {name for name, parameter in classifier.named_parameters() if parameter.grad is not None}
    assert all("mixture" in name or name.startswith("head.") for name in reached)
    assert {name for name, parameter in classifier.named_parameters() if parameter.requires_grad} == reached
    assert all(classifier.get_parameter(name).grad.any() for name in reached)  # type: ignore[union-attr]
    assert len(classifier.banks) == 2


def test_padding_changes_nothing() -> None:
    torch.manual_seed(0)
    classifier = Classifier(Encoder.pretrained(), Recipe(("blocks.10.value", *LAST)), 3).eval()
    for bank in classifier.banks.values():
        bank.mixture.experts.up_ERF.data.normal_(std=0.01)  # type: ignore[union-attr, operator]
    ids = [read_tokens(text)[0] for text in TEXTS]

    def scores(rows: list[list[int]]) -> torch.Tensor:
        x_BTD, seen_BT = classifier.encoder.embed(rows)
        result: torch.Tensor = classifier(classifier.encoder.run(x_BTD, seen_BT, stop=classifier.first), seen_BT)
        return result

    torch.testing.assert_close(scores(ids), torch.cat([scores([row]) for row in ids]), rtol=1e-4, atol=1e-4)


def test_layers_need_a_blocks_number() -> None:
    assert lowest_block(Recipe(("blocks.11.widen", "blocks.8.query"))) == 8
    with pytest.raises(ModelError, match=r"as blocks\.11\.widen does"):
        lowest_block(Recipe(("widen",)))


def test_hidden_states_have_the_encoders_size(encoder: Encoder) -> None:
    x_BTD, seen_BT = encoder.embed([[101, 102], [101, 7592, 102]])
    assert x_BTD.shape == (2, 3, DIM)
    assert seen_BT.tolist() == [[True, True, False], [True, True, True]]
