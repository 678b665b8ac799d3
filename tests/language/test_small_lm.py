import math
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from mofme.core.weights import ModelCard, save_model
from mofme.errors import Cancelled, ModelError, TableError
from mofme.files import CARD_FILE
from mofme.language.small_lm import (
    VOCABULARY_FILE,
    Block,
    KeysAndValues,
    Shape,
    SmallLM,
    Vocabulary,
    _turns,
    generate,
    load_lm,
    save_lm,
)
from mofme.language.small_lm_training import Plan, draw_windows, learned_parts, make_corpus, score_passages, train

TINY = {"vocabulary": 11, "dim": 8, "layers": 2, "heads": 2, "hidden": 6}
ROUTERS = ("dense", "linear", "mlp", "attention", "mixture", "uncertainty")
SHAPE = Shape(vocabulary=260, dim=8, layers=1, heads=2, hidden=8, router="attention", experts=3)
VOCABULARY = Vocabulary.learn(["the cat and the hat"], 260)


def tiny(router: str = "linear", seed: int = 0) -> SmallLM:
    return SmallLM(Shape(**TINY, router=router, experts=4), seed).eval()  # type: ignore[arg-type]


def ids(*shape: int) -> Tensor:
    return torch.randint(11, shape, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("router", ROUTERS)
def test_no_token_sees_those_after_it_all_at_once_or_one_by_one(router: str) -> None:
    model, ids_BT, past = tiny(router), ids(2, 9), KeysAndValues()
    changed_BT = ids_BT.clone()
    changed_BT[:, 6:] = (changed_BT[:, 6:] + 1) % 11
    with torch.no_grad():
        before, after = model(ids_BT), model(changed_BT)
        parts = [model(part_BT, past) for part_BT in ids_BT.split([4, 1, 3, 1], dim=1)]
    torch.testing.assert_close(before[:, :6], after[:, :6])
    assert not torch.allclose(before[:, 6:], after[:, 6:])
    torch.testing.assert_close(torch.cat(parts, dim=1), before, atol=1e-5, rtol=1e-4)
    assert len(past) == 9


def test_attention_is_the_textbooks_with_turned_keys_and_queries() -> None:
    """In double precision, over complex numbers: feature i + features/2 is the imaginary part of i."""
    block = tiny("dense").double().blocks[0]
    assert isinstance(block, Block)
    x_TD = torch.randn(5, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    angles_T2 = torch.arange(5.0)[:, None].double() * torch.tensor([1, 10_000**-0.5])  # base^(-1/2) for 4 features
    turns_T12 = torch.polar(torch.ones_like(angles_T2), angles_T2)[:, None]
    with torch.no_grad():
        got = block._attend(x_TD[None], _turns(0, 5, 4, x_TD), None)[0]
        query, key, value = block.query_key_value(x_TD).view(5, 3, 2, 4).unbind(1)
        query, key = (torch.complex(x[..., :2], x[..., 2:]) * turns_T12 for x in (query, key))
        scores_HTS = torch.einsum("thk,shk->hts", query, key.conj()).real / 2
        unseen_TS = torch.ones(5, 5).triu(1).bool()
        weights_HTS = scores_HTS.masked_fill(unseen_TS, -torch.inf).softmax(-1)
        expected = block.attention_out(torch.einsum("hts,shk->thk", weights_HTS, value).flatten(1))
    torch.testing.assert_close(got, expected, atol=1e-6, rtol=1e-6)


def test_models_that_differ_in_their_router_start_alike_in_all_else() -> None:
    linear, attention = tiny("linear").state_dict(), tiny("attention").state_dict()
    shared = [name for name in linear if ".router." not in name]
    assert len(shared) == len([name for name in attention if ".router." not in name]) > 10
    for name in shared:
        torch.testing.assert_close(linear[name], attention[name], atol=0, rtol=0)


def test_what_is_written_is_drawn_as_if_all_were_read_anew() -> None:
    model, text, generator = tiny("mlp"), ids(2, 4), torch.Generator().manual_seed(0)
    written = generate(model, text, 5, torch.Generator().manual_seed(0))
    for _ in range(5):
        next_B1 = torch.multinomial(model(text)[:, -1].softmax(-1), 1, generator=generator)
        text = torch.cat([text, next_B1], dim=1)
    assert written.tolist() == text[:, 4:].tolist()


def test_impossible_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="router is one of dense"):
        Shape(router="magic")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="even number"):
        Shape(dim=12, heads=4)


