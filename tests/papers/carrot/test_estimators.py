from copy import copy

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import Ridge
from sklearn.neighbors import KNeighborsRegressor

from mofme.language.sentence_encoder import Queries
from mofme.language.tables.table import FloatArray
from mofme.papers.carrot.ensemble import Ensemble, Network
from mofme.papers.carrot.estimators import (
    NEIGHBOURS,
    PENALTIES,
    Estimator,
    Inputs,
    Linear,
    NearestNeighbours,
    TaskMeans,
    contrasts,
    error,
    folds,
)


def made_up(count: int, seed: int = 0, dim: int = 6) -> tuple[Inputs, FloatArray]:
    """Prompts of two tasks; the first model is good at one of them, the second at the other, the third at neither."""
    random = np.random.default_rng(seed)
    task_N = random.integers(2, size=count)
    points_ND = random.normal(size=(count, dim)) + 4 * np.eye(dim)[task_N]
    points_ND /= np.linalg.norm(points_ND, axis=1, keepdims=True)
    chance_NM = np.array([[0.9, 0.2, 0.4], [0.2, 0.8, 0.4]])[task_N]
    target_NM = (random.random((count, 3)) < chance_NM).astype(float)
    lengths = random.integers(1, 90, count)
    prompts = [f"task {task}, prompt {'x' * int(length)}" for task, length in zip(task_N, lengths, strict=True)]
    return Inputs.of(Queries(prompts, points_ND), tuple(f"task {task}" for task in task_N)), target_NM


KNOWN, TARGET = made_up(150)


def neighbours(k: int, known: Inputs, target_NM: FloatArray) -> NearestNeighbours:
    """With so many neighbours, whatever cross-validation would say."""
    estimator = NearestNeighbours()
    estimator.k_M = np.full(target_NM.shape[1], k)
    estimator.refit(known, target_NM)
    return estimator


@pytest.mark.parametrize(
    "estimator",
    [
        NearestNeighbours(),
        NearestNeighbours(per_model=True),
        Linear(),
        Linear(by_length=True),
        Network(),
        TaskMeans(),
        Ensemble({"knn": NearestNeighbours(), "linear": Linear(), "tasks": TaskMeans()}),
    ],
    ids=lambda estimator: type(estimator).__name__,
)
def test_each_learns_the_tasks_the_same_each_time_and_comes_back_bit_by_bit(estimator: Estimator) -> None:
    known, target_NM = made_up(400)
    unseen, truth_NM = made_up(200, seed=1)
    estimator.fit(known, target_NM)
    learned = estimator.predict(unseen)
    assert learned.shape == (200, 3) and learned.dtype == np.float64
    assert error(learned, truth_NM) < 0.9 * error(np.tile(target_NM.mean(0), (200, 1)), truth_NM)
    assert estimator.predict(unseen.rows([])).shape == (0, 3)
    state = {name: tensor.clone() for name, tensor in estimator.state().items()}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        estimator.fit(known, target_NM)
    np.testing.assert_array_equal(estimator.predict(unseen), learned)
    again = copy(estimator)
    again.fit(*made_up(60, seed=2))
    again.load(state)
    np.testing.assert_array_equal(again.predict(unseen), learned)


@given(st.integers(1, 30), st.integers(0, 5))
def test_neighbours_are_those_of_scikit_learn(k: int, seed: int) -> None:
    known, target_NM = made_up(60, seed)
    unseen, _ = made_up(25, seed + 100)
    reference = KNeighborsRegressor(k, metric="cosine").fit(known.embeddings_ND, target_NM)
    expected = reference.predict(unseen.embeddings_ND)
    np.testing.assert_allclose(neighbours(k, known, target_NM).predict(unseen), expected, atol=1e-12)
    everybody = np.tile(target_NM.mean(0), (25, 1))
    np.testing.assert_allclose(neighbours(500, known, target_NM).predict(unseen), everybody)


def test_the_nearest_come_first() -> None:
    cosine_N = KNOWN.embeddings_ND @ KNOWN.embeddings_ND[7]
    rows, similarity = neighbours(3, KNOWN, TARGET).nearest(KNOWN.rows([7]).embeddings_ND, 4)
    np.testing.assert_array_equal(rows, np.argsort(-cosine_N)[:4])
    np.testing.assert_allclose(similarity, np.sort(cosine_N)[::-1][:4], atol=1e-6)


