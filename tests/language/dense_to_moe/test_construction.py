from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from torch import Tensor

from mofme.core.gated_experts import GatedFeedForwardExperts
from mofme.core.moe import activated_parameters, parameters
from mofme.errors import ModelError
from mofme.language.dense_to_moe import construction
from mofme.language.dense_to_moe.construction import convert, drawn_passages
from mofme.language.dense_to_moe.converted_layer import ConvertedLayer, Recipe, converted_layers
from mofme.language.dense_to_moe.cost import active_experts, budget, seconds
from mofme.language.dense_to_moe.policy import Policy
from mofme.language.dense_to_moe.profile import Candidate, choose
from mofme.language.pretrained import PretrainedLM, after_attention, decoder_layers, dense_weights, embed

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Make = Callable[..., PretrainedLM]
RECIPE = Recipe(experts=4, active=3, tokens=1024, learning_rate=3e-3)


def some_ids(count: int = 2048) -> list[int]:
    """Tokens with some order in them, so that there is something to learn."""
    random = np.random.default_rng(0)
    return [int(i) for i in (np.cumsum(random.integers(0, 3, count)) % 60) + 1]


def logits(model: PreTrainedModel, ids: list[int]) -> Tensor:
    with torch.no_grad():
        return model(input_ids=torch.tensor([ids])).logits


def test_walking_through_the_layers_is_the_models_own_forward(tiny_pretrained: Make) -> None:
    model = tiny_pretrained().model
    ids = torch.tensor([some_ids(20), some_ids(40)[20:]])
    hidden = embed(model, ids)
    expected = model(input_ids=ids, output_hidden_states=True).hidden_states
    for number, layer in enumerate(decoder_layers(model)):
        torch.testing.assert_close(hidden, expected[number])
        residual = after_attention(model, layer, hidden)
        hidden = residual + layer.mlp(layer.post_attention_layernorm(residual))
    torch.testing.assert_close(model.model.norm(hidden), expected[-1])


@pytest.mark.parametrize("split", ["activation", "co-activation", "random", "importance"])
def test_cut_and_untrained_with_all_experts_it_is_the_dense_model(tiny_pretrained: Make, split: str) -> None:
    lm = tiny_pretrained()
    dense = logits(lm.model, some_ids(30))
    for layer in decoder_layers(lm.model):
        weights = dense_weights(layer.mlp)
        layer.mlp = ConvertedLayer.cut(weights, torch.randperm(48), Recipe(experts=4, active=2, split=split))  # type: ignore[arg-type]
    for moe in converted_layers(lm.model):
        moe.router.policy = Policy("dense")
    torch.testing.assert_close(logits(lm.model, some_ids(30)), dense, rtol=1e-3, atol=1e-4)


def error_against_dense(lm: PretrainedLM, dense: PretrainedLM) -> float:
    """Squared error of the first layer's feed-forward on what reaches it."""
    ids = torch.tensor([some_ids(256)])
    layer, original = decoder_layers(lm.model)[0], decoder_layers(dense.model)[0]
    x = original.post_attention_layernorm(after_attention(dense.model, original, embed(dense.model, ids)))
    with torch.no_grad():
        return float((layer.mlp(x) - original.mlp(x)).square().mean())


