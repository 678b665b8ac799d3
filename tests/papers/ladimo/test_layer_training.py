import itertools
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from mofme.language.pretrained import PretrainedLM, after_attention, decoder_layers, embed
from mofme.papers.ladimo.conversion import convert_layers
from mofme.papers.ladimo.converted_layer import ConvertedLayer, Policy, Recipe
from mofme.papers.ladimo.layer_training import (
    HiddenStates,
    LayerTraining,
    Split,
    balanced_clusters,
    nearby_top_k,
    representatives,
    split_neurons,
)

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


def test_it_is_ridge_regression_around_what_the_layer_had(tmp_path: Path) -> None:
    moe, before = layer(), layer().experts
    stream, target = states(tmp_path / "stream.npy", 1), states(tmp_path / "target.npy", 2)
    training = LayerTraining(moe, nn.Identity(), stream, RECIPE)
    training.outputs = target
    training.refit(torch.Generator().manual_seed(3))
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
    refit = LayerTraining.refit

    def error(rate: float, ends: Callable[..., None]) -> float:
        """Squared error of the feed-forward on what reaches it."""
        monkeypatch.setattr(LayerTraining, "refit", ends)
        model = tiny_pretrained(layers=1).model
        recipe = Recipe(experts=4, active=2, tokens=8192, learning_rate=rate)
        convert_layers(model, ids, recipe, tmp_path / f"{rate} {ends is refit}")
        stream = after_attention(model, decoder_layers(model)[0], embed(model, torch.tensor([ids[:256]])))
        x = dense.post_attention_layernorm(stream)
        return float((decoder_layers(model)[0].mlp(x) - dense.mlp(x)).square().mean())

    untrained, trained = error(1e-9, lambda *_: None), error(3e-3, lambda *_: None)
    assert trained < 0.97 * untrained
    assert error(3e-3, refit) < 0.97 * trained


def planted(seed: int = 0, groups: int = 4, size: int = 6) -> tuple[np.ndarray, np.ndarray]:
    """Strengths of 24 neurons, of which those of one group are strong together, and the group of each, shuffled."""
    random = np.random.default_rng(seed)
    group_N = random.permutation(np.repeat(np.arange(groups), size))
    on_SG = np.eye(groups)[random.integers(groups, size=400)]
    return on_SG[:, group_N] * random.uniform(1, 2, (400, 24)) + 0.01 * random.random((400, 24)), group_N


@pytest.mark.parametrize("kind", ["activation", "co-activation"])
def test_neurons_that_work_together_come_together(kind: Split) -> None:
    strength, group_N = planted()
    order = split_neurons(kind, strength, 4, 0, np.random.default_rng(1))
    found = [set(group_N[part]) for part in order.reshape(4, 6)]
    assert sorted(map(tuple, found)) == [(0,), (1,), (2,), (3,)]


@given(kind=st.sampled_from(get_args(Split)), seed=st.integers(0, 50), shared=st.sampled_from([0, 4, 8]))
@settings(max_examples=16)
def test_every_neuron_is_in_one_place(kind: Split, seed: int, shared: int) -> None:
    strength, _ = planted(seed)
    order, again = (split_neurons(kind, strength, 4, shared, np.random.default_rng(seed)) for _ in range(2))
    assert sorted(order) == list(range(24)) and (order == again).all()


def test_the_shared_ones_are_the_strongest_and_pruning_keeps_these_first() -> None:
    strength = np.random.default_rng(0).random((50, 20))
    strength[:, 3] += 5
    strength[0, 11] = 100  # for one token of 50, but a mean square of 200 against 30
    assert split_neurons("random", strength, 3, 2, np.random.default_rng(0))[:2].tolist() == [11, 3]
    weak_to_strong = np.array([[1.0, 4.0, 2.0, 3.0]])
    assert split_neurons("importance", weak_to_strong, 2, 0, np.random.default_rng(0)).tolist() == [1, 3, 2, 0]


def test_clusters_are_balanced_and_as_good_as_trying_all() -> None:
    points = np.array([[0.0], [0.1], [0.2], [5.0], [5.1], [0.3]])  # four are close, but only three may go together

    def cost(first: tuple[int, ...]) -> float:
        rest = [i for i in range(6) if i not in first]
        return sum(float(((points[g] - points[g].mean()) ** 2).sum()) for g in (list(first), rest))

    best = min(itertools.combinations(range(6), 3), key=cost)
    group = balanced_clusters(points, 2, np.random.default_rng(0))
    assert np.bincount(group).tolist() == [3, 3]
    assert cost(tuple(np.flatnonzero(group == 0))) == pytest.approx(cost(best))


def test_a_representative_is_of_its_own_expert() -> None:
    strength, _ = planted()
    order = split_neurons("activation", strength, 4, 4, np.random.default_rng(0))
    chosen = representatives(strength, order, 4, 4)
    assert [one in group for one, group in zip(chosen, order[4:].reshape(4, 5), strict=True)] == [True] * 4
