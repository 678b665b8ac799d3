from pathlib import Path

import pytest
import torch

from mofme.core.routers import AttentionRouter
from mofme.errors import ModelError
from mofme.language.small_lm import Shape, SmallLM, Vocabulary, load_lm, save_lm
from mofme.language.small_lm_training import score_passages
from mofme.papers.attention_router.models import ROUTERS, SHIPPED, explain, listening, load_entropy

TEXT = "The cat sat on the mat. " * 20
VOCABULARY = Vocabulary.learn([TEXT], 280)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    for router in ROUTERS:
        shape = Shape(vocabulary=280, dim=16, layers=2, heads=2, hidden=8, router=router, experts=4)
        save_lm(folder / router, SmallLM(shape), VOCABULARY, "free", {}, {})
    return folder


def test_every_router_tells_what_it_does_with_every_token(models: Path) -> None:
    told = explain("The cat sat.", models)
    tokens = len(told.tokens)
    assert "".join(told.tokens) == "The cat sat."
    assert set(told.routers) == set(ROUTERS)
    for router, one in told.routers.items():
        assert one.weights_LTE.shape == (2, tokens, 4)
        assert ((one.weights_LTE != 0).sum(-1) == 2).all()
        torch.testing.assert_close(one.load_LE.sum(-1), torch.ones(2))
        assert all(0 <= entropy <= 1 for entropy in one.entropy_L)
        assert one.nats_T.shape == (tokens - 1,)
        model, vocabulary = load_lm(models / router)
        expected = score_passages(model, torch.tensor([vocabulary.encode("The cat sat.")]))
        assert one.nats_T.sum().item() == pytest.approx(expected.nats_W.item(), rel=1e-4)
    assert told.routers["linear"].attention_LEE is None
    attention = told.routers["attention"].attention_LEE
    assert attention is not None and attention.shape == (2, 4, 4)
    torch.testing.assert_close(attention.sum(-1), torch.ones(2, 4))


def test_what_an_expert_listens_to_makes_its_score() -> None:
    """The router's own scores are these rows times the values, token by token."""
    torch.manual_seed(0)
    router, x_TD = AttentionRouter(dim=6, num_experts=5), torch.randn(3, 6)
    with torch.no_grad():
        logits_TE = router.logits(x_TD)
        value_TE = router.query_key_value(x_TD)[:, 10:]
        for token in range(3):
            rows_EE = listening(router, x_TD[token : token + 1])
            torch.testing.assert_close(rows_EE @ value_TE[token], logits_TE[token])
        each = torch.stack([listening(router, x_TD[token : token + 1]) for token in range(3)])
        torch.testing.assert_close(listening(router, x_TD), each.mean(0))


def test_load_entropy_by_hand() -> None:
    # Shares of all choices: 1/2, 1/4, 1/4, 0: entropy (1/2) ln 2 + 2 (1/4) ln 4 = 1.5 ln 2, over ln 4 = 2 ln 2: 0.75.
    chosen_TE = torch.tensor([[1, 1, 0, 0], [1, 0, 1, 0]], dtype=torch.bool)
    assert load_entropy(chosen_TE) == pytest.approx(0.75)
    assert load_entropy(torch.eye(4, dtype=torch.bool)) == pytest.approx(1)
    assert load_entropy(torch.tensor([[True, False]])) == 0


def test_long_texts_are_cut_and_short_ones_refused(models: Path) -> None:
    assert len(explain(TEXT, models, most=7).tokens) == 7
    with pytest.raises(ModelError, match="two tokens"):
        explain("", models)
    with pytest.raises(ModelError, match="linear"):
        explain("The cat sat.", models / "missing")


@pytest.mark.skipif(not SHIPPED.is_dir(), reason="no models are shipped")
def test_the_shipped_models_are_small_and_alike() -> None:
    told = explain("Natalia sold clips to 48 of her friends in April.")
    assert set(told.routers) == set(ROUTERS)
    assert sum(path.stat().st_size for path in SHIPPED.rglob("*") if path.is_file()) < 3e6
    # Better than guessing among 512 tokens, ln 512 = 6.24.
    assert all(one.nats_T.mean() < 5 for one in told.routers.values())