def test_learning_brings_a_layer_closer_to_the_dense_one(
    tiny_pretrained: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(construction, "settle", lambda *_: None)
    errors = {}
    for rate in (1e-9, 3e-3):
        lm = tiny_pretrained()
        recipe = Recipe(experts=4, active=2, tokens=8192, learning_rate=rate)
        convert(lm.model, some_ids(8192), recipe, tmp_path / str(rate))
        errors[rate] = error_against_dense(lm, tiny_pretrained())
    assert errors[3e-3] < 0.97 * errors[1e-9]


def test_settling_brings_it_closer_still(
    tiny_pretrained: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    errors = []
    recipe = Recipe(experts=4, active=2, tokens=8192)
    for name, settles in (("unsettled", lambda *_: None), ("settled", construction.settle)):
        monkeypatch.setattr(construction, "settle", settles)
        lm = tiny_pretrained()
        convert(lm.model, some_ids(8192), recipe, tmp_path / name)
        errors.append(error_against_dense(lm, tiny_pretrained()))
    assert errors[1] < 0.97 * errors[0]


def test_stopped_and_started_again_it_ends_the_same(
    tiny_pretrained: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, parted = tiny_pretrained(), tiny_pretrained()
    profiles = convert(whole.model, some_ids(), RECIPE, tmp_path / "whole")
    after, calls = construction._after_feed_forward, 0

    def stops(layer: construction.DecoderLayer, residual: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        if calls == 2:  # in the second layer's last step
            raise KeyboardInterrupt
        return after(layer, residual)

    with monkeypatch.context() as patch:
        patch.setattr(construction, "_after_feed_forward", stops)
        with pytest.raises(KeyboardInterrupt):
            convert(parted.model, some_ids(), RECIPE, tmp_path / "parted")
    again = tiny_pretrained()
    told: list[tuple[int, int]] = []
    done = convert(again.model, some_ids(), RECIPE, tmp_path / "parted", lambda *parts: told.append(parts))
    assert told == [(0, 3), (1, 3), (2, 3), (3, 3)]
    assert done == profiles
    torch.testing.assert_close(again.model.state_dict(), whole.model.state_dict(), rtol=0, atol=0)
    assert {path.suffix for path in (tmp_path / "parted").iterdir()} == {".json", ".safetensors"}
    finished = tiny_pretrained()
    assert convert(finished.model, some_ids(), RECIPE, tmp_path / "parted") == profiles
    torch.testing.assert_close(finished.model.state_dict(), whole.model.state_dict(), rtol=0, atol=0)


def test_another_recipe_text_or_model_wants_another_folder(tiny_pretrained: Make, tmp_path: Path) -> None:
    convert(tiny_pretrained(layers=1).model, some_ids(), RECIPE, tmp_path)
    with pytest.raises(ModelError, match="another active, learning_rate: take another folder"):
        convert(tiny_pretrained(layers=1).model, some_ids(), Recipe(experts=4, active=2, tokens=1024), tmp_path)
    with pytest.raises(ModelError, match="another text: take another folder"):
        convert(tiny_pretrained(layers=1).model, some_ids()[1:], RECIPE, tmp_path)
    other = tiny_pretrained(layers=1).model
    with torch.no_grad():
        other.model.layers[0].mlp.up_proj.weight[0, 0] += 1
    with pytest.raises(ModelError, match="another model: take another folder"):
        convert(other, some_ids(), RECIPE, tmp_path)


def test_later_layers_learn_from_what_converted_ones_pass_on(
    tiny_pretrained: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Tensor] = []
    through = construction.after_attention

    def records(model: PreTrainedModel, layer: construction.DecoderLayer, hidden: Tensor) -> Tensor:
        seen.append(hidden)
        return through(model, layer, hidden)

    monkeypatch.setattr(construction, "after_attention", records)
    monkeypatch.setattr(construction, "quick_products", contextlib.nullcontext)  # the model itself does not round
    lm = tiny_pretrained(layers=2)
    convert(lm.model, some_ids(), RECIPE, tmp_path)
    passages = drawn_passages(some_ids(), 1024, 0)
    expected = lm.model(input_ids=passages, output_hidden_states=True).hidden_states[1]
    torch.testing.assert_close(torch.cat(seen[len(seen) // 2 :]), expected, rtol=1e-3, atol=1e-4)


def test_an_untrained_conversion_keeps_every_weight(tiny_pretrained: Make, tmp_path: Path) -> None:
    lm, dense = tiny_pretrained(layers=1), tiny_pretrained(layers=1)
    convert(lm.model, some_ids(), Recipe(experts=4, active=3, shared=8, tokens=1024, learned=False), tmp_path)
    experts = converted_layers(lm.model)[0].experts
    assert isinstance(experts, GatedFeedForwardExperts)
    assert experts.shared == 8
    gate = dense_weights(decoder_layers(dense.model)[0].mlp)[0]
    assert sorted(map(tuple, experts.gate_ND.tolist())) == sorted(map(tuple, gate.tolist()))


def test_passages_are_drawn_once_each() -> None:
    passages = drawn_passages(list(range(2560)), 1100, seed=1)
    assert passages.shape == (4, 256)
    starts = passages[:, 0].tolist()
    assert len(set(starts)) == 4
    assert all(start % 256 == 0 for start in starts)
    assert (passages - passages[:, :1] == torch.arange(256)).all()


@pytest.mark.parametrize("tokens", [(300, 10_000), (10_000, 300)])
def test_too_little_text_is_said(tokens: tuple[int, int]) -> None:
    with pytest.raises(ModelError, match="300 are too few"):
        drawn_passages(list(range(tokens[0])), tokens[1], 0)


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        (Recipe(experts=5), "48 neurons less 0 shared ones cannot be divided evenly among 5 experts"),
        (Recipe(experts=4, active=5), "5 of 4 experts cannot be active"),
        (Recipe(experts=4, active=3, shared=48), "48 neurons less 48 shared"),
        (Recipe(experts=4, active=3, router="uncertainty"), "'uncertainty': choose of linear, mlp, attention, mixture"),
    ],
)
def test_a_recipe_that_does_not_fit_is_refused(
    tiny_pretrained: Make, tmp_path: Path, recipe: Recipe, message: str
) -> None:
    with pytest.raises(ModelError, match=message):
        convert(tiny_pretrained().model, some_ids(), recipe, tmp_path)


def test_a_model_is_not_converted_twice(tiny_pretrained: Make, tmp_path: Path) -> None:
    lm = tiny_pretrained(layers=1)
    convert(lm.model, some_ids(), RECIPE, tmp_path / "a")
    with pytest.raises(ModelError, match="already converted"):
        convert(lm.model, some_ids(), RECIPE, tmp_path / "b")


def test_other_models_are_refused() -> None:
    with pytest.raises(ModelError, match="built like Llama"):
        decoder_layers(torch.nn.Linear(1, 1))  # type: ignore[arg-type]


def test_activated_parameters_by_hand(tiny_pretrained: Make, tmp_path: Path) -> None:
    lm = tiny_pretrained(layers=2)
    total = parameters(lm.model)
    convert(lm.model, some_ids(), Recipe(experts=4, active=3, tokens=1024), tmp_path)
    # Of 48 neurons in 4 experts one expert is idle: 12 neurons of 3 x 16 weights. Router and stand-ins: 4 x 16 each.
    active = active_experts(lm.model, some_ids(600))
    assert active.tolist() == [3, 3]
    assert activated_parameters(lm.model, active) == total + 2 * (2 * 4 * 16 - 12 * 3 * 16)


def test_the_budget_saves_the_target(tiny_pretrained: Make, tmp_path: Path) -> None:
    lm = tiny_pretrained(layers=3)
    total, recipe = parameters(lm.model), Recipe(experts=8, active=6, tokens=1024)
    experts = budget(lm.model, recipe, 0.2)
    profiles = convert(lm.model, some_ids(), recipe, tmp_path)
    saved = 1 - activated_parameters(lm.model, np.full(3, experts / 3)) / total
    assert saved == pytest.approx(0.2)
    for moe, candidate in zip(converted_layers(lm.model), choose(profiles, experts), strict=True):
        assert isinstance(candidate, Candidate)
        moe.router.policy = candidate.policy
    assert 1 - activated_parameters(lm.model, active_experts(lm.model, some_ids())) / total > 0.15


def test_models_are_timed_in_turn(tiny_pretrained: Make) -> None:
    taken = seconds({"a": tiny_pretrained().model, "b": tiny_pretrained().model}, some_ids(16), 2)
    assert {name: rows.shape for name, rows in taken.items()} == {"a": (2, 2), "b": (2, 2)}
    assert all((rows > 0).all() for rows in taken.values())
