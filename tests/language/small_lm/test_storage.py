from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mofme.core.weights import ModelCard, save_model
from mofme.errors import ModelError
from mofme.files import CARD_FILE
from mofme.language.small_lm.model import Shape, SmallLM
from mofme.language.small_lm.storage import load_lm, save_lm
from mofme.language.small_lm.vocabulary import VOCABULARY_FILE, Vocabulary

SHAPE = Shape(vocabulary=260, dim=8, layers=1, heads=2, hidden=8, router="attention", experts=3)
VOCABULARY = Vocabulary.learn(["the cat and the hat"], 260)


@given(st.text())
def test_every_text_can_be_told(text: str) -> None:
    assert VOCABULARY.decode(VOCABULARY.encode(text)) == text


def test_what_comes_often_becomes_one_token() -> None:
    # Pairs of bytes by count: "th" and "he" twice each, "at" twice; four merges at most on top of 256 bytes.
    assert len(VOCABULARY) == 260
    assert len(VOCABULARY.encode(" the")) < 4


def test_a_vocabulary_holds_all_bytes() -> None:
    with pytest.raises(ValueError, match="256 bytes"):
        Vocabulary.learn(["abc"], 100)


def test_a_saved_model_says_the_same(tmp_path: Path) -> None:
    model, ids_BT = SmallLM(SHAPE).eval(), torch.tensor([[1, 2, 3]])
    card = save_lm(tmp_path / "one", model, VOCABULARY, "free", {"steps": 1}, {"nats": 2.0})
    loaded, vocabulary = load_lm(tmp_path / "one")
    torch.testing.assert_close(loaded(ids_BT), model(ids_BT), atol=2e-2, rtol=2e-2)  # half precision
    assert vocabulary.encode("the hat") == VOCABULARY.encode("the hat")
    assert card.parameters == sum(parameter.numel() for parameter in model.parameters())


def test_what_is_missing_or_of_another_kind_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "one"
    save_lm(folder, SmallLM(SHAPE), VOCABULARY, "free", {}, {})
    (folder / VOCABULARY_FILE).write_text("{")
    with pytest.raises(ModelError, match=VOCABULARY_FILE):
        load_lm(folder)
    card = folder / CARD_FILE
    card.write_text(card.read_text().replace('"hidden": 8', '"hidden": 9'))
    with pytest.raises(ModelError, match="does not hold"):
        load_lm(folder)
    save_model(folder, ModelCard("x", "restoration", {}, "free"), {"a": torch.zeros(1)})
    with pytest.raises(ModelError, match="another kind"):
        load_lm(folder)