@given(st.text())
def test_every_text_can_be_told(text: str) -> None:
    assert VOCABULARY.decode(VOCABULARY.encode(text)) == text


def test_a_vocabulary_holds_all_bytes_and_what_comes_often() -> None:
    # Pairs of bytes by count: "th" and "he" twice each, "at" twice; four merges at most on top of 256 bytes.
    assert len(VOCABULARY) == 260 and len(VOCABULARY.encode(" the")) < 4
    vocabulary = Vocabulary.learn(["the cat \ud83d"], 256)
    assert vocabulary.encode("a\ud83d") == vocabulary.encode("a?")
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


CYCLIC = Shape(vocabulary=7, dim=16, layers=1, heads=2, hidden=16, experts=4)
CYCLE = torch.arange(2000) % 7
PLAN = Plan(steps=60, batch=4, context=12, warm_up=5)


def test_it_learns_what_can_be_learned_and_reports_on_the_way() -> None:
    model, told = SmallLM(CYCLIC), []
    losses = train(model, CYCLE, PLAN, lambda step, steps, loss: told.append((step, steps)))
    # The token after each is certain: from about ln 7 towards 0.
    assert losses[0] > 1 and losses[-1] < 0.5
    assert told == [(50, 60), (60, 60)]
    score = score_passages(model, CYCLE.unfold(0, 13, 12)[:5])
    assert score.nats < 0.5 and len(score.nats_W) == 5
    assert not model.training


def test_the_same_seed_trains_the_same_model_and_can_be_stopped() -> None:
    first, second, balanced = (
        train(SmallLM(CYCLIC), CYCLE, Plan(steps=3, batch=2, context=8, balance=weight)) for weight in (0.0, 0.0, 1.0)
    )
    # The loss that is reported is the text's alone, with or without the term that keeps experts busy.
    assert first == second and first[0] == pytest.approx(balanced[0])
    with pytest.raises(Cancelled):
        train(SmallLM(CYCLIC), CYCLE, PLAN, stopped=lambda: True)


def test_windows_come_from_everywhere_and_hold_what_follows() -> None:
    windows = draw_windows(torch.arange(10), Plan(batch=200, context=4), torch.Generator().manual_seed(0))
    assert windows.shape == (200, 5)
    assert (windows.diff(dim=1) == 1).all()
    assert set(windows[:, 0].tolist()) == set(range(6))  # the last window, 5 to 9, is reached


def test_a_model_that_knows_nothing_scores_the_logarithm_of_the_vocabulary() -> None:
    model = SmallLM(CYCLIC)
    torch.nn.init.zeros_(model.embedding.weight)
    score = score_passages(model, CYCLE.unfold(0, 13, 12)[:40], batch=16)
    assert score.nats == pytest.approx(math.log(7))
    assert score.tokens_W.tolist() == [12.0] * 40


def test_what_is_measured_is_learned_by_nobody() -> None:
    texts = {"numbers": " ".join(map(str, range(3000)))}
    vocabulary = Vocabulary.learn(learned_parts(list(texts.values())), 300)
    corpus = make_corpus(texts, vocabulary, context=16, passages=5)
    assert corpus.held_back["numbers"].shape == (5, 17)
    learned = vocabulary.decode(corpus.learned_N.tolist())
    assert texts["numbers"].startswith(learned)
    assert all(vocabulary.decode(passage.tolist()) not in learned for passage in corpus.held_back["numbers"])
    assert learned_parts(["x" * 100]) == ["x" * 85]
    with pytest.raises(TableError, match="little is too short"):
        make_corpus({"little": "abc" * 40}, vocabulary, context=16, passages=5)
