from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

import pytest
import torch
from torch import Tensor

from mofme.core.gated_experts import GatedFeedForwardExperts
from mofme.core.moe import activated_parameters, parameters
from mofme.errors import ModelError
from mofme.language.pretrained import DecoderLayer, PretrainedLM, decoder_layers, dense_weights
from mofme.papers.ladimo import conversion
from mofme.papers.ladimo.conversion import convert, convert_layers, drawn_passages
from mofme.papers.ladimo.converted_layer import Recipe, active_experts, converted_layers

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Make = Callable[..., PretrainedLM]
PACKAGE = Path(conversion.__file__).parents[2]
IDS = [(i * i + i // 7) % 60 + 1 for i in range(2048)]
RECIPE = Recipe(experts=4, active=3, tokens=1024, learning_rate=3e-3)


def test_the_target_is_met(tiny_pretrained: Make, tmp_path: Path) -> None:
    lm = tiny_pretrained()
    total = parameters(lm.model)
    done = convert(lm.model, IDS, Recipe(experts=8, active=1, tokens=1024), 0.2, tmp_path)
    assert sum(candidate.active for candidate in done.chosen) <= done.budget
    policies = [moe.router.policy for moe in converted_layers(lm.model)]
    assert policies == [candidate.policy for candidate in done.chosen]
    # Thresholds were chosen on passages held back, so another text may activate a few more or fewer.
    assert 1 - activated_parameters(lm.model, active_experts(lm.model, IDS)) / total == pytest.approx(0.22, abs=0.05)


def test_stopped_and_started_again_it_ends_the_same(
    tiny_pretrained: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, parted = tiny_pretrained(), tiny_pretrained()
    profiles = convert_layers(whole.model, IDS, RECIPE, tmp_path / "whole")
    after, calls = conversion._after_feed_forward, 0

    def stops(layer: DecoderLayer, residual: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        if calls == 2:  # in the second layer's last step
            raise KeyboardInterrupt
        return after(layer, residual)

    with monkeypatch.context() as patch:
        patch.setattr(conversion, "_after_feed_forward", stops)
        with pytest.raises(KeyboardInterrupt):
            convert_layers(parted.model, IDS, RECIPE, tmp_path / "parted")
    again = tiny_pretrained()
    told: list[tuple[int, int]] = []
    done = convert_layers(again.model, IDS, RECIPE, tmp_path / "parted", lambda *parts: told.append(parts))
    assert told == [(0, 3), (1, 3), (2, 3), (3, 3)]
    assert done == profiles
    torch.testing.assert_close(again.model.state_dict(), whole.model.state_dict(), rtol=0, atol=0)
    assert {path.suffix for path in (tmp_path / "parted").iterdir()} == {".json", ".safetensors"}
    finished = tiny_pretrained()
    assert convert_layers(finished.model, IDS, RECIPE, tmp_path / "parted") == profiles
    torch.testing.assert_close(finished.model.state_dict(), whole.model.state_dict(), rtol=0, atol=0)


def test_another_recipe_text_or_model_wants_another_folder(tiny_pretrained: Make, tmp_path: Path) -> None:
    convert_layers(tiny_pretrained(layers=1).model, IDS, RECIPE, tmp_path)
    with pytest.raises(ModelError, match="another active, learning_rate: take another folder"):
        convert_layers(tiny_pretrained(layers=1).model, IDS, Recipe(experts=4, active=2, tokens=1024), tmp_path)
    with pytest.raises(ModelError, match="another text: take another folder"):
        convert_layers(tiny_pretrained(layers=1).model, IDS[1:], RECIPE, tmp_path)
    other = tiny_pretrained(layers=1).model
    with torch.no_grad():
        other.model.layers[0].mlp.up_proj.weight[0, 0] += 1
    with pytest.raises(ModelError, match="another model: take another folder"):
        convert_layers(other, IDS, RECIPE, tmp_path)


def test_later_layers_learn_from_what_converted_ones_pass_on(
    tiny_pretrained: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Tensor] = []
    through = conversion.after_attention

    def records(model: PreTrainedModel, layer: DecoderLayer, hidden: Tensor) -> Tensor:
        seen.append(hidden)
        return through(model, layer, hidden)

    monkeypatch.setattr(conversion, "after_attention", records)
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
        convert_layers(tiny_pretrained().model, IDS, recipe, tmp_path)


def test_a_model_is_not_converted_twice(tiny_pretrained: Make, tmp_path: Path) -> None:
    lm = tiny_pretrained(layers=1)
    convert_layers(lm.model, IDS, RECIPE, tmp_path / "a")
    with pytest.raises(ModelError, match="already converted"):
        convert_layers(lm.model, IDS, RECIPE, tmp_path / "b")


def test_converting_is_read_in_six_files_beside_the_cores(tiny_pretrained: Make, tmp_path: Path) -> None:
    entered: set[str] = set()

    def notes(frame: FrameType, event: str, arg: object) -> None:
        path = Path(frame.f_code.co_filename)
        if event == "call" and path.is_relative_to(PACKAGE) and path.parent.name != "core":
            entered.add(path.name)

    model, before = tiny_pretrained(layers=1).model, sys.getprofile()
    sys.setprofile(notes)
    try:
        convert(model, IDS, Recipe(experts=8, active=1, tokens=512), 0.1, tmp_path)
    finally:
        sys.setprofile(before)
    room = {"conversion.py", "converted_layer.py", "layer_training.py"}
    assert entered - {"_torchvision.py"} == {*room, "pretrained.py", "study.py", "files.py"}


def test_layers_that_only_look_like_llamas_are_refused(
    tiny_pretrained: Callable[..., PretrainedLM], tmp_path: Path
) -> None:
    model = tiny_pretrained(layers=1).model
    model.model.layers[0].mlp.act_fn = torch.nn.GELU()
    with pytest.raises(ModelError, match="do not compute what Llama's do"):
        convert_layers(model, IDS, RECIPE, tmp_path)
