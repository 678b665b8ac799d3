import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mofme.papers.ladimo.layer_training import Split, balanced_clusters, representatives, split_neurons

KINDS: tuple[Split, ...] = ("activation", "co-activation", "random", "importance")


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


@given(kind=st.sampled_from(KINDS), seed=st.integers(0, 50), shared=st.sampled_from([0, 4, 8]))
def test_every_neuron_is_in_one_place(kind: Split, seed: int, shared: int) -> None:
    strength, _ = planted(seed)
    order = split_neurons(kind, strength, 4, shared, np.random.default_rng(seed))
    assert sorted(order) == list(range(24))
    again = split_neurons(kind, strength, 4, shared, np.random.default_rng(seed))
    assert (order == again).all()


def test_the_shared_ones_are_the_strongest() -> None:
    strength = np.random.default_rng(0).random((50, 20))
    strength[:, 3] += 5
    strength[0, 11] = 100  # for one token of 50, but a mean square of 200 against 30
    order = split_neurons("random", strength, 3, 2, np.random.default_rng(0))
    assert order[:2].tolist() == [11, 3]


def test_pruning_keeps_the_strongest_first() -> None:
    strength = np.array([[1.0, 4.0, 2.0, 3.0]])
    assert split_neurons("importance", strength, 2, 0, np.random.default_rng(0)).tolist() == [1, 3, 2, 0]


def test_clusters_are_balanced_and_as_good_as_trying_all() -> None:
    points = np.array([[0.0], [0.1], [0.2], [5.0], [5.1], [0.3]])  # four are close, but only three may go together

    def cost(first: tuple[int, ...]) -> float:
        rest = [i for i in range(6) if i not in first]
        return sum(float(((points[g] - points[g].mean()) ** 2).sum()) for g in (list(first), rest))

    best = min(itertools.combinations(range(6), 3), key=cost)
    group = balanced_clusters(points, 2, np.random.default_rng(0))
    assert np.bincount(group).tolist() == [3, 3]
    assert cost(tuple(np.flatnonzero(group == 0))) == pytest.approx(cost(best))


def test_clusters_must_divide_evenly() -> None:
    with pytest.raises(ValueError, match="5 points cannot be divided evenly among 2"):
        balanced_clusters(np.zeros((5, 1)), 2, np.random.default_rng(0))


def test_a_representative_is_of_its_own_expert() -> None:
    strength, _ = planted()
    order = split_neurons("activation", strength, 4, 4, np.random.default_rng(0))
    chosen = representatives(strength, order, 4, 4)
    assert [one in group for one, group in zip(chosen, order[4:].reshape(4, 5), strict=True)] == [True] * 4
