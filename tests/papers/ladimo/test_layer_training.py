from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from mofme.language.pretrained import PretrainedLM, after_attention, decoder_layers, embed
from mofme.papers.ladimo import conversion
from mofme.papers.ladimo.conversion import convert_layers
from mofme.papers.ladimo.converted_layer import ConvertedLayer, Policy, Recipe
from mofme.papers.ladimo.layer_training import HiddenStates, LayerTargets, active_neurons, nearby_top_k, ridge_refit

DIM, NEURONS, HIDDEN, SHARED = 6, 16, 3, 4
RECIPE = Recipe(experts=4, active=2, shared=SHARED)


def layer() -> ConvertedLayer:
    torch.manual_seed(0)
    moe = ConvertedLayer.empty(DIM, NEURONS, RECIPE).requires_grad_(False)
    moe.experts.idle_ED.copy_(torch.randn(4, DIM))
    return moe


def states(path: Path, seed: int) -> HiddenStates:
    values = torch.randn(6, 30, DIM, generator=torch.Generator().manual_seed(seed))
    return HiddenStates.write(path, (6, 30, DIM), iter([values]))


def test_a_layer_is_linear_in_its_active_neurons() -> None:
    moe, x = layer(), torch.randn(20, DIM)
    row = active_neurons(moe, x, moe.router(x).weights_TE)
    torch.testing.assert_close(row @ torch.cat([moe.experts.down_ND, moe.experts.idle_ED]), moe(x))


def test_it_is_ridge_regression_around_what_the_layer_had(tmp_path: Path) -> None:
    moe, before = layer(), layer().experts
    stream, target = states(tmp_path / "stream.npy", 1), states(tmp_path / "target.npy", 2)
    ridge_refit(
        moe, nn.Identity(), stream, LayerTargets(target, 1.0, torch.zeros(0)), RECIPE, torch.Generator().manual_seed(3)
    )
    draws = torch.Generator().manual_seed(3)
    rows, answers = [], []
    for block, wanted in zip(stream.blocks(), target.blocks(), strict=True):
        k = int(nearby_top_k(RECIPE, draws).value)
        for x, y in zip(block.flatten(0, 1).double().numpy(), wanted.flatten(0, 1).double().numpy(), strict=True):
            size = np.linalg.norm(x + y)
            gate = before.gate_ND.double().numpy() @ x
            h = gate / (1 + np.exp(-gate)) * (before.up_ND.double().numpy() @ x)
            best = np.argsort(-(layer().router.router.logits(torch.tensor(x[None]).float())[0].numpy()))[:k]
            idle = np.array([float(expert not in best) for expert in range(4)])
            h[SHARED:] *= np.repeat(1 - idle, HIDDEN)
            rows.append(np.concatenate([h, idle]) / size)
            answers.append(y / size)
    row, answer = np.array(rows), np.array(answers)
    had = torch.cat([before.down_ND, before.idle_ED]).double().numpy()
    square = np.square(row).sum(0)
    ridge = np.array([0.3 * square[:NEURONS].mean()] * NEURONS + [1e-3 * square[NEURONS:].mean()] * 4)
    # Ridge regression is least squares with a line for each weight, that wants it to be 0.
    found = np.linalg.lstsq(
        np.concatenate([row, np.diag(np.sqrt(ridge))]),
        np.concatenate([answer - row @ had, np.zeros((NEURONS + 4, DIM))]),
    )[0]
    expected = torch.from_numpy(had + found).float()
    torch.testing.assert_close(moe.experts.down_ND.data, expected[:NEURONS], rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(moe.experts.idle_ED.data, expected[NEURONS:], rtol=1e-3, atol=1e-4)
    assert moe.router.policy == Policy("top-k", 2)


def test_training_and_then_the_ridge_refit_bring_it_closer_to_the_dense_one(
    tiny_pretrained: Callable[..., PretrainedLM], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dense = decoder_layers(tiny_pretrained(layers=1).model)[0]
    # Tokens with some order in them, so that there is something to learn.
    ids = (np.cumsum(np.random.default_rng(0).integers(0, 3, 8192)) % 60 + 1).tolist()
    refit = conversion.ridge_refit

    def error(rate: float, ends: Callable[..., None]) -> float:
        """Squared error of the feed-forward on what reaches it."""
        monkeypatch.setattr(conversion, "ridge_refit", ends)
        model = tiny_pretrained(layers=1).model
        recipe = Recipe(experts=4, active=2, tokens=8192, learning_rate=rate)
        convert_layers(model, ids, recipe, tmp_path / f"{rate} {ends is refit}")
        stream = after_attention(model, decoder_layers(model)[0], embed(model, torch.tensor([ids[:256]])))
        x = dense.post_attention_layernorm(stream)
        return float((decoder_layers(model)[0].mlp(x) - dense.mlp(x)).square().mean())

    untrained, trained = error(1e-9, lambda *_: None), error(3e-3, lambda *_: None)
    assert trained < 0.97 * untrained
    assert error(3e-3, refit) < 0.97 * trained
