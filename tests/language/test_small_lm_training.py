import math

import pytest
import torch

from mofme.errors import Cancelled, TableError
from mofme.language.small_lm import Shape, SmallLM, Vocabulary
from mofme.language.small_lm_training import Plan, draw_windows, learned_parts, make_corpus, score_passages, train

SHAPE = Shape(vocabulary=7, dim=16, layers=1, heads=2, hidden=16, experts=4)
CYCLE = torch.arange(2000) % 7
PLAN = Plan(steps=60, batch=4, context=12, warm_up=5)


def test_it_learns_what_can_be_learned_and_reports_on_the_way() -> None:
    model, told = SmallLM(SHAPE), []
    losses = train(model, CYCLE, PLAN, lambda step, steps, loss: told.append((step, steps)))
    # The token after each is certain: from about ln 7 towards 0.
    assert losses[0] > 1 and losses[-1] < 0.5
    assert told == [(50, 60), (60, 60)]
    score = score_passages(model, CYCLE.unfold(0, 13, 12)[:5])
    assert score.nats < 0.5 and len(score.nats_W) == 5
    assert not model.training


def test_the_same_seed_trains_the_same_model() -> None:
    first, second = (train(SmallLM(SHAPE), CYCLE, Plan(steps=5, batch=2, context=8)) for _ in range(2))
    assert first == second


def test_balance_keeps_experts_busy() -> None:
    """The loss that is reported is the text's alone, with or without the term."""
    plain, balanced = (
        train(SmallLM(SHAPE), CYCLE, Plan(steps=1, batch=2, context=8, balance=weight)) for weight in (0.0, 1.0)
    )
    assert plain == pytest.approx(balanced)


def test_it_can_be_stopped() -> None:
    with pytest.raises(Cancelled):
        train(SmallLM(SHAPE), CYCLE, PLAN, stopped=lambda: True)


def test_windows_come_from_everywhere_and_hold_what_follows() -> None:
    windows = draw_windows(torch.arange(10), Plan(batch=200, context=4), torch.Generator().manual_seed(0))
    assert windows.shape == (200, 5)
    assert (windows.diff(dim=1) == 1).all()
    assert set(windows[:, 0].tolist()) == set(range(6))  # the last window, 5 to 9, is reached


def test_a_model_that_knows_nothing_scores_the_logarithm_of_the_vocabulary() -> None:
    model = SmallLM(SHAPE)
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


def test_a_short_text_is_told_by_name() -> None:
    with pytest.raises(TableError, match="little is too short"):
        make_corpus({"little": "abc" * 40}, Vocabulary.learn(["abc"], 256), context=16, passages=5)
