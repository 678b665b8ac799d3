from pathlib import Path

import numpy as np
import pytest
import torch

from mofme.core.weights import load_card
from mofme.errors import ModelError
from mofme.language.minilm import MiniLM
from mofme.papers.mixture_of_routers.lora import LAST, SINGLE, Classifier, Recipe
from mofme.papers.mixture_of_routers.model import (
    LoraMixture,
    agreement,
    divergence,
    save_adapters,
)

LABELS = ("animal", "number", "weather")
TEXT = "Will it rain on three cats?"


def classifier_of(recipe: Recipe, classes: int = 3) -> Classifier:
    torch.manual_seed(0)
    classifier = Classifier(MiniLM.pretrained(), recipe, classes)
    for bank in classifier.banks.values():
        bank.mixture.experts.up_ERF.data.normal_(std=0.02)  # type: ignore[union-attr, operator]
        for parameter in bank.mixture.router.parameters():
            parameter.data.normal_(std=0.3)
    return classifier


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[Classifier, Path]:
    folder = tmp_path_factory.mktemp("models") / "mine"
    recipe = Recipe((*LAST, "blocks.10.query"))
    classifier = classifier_of(recipe)
    save_adapters(folder, classifier, recipe, LABELS, "CC0", {"steps": 3}, {"accuracy": 0.5})
    return classifier, folder


def test_it_loads_back_to_the_same_answer(saved: tuple[Classifier, Path]) -> None:
    classifier, folder = saved
    for parameter in classifier.parameters():  # adapters are stored in half precision, the encoder is not stored
        if parameter.requires_grad:
            parameter.data = parameter.data.half().float()
    expected = LoraMixture(classifier, LABELS).explain(TEXT)
    opened = LoraMixture.from_pretrained(str(folder))
    assert opened.labels == LABELS and opened.name == "mine"
    explained = opened.explain(TEXT)
    np.testing.assert_array_equal(explained.probabilities_C, expected.probabilities_C)
    np.testing.assert_array_equal(opened.classify(TEXT), expected.probabilities_C)
    np.testing.assert_array_equal(explained.layers[1].weights_TE, expected.layers[1].weights_TE)


def test_adapters_of_another_router_classify_though_there_is_no_mixture_to_explain() -> None:
    model = LoraMixture(classifier_of(Recipe(LAST, router=SINGLE)), LABELS)
    assert model.classify(TEXT).sum() == pytest.approx(1)
    with pytest.raises(ModelError, match="no mixture of routers"):
        model.explain(TEXT)


def test_only_what_was_added_is_stored(saved: tuple[Classifier, Path]) -> None:
    card = load_card(saved[1])
    trained = sum(parameter.numel() for parameter in saved[0].parameters() if parameter.requires_grad)
    assert card.parameters == trained
    assert (saved[1] / "model.safetensors").stat().st_size < 2 * trained + 5000
    assert "all-MiniLM-L6-v2" in card.arguments["base"]
    assert card.training == {"steps": 3}


def test_what_it_explains(saved: tuple[Classifier, Path]) -> None:
    explained = LoraMixture(saved[0], LABELS).explain(TEXT)
    assert explained.tokens == ("[CLS]", "will", "it", "rain", "on", "three", "cats", "?", "[SEP]")
    assert [layer.name for layer in explained.layers] == ["layer 6, query", "layer 6, widen", "layer 6, narrow"]
    assert explained.answer in LABELS
    assert explained.probabilities_C.sum() == pytest.approx(1)
    for layer in explained.layers:
        assert layer.weights_STE.shape == (2, 9, 8) and layer.shares_TS.shape == (9, 2)
        np.testing.assert_allclose(layer.weights_STE.sum(-1), 1, atol=1e-6)
        np.testing.assert_allclose(layer.shares_TS.sum(-1), 1, atol=1e-6)
        # The paper's sum, and of it the two largest, scaled.
        mixed_TE = np.einsum("ts,ste->te", layer.shares_TS, layer.weights_STE)
        np.testing.assert_allclose(layer.mixed_TE, mixed_TE, atol=1e-6)
        for mixed_E, weights_E in zip(mixed_TE, layer.weights_TE, strict=True):
            two = np.sort(mixed_E.argsort()[-2:])
            assert np.flatnonzero(weights_E).tolist() == two.tolist()
            np.testing.assert_allclose(weights_E[two], mixed_E[two] / mixed_E[two].sum(), atol=1e-6)
        assert 0 <= layer.agreement <= 1 and 0 < layer.divergence < 1


def test_agreement_and_divergence_by_hand() -> None:
    # Two sub-routers, two tokens: the same votes on the first; all for another expert on the second. Jensen-Shannon is
    # 0 and log 2, their mean over log 2 a half.
    votes_STE = torch.tensor([[[0.75, 0.25], [1, 0]], [[0.75, 0.25], [0, 1]]])
    assert agreement(votes_STE) == 0.5
    assert divergence(votes_STE) == pytest.approx(0.5)
    assert (agreement(votes_STE[:1]), divergence(votes_STE[:1])) == (1, 0)
