import numpy as np
import pytest
import torch

from mofme.language.minilm import BLOCKS, MiniLM, model_folder, read_tokens
from tests.language.prompts import PROMPTS

IDS = [read_tokens(prompt, 256, last=128)[0] for prompt in PROMPTS]


@pytest.fixture(scope="module")
def encoder() -> MiniLM:
    return MiniLM.pretrained()


def by_transformers(prompts: list[str]) -> np.ndarray:
    """What sentence-transformers does: mean of the last layer over the tokens that are no padding, length 1."""
    from transformers import AutoTokenizer, BertModel

    tokenizer = AutoTokenizer.from_pretrained(model_folder())
    net = BertModel.from_pretrained(model_folder()).eval()
    tokens = tokenizer(prompts, padding=True, truncation=True, max_length=256, return_tensors="pt")
    with torch.no_grad():
        x_BTD = net(**tokens).last_hidden_state
    seen_BT1 = tokens["attention_mask"][:, :, None]
    mean_BD = (x_BTD * seen_BT1).sum(1) / seen_BT1.sum(1)
    return torch.nn.functional.normalize(mean_BD, dim=1).numpy()


def test_it_is_what_transformers_makes_of_it(encoder: MiniLM) -> None:
    expected = by_transformers(PROMPTS[:5])
    np.testing.assert_allclose(encoder.sentence_embeddings(IDS[:5]), expected, atol=2e-6)


def test_the_fast_way_keeps_the_neighbours(encoder: MiniLM) -> None:
    fast = MiniLM.pretrained()
    fast.blocks.to(torch.bfloat16)
    a_BD, b_BD = encoder.sentence_embeddings(IDS), fast.sentence_embeddings(IDS)
    assert float((a_BD * b_BD).sum(1).min()) > 0.9995
    assert (a_BD @ a_BD.T).argsort(1).equal((b_BD @ b_BD.T).argsort(1))


def test_what_was_kept_halfway_goes_on_to_the_same_end(encoder: MiniLM) -> None:
    x_BTD, seen_BT = encoder.embed([read_tokens(text, 16)[0] for text in PROMPTS[:2]])
    whole_BTD = encoder.run(x_BTD, seen_BT)
    for first in (0, 5, BLOCKS):
        halfway_BTD = encoder.run(x_BTD, seen_BT, stop=first)
        assert torch.equal(encoder.run(halfway_BTD, seen_BT, first), whole_BTD)


def test_of_long_texts_the_beginning_or_both_ends_are_seen() -> None:
    text = "First this" + " and so on" * 300 + " at last that?"
    ids, tokens = read_tokens(text, 32)
    assert len(ids) == len(tokens) == 32
    assert tokens[:4] == ["[CLS]", "first", "this", "and"] and tokens[-2:] == ["and", "[SEP]"]
    ids, tokens = read_tokens(text, 256, last=128)
    assert len(ids) == len(tokens) == 256
    assert tokens[:3] == ["[CLS]", "first", "this"] and tokens[-4:] == ["last", "that", "?", "[SEP]"]


def test_half_a_surrogate_pair_is_read_as_a_question_mark() -> None:
    # What a command line or a JSON file may hold.
    assert read_tokens("\ud800 hello", 32) == read_tokens("? hello", 32)
