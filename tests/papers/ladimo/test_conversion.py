from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from mofme.core.gated_experts import GatedFeedForwardExperts
from mofme.core.moe import activated_parameters, parameters
from mofme.core.weights import load_card
from mofme.errors import ModelError
from mofme.language import pretrained
from mofme.language.pretrained import PretrainedLM, decoder_layers, dense_weights
from mofme.papers.ladimo import conversion
from mofme.papers.ladimo.conversion import convert, convert_layers, drawn_passages, open_model, save_converted
from mofme.papers.ladimo.converted_layer import Policy, Recipe, activated, budget, converted_layers, set_policies

Make = Callable[..., PretrainedLM]
IDS = [(i * i + i // 7) % 60 + 1 for i in range(2048)]
RECIPE = Recipe(experts=4, active=3, tokens=1024, learning_rate=3e-3)


def test_the_target_is_met(tiny_pretrained: Make, tmp_path: Path) -> None:
    lm = tiny_pretrained()
    total, recipe = parameters(lm.model), Recipe(experts=8, active=1, tokens=1024)
    affordable = budget(lm.model, recipe, 0.2)
    done = convert(lm.model, IDS, recipe, 0.2, tmp_path, lambda *_: None)
    assert sum(candidate.active for candidate in done.chosen) <= done.budget == affordable
    assert 1 - activated_parameters(lm.model, np.full(3, affordable / 3)) / total == pytest.approx(0.2)
    policies = [moe.router.policy for moe in converted_layers(lm.model)]
    assert policies == [candidate.policy for candidate in done.chosen]
    # Thresholds were chosen on passages held back, so another text may activate a few more or fewer.
    assert 1 - activated(lm.model, IDS) / total == pytest.approx(0.22, abs=0.05)


def test_stopped_and_started_again_it_ends_the_same(
    tiny_pretrained: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, parted = tiny_pretrained(layers=2), tiny_pretrained(layers=2)
    profiles = convert_layers(whole.model, IDS, RECIPE, tmp_path / "whole")
    after, calls = conversion._after_feed_forward, itertools.count(1)

    def stops(*args: Any) -> Tensor:
        if next(calls) == 2:  # in the second layer's last step
            raise KeyboardInterrupt
        return after(*args)

    with monkeypatch.context() as patch:
        patch.setattr(conversion, "_after_feed_forward", stops)
        with pytest.raises(KeyboardInterrupt):
            convert_layers(parted.model, IDS, RECIPE, tmp_path / "parted")
    told: list[tuple[int, int]] = []
    for tell in (lambda *parts: told.append(parts), lambda *_: None):  # goes on; and all is finished
        again = tiny_pretrained(layers=2)
        assert convert_layers(again.model, IDS, RECIPE, tmp_path / "parted", tell) == profiles
        torch.testing.assert_close(again.model.state_dict(), whole.model.state_dict(), rtol=0, atol=0)
        assert {path.suffix for path in (tmp_path / "parted").iterdir()} == {".json", ".safetensors"}
    assert told == [(0, 2), (1, 2), (2, 2)]


def test_another_recipe_text_or_model_wants_another_folder(tiny_pretrained: Make, tmp_path: Path) -> None:
    model, other = tiny_pretrained(layers=1).model, tiny_pretrained(layers=1).model
    with torch.no_grad():
        other.model.layers[0].mlp.up_proj.weight[0, 0] += 1
    convert_layers(tiny_pretrained(layers=1).model, IDS, RECIPE, tmp_path)
    for asked, what in (
        ((model, IDS, Recipe(experts=4, active=2, tokens=1024)), "active, learning_rate"),
        ((model, IDS[1:], RECIPE), "text"),
        ((other, IDS, RECIPE), "model"),
    ):
        with pytest.raises(ModelError, match=f"another {what}: take another folder"):
            convert_layers(*asked, tmp_path)


def test_later_layers_learn_from_what_converted_ones_pass_on(
    tiny_pretrained: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Tensor] = []
    through = pretrained.after_attention
    monkeypatch.setattr(pretrained, "after_attention", lambda *args: seen.append(args[2]) or through(*args))
    monkeypatch.setattr(conversion, "quick_products", contextlib.nullcontext)  # the model itself does not round
    lm = tiny_pretrained(layers=2)
    convert_layers(lm.model, IDS, RECIPE, tmp_path)
    passages = drawn_passages(IDS, 1024, 0)
    expected = lm.model(input_ids=passages, output_hidden_states=True).hidden_states[1]
    torch.testing.assert_close(torch.cat(seen[1 + len(seen) // 2 :]), expected, rtol=1e-3, atol=1e-4)


def test_an_untrained_conversion_keeps_every_weight(tiny_pretrained: Make, tmp_path: Path) -> None:
    lm, dense = tiny_pretrained(layers=1), tiny_pretrained(layers=1)
    convert_layers(lm.model, IDS, Recipe(experts=4, active=3, shared=8, tokens=1024, learned=False), tmp_path)
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
    for count, tokens in ((300, 10_000), (10_000, 300)):
        with pytest.raises(ModelError, match="300 are too few"):
            drawn_passages(list(range(count)), tokens, 0)


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
        convert_layers(tiny_pretrained(layers=1).model, IDS, recipe, tmp_path)


def test_a_model_that_was_converted_or_only_looks_like_llamas_is_refused(tiny_pretrained: Make, tmp_path: Path) -> None:
    model, other = tiny_pretrained(layers=1).model, tiny_pretrained(layers=1).model
    convert_layers(model, IDS, RECIPE, tmp_path / "a")
    other.model.layers[0].mlp.act_fn = torch.nn.GELU()
    for one, message in ((model, "already converted"), (other, "do not compute what Llama's do")):
        with pytest.raises(ModelError, match=message):
            convert_layers(one, IDS, RECIPE, tmp_path / "b")


@pytest.mark.parametrize(
    "recipe",
    [
        Recipe(experts=4, active=2, tokens=512, split="importance"),
        Recipe(experts=4, active=2, shared=8, tokens=512, learned=False),
        Recipe(experts=4, active=2, tokens=512, router="attention"),
    ],
)
def test_it_loads_back_to_the_same_logits(tmp_path: Path, tiny_pretrained: Make, recipe: Recipe) -> None:
    lm = tiny_pretrained()
    convert_layers(lm.model, IDS, recipe, tmp_path / "work")
    policies = [Policy("top-k", 2), Policy("threshold", 0.2), Policy("dense")]
    set_policies(lm.model, policies)
    save_converted(tmp_path / "model", lm, recipe, "CC0", {"tokens": 512}, {"perplexity": 3.5})
    for parameter in lm.model.parameters():  # stored in half precision
        parameter.data = parameter.data.half().float()
    opened, ids = open_model(str(tmp_path / "model")), torch.tensor([IDS[:50]])
    torch.testing.assert_close(opened.model(ids).logits, lm.model(ids).logits, rtol=1e-5, atol=1e-6)
    assert [moe.router.policy for moe in converted_layers(opened.model)] == policies
    assert opened.tokens("Every good boy") == lm.tokens("Every good boy")
    card = load_card(tmp_path / "model")
    assert (card.licence, card.metrics) == ("CC0", {"perplexity": 3.5})


@pytest.mark.parametrize("router", ["mlp", "attention", "mixture"])
def test_the_seed_alone_decides_where_routers_begin(tmp_path: Path, tiny_pretrained: Make, router: str) -> None:
    states = []
    for number in (1, 2):
        model = tiny_pretrained().model
        torch.manual_seed(number)
        convert_layers(model, IDS, Recipe(experts=4, active=2, tokens=512, router=router), tmp_path / str(number))
        states.append(model.state_dict())
    for name, value in states[0].items():
        assert torch.equal(value, states[1][name]), name