def test_k_is_the_one_that_errs_least_in_cross_validation() -> None:
    estimator = NearestNeighbours()
    estimator.fit(KNOWN, TARGET)
    errors = dict.fromkeys((k for k in NEIGHBOURS if k <= 120), 0.0)
    for train, test in folds(150, seed=0):
        for k in errors:
            reference = KNeighborsRegressor(k, metric="cosine").fit(KNOWN.embeddings_ND[train], TARGET[train])
            errors[k] += error(reference.predict(KNOWN.embeddings_ND[test]), TARGET[test])
    assert estimator.k == min(errors, key=lambda k: errors[k])


def test_ridge_is_that_of_scikit_learn_with_the_best_penalty_chosen_anew_each_time() -> None:
    unseen, _ = made_up(40, seed=1)
    estimator = Linear()
    estimator.fit(KNOWN, np.random.default_rng(0).normal(size=(150, 2)))  # noise wants another penalty
    other = estimator.penalty
    estimator.fit(KNOWN, TARGET)
    x_NF, errors = KNOWN.all_NF, dict.fromkeys(PENALTIES, 0.0)
    for train, test in folds(150, seed=0):
        assert sorted([*train, *test]) == list(range(150))
        for penalty in PENALTIES:
            reference = Ridge(penalty).fit(x_NF[train], TARGET[train])
            errors[penalty] += error(reference.predict(x_NF[test]), TARGET[test])
    best = min(errors, key=lambda penalty: errors[penalty])
    assert other != best
    reference = Ridge(best).fit(x_NF, TARGET)
    np.testing.assert_allclose(estimator.predict(unseen), reference.predict(unseen.all_NF), atol=1e-9)


def test_contrasts_by_hand() -> None:
    np.testing.assert_allclose(contrasts(np.array([[1.0, 0.0, 0.5]])), [[0.5, -0.5, 0.0]])
    np.testing.assert_allclose(contrasts(np.array([[1.0], [0.2]])), [[1.0], [0.2]])
    # Off by the same on every model is no error: the choice stays.
    assert error(np.array([[0.3, 0.1]]), np.array([[0.9, 0.7]])) == pytest.approx(0)


def test_task_means_are_of_the_task_that_is_recognised_or_of_all() -> None:
    known, target_NM = made_up(300)
    estimator = TaskMeans()
    estimator.fit(known, target_NM)
    task_N = np.array([task == "task 1" for task in known.tasks])
    point = Inputs(np.eye(6)[[1]], np.zeros((1, 8)), np.zeros(1))
    np.testing.assert_allclose(estimator.predict(point)[0], target_NM[task_N].mean(0), atol=0.02)
    estimator.fit(Inputs(known.embeddings_ND, known.traits_NF, known.length_N), target_NM)
    np.testing.assert_allclose(estimator.predict(known), np.tile(target_NM.mean(0), (300, 1)))


class _Noise(TaskMeans):
    """Knows nothing, and says so differently every time."""

    def predict(self, inputs: Inputs) -> FloatArray:
        return np.random.default_rng(len(inputs)).normal(size=(len(inputs), self.means_TM.shape[1]))


def test_an_ensemble_weighs_its_parts_and_does_not_listen_to_noise() -> None:
    known, target_NM = made_up(400)
    ensemble = Ensemble({"noise": _Noise(), "tasks": TaskMeans()})
    ensemble.fit(known, target_NM)
    assert ensemble.contrast_P[0] < 0.1 < 0.7 < ensemble.contrast_P[1]
    for row in range(5):
        one = known.rows([row])
        a, b = (part.predict(one)[0] for part in ensemble.parts.values())
        level = ensemble.level_P @ [a.mean(), b.mean()]
        expected = level + ensemble.contrast_P[0] * (a - a.mean()) + ensemble.contrast_P[1] * (b - b.mean())
        np.testing.assert_allclose(ensemble.predict(one)[0], expected, atol=1e-12)


@given(st.text(max_size=300))
def test_traits_are_of_the_size_of_an_embedding(prompt: str) -> None:
    inputs = Inputs.of(Queries([prompt], np.ones((1, 1))))
    assert inputs.traits_NF.shape == (1, 8) and np.isfinite(inputs.traits_NF).all()
    assert abs(inputs.traits_NF).max() < 1
    assert inputs.with_length_NF[0, -1] == len(prompt) / 4


def test_the_parts_of_an_ensemble_have_learnt_from_all_prompts() -> None:
    ensemble, alone = Ensemble({"linear": Linear()}), Linear()
    for each in (ensemble, alone):
        each.fit(KNOWN, TARGET)
    np.testing.assert_array_equal(ensemble.parts["linear"].predict(KNOWN), alone.predict(KNOWN))
