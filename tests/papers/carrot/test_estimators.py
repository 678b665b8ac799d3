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
    prompts = [
        f"task {task}, prompt {'x' * int(length)}"
        for task, length in zip(task_N, random.integers(1, 90, count), strict=True)
    ]
    return Inputs.of(Queries(prompts, points_ND), tuple(f"task {task}" for task in task_N)), target_NM


def all_kinds() -> list[Estimator]:
    parts: dict[str, Estimator] = {"knn": NearestNeighbours(8), "linear": Linear(), "tasks": TaskMeans()}
    return [NearestNeighbours(), Linear(), Linear(by_length=True), Network(), TaskMeans(), Ensemble(parts)]


@pytest.mark.parametrize("estimator", all_kinds(), ids=lambda estimator: type(estimator).__name__)
def test_each_learns_the_tasks_and_comes_back_bit_by_bit(estimator: Estimator) -> None:
    known, target_NM = made_up(400)
    unseen, truth_NM = made_up(200, seed=1)
    estimator.fit(known, target_NM)
    learned = estimator.predict(unseen)
    assert learned.shape == (200, 3) and learned.dtype == np.float64
    assert error(learned, truth_NM) < 0.9 * error(np.tile(target_NM.mean(0), (200, 1)), truth_NM)
    again = estimator.untrained()
    again.load({name: tensor.clone() for name, tensor in estimator.state().items()})
    np.testing.assert_array_equal(again.predict(unseen), learned)
    assert estimator.predict(unseen.rows([])).shape == (0, 3)


@pytest.mark.parametrize("estimator", all_kinds(), ids=lambda estimator: type(estimator).__name__)
def test_the_same_seed_learns_the_same(estimator: Estimator) -> None:
    known, target_NM = made_up(120)
    before = torch.get_rng_state()
    estimator.fit(known, target_NM)
    other = estimator.untrained()
    torch.manual_seed(5)
    other.fit(known, target_NM)
    np.testing.assert_array_equal(other.predict(known), estimator.predict(known))
    torch.set_rng_state(before)


@given(st.integers(1, 30), st.integers(0, 5))
def test_neighbours_are_those_of_scikit_learn(k: int, seed: int) -> None:
    known, target_NM = made_up(60, seed)
    unseen, _ = made_up(25, seed + 100)
    ours = NearestNeighbours(k)
    ours.fit(known, target_NM)
    reference = KNeighborsRegressor(k, metric="cosine").fit(known.embeddings_ND, target_NM)
    np.testing.assert_allclose(ours.predict(unseen), reference.predict(unseen.embeddings_ND), atol=1e-12)


def test_more_neighbours_than_prompts_are_all_of_them() -> None:
    known, target_NM = made_up(30)
    estimator = NearestNeighbours(500)
    estimator.fit(known, target_NM)
    np.testing.assert_allclose(estimator.predict(known), np.tile(target_NM.mean(0), (30, 1)))


def test_the_nearest_come_first() -> None:
    known, target_NM = made_up(50)
    estimator = NearestNeighbours(3)
    estimator.fit(known, target_NM)
    asked, other = known.rows([7]), known.rows([9])
    cosine_N = known.embeddings_ND @ known.embeddings_ND[7]
    for before, count in ((asked, 2), (asked, 4), (other, 2), (other, 4)):
        estimator.predict(before)
        rows, similarity = estimator.nearest(asked.embeddings_ND, count)
        assert rows[0] == 7
        np.testing.assert_array_equal(rows, np.argsort(-cosine_N)[:count])
        np.testing.assert_allclose(similarity, np.sort(cosine_N)[::-1][:count], atol=1e-6)


def test_k_is_the_one_that_errs_least_in_cross_validation() -> None:
    known, target_NM = made_up(150)
    estimator = NearestNeighbours()
    estimator.fit(known, target_NM)
    errors = {}
    for k in [k for k in NEIGHBOURS if k <= 120]:
        total = 0.0
        for train, test in folds(150, seed=0):
            reference = KNeighborsRegressor(k, metric="cosine").fit(known.embeddings_ND[train], target_NM[train])
            total += error(reference.predict(known.embeddings_ND[test]), target_NM[test])
        errors[k] = total
    assert estimator.k == min(errors, key=lambda k: errors[k])


def test_folds_judge_every_row_once() -> None:
    judged = []
    for train, test in folds(23, seed=3):
        assert set(train) | set(test) == set(range(23)) and not set(train) & set(test)
        judged += list(test)
    assert sorted(judged) == list(range(23))


def test_ridge_is_that_of_scikit_learn_with_the_best_penalty() -> None:
    known, target_NM = made_up(150)
    unseen, _ = made_up(40, seed=1)
    estimator = Linear()
    estimator.fit(known, target_NM)
    errors = {}
    for penalty in PENALTIES:
        errors[penalty] = sum(
            error(
                Ridge(penalty).fit(known.all_NF[train], target_NM[train]).predict(known.all_NF[test]), target_NM[test]
            )
            for train, test in folds(150, seed=0)
        )
    reference = Ridge(min(errors, key=lambda penalty: errors[penalty])).fit(known.all_NF, target_NM)
    np.testing.assert_allclose(estimator.predict(unseen), reference.predict(unseen.all_NF), atol=1e-9)


def test_costs_grow_with_the_length_whatever_the_embedding() -> None:
    known, _ = made_up(150)
    cost_NM = known.length_N[:, None] * [1e-3, 4e-3]
    estimator = Linear(by_length=True)
    estimator.fit(known, cost_NM)
    unseen, _ = made_up(40, seed=1)
    longer = Inputs(unseen.embeddings_ND, unseen.traits_NF, unseen.length_N + 10_000)
    expected_NM = longer.length_N[:, None] * [1e-3, 4e-3]
    np.testing.assert_allclose(estimator.predict(longer), expected_NM, rtol=2e-3)


def test_contrasts_by_hand() -> None:
    np.testing.assert_allclose(contrasts(np.array([[1.0, 0.0, 0.5]])), [[0.5, -0.5, 0.0]])
    np.testing.assert_allclose(contrasts(np.array([[1.0], [0.2]])), [[1.0], [0.2]])
    # Off by the same on every model is no error: the choice stays.
    assert error(np.array([[0.3, 0.1]]), np.array([[0.9, 0.7]])) == pytest.approx(0)


def test_task_means_of_prompts_that_are_plainly_of_one_task() -> None:
    known, target_NM = made_up(300)
    estimator = TaskMeans()
    estimator.fit(known, target_NM)
    task_N = np.array([task == "task 1" for task in known.tasks])
    point = Inputs(np.eye(6)[[1]], np.zeros((1, 8)), np.zeros(1))
    np.testing.assert_allclose(estimator.predict(point)[0], target_NM[task_N].mean(0), atol=0.02)


def test_without_tasks_the_means_of_all_are_left() -> None:
    known, target_NM = made_up(60)
    estimator = TaskMeans()
    estimator.fit(Inputs(known.embeddings_ND, known.traits_NF, known.length_N), target_NM)
    np.testing.assert_allclose(estimator.predict(known), np.tile(target_NM.mean(0), (60, 1)))


class _Noise(Estimator):
    """Knows nothing, and says so differently every time."""

    def fit(self, inputs: Inputs, target_NM: FloatArray) -> None:
        self.models = target_NM.shape[1]

    def predict(self, inputs: Inputs) -> FloatArray:
        return np.random.default_rng(len(inputs)).normal(size=(len(inputs), self.models))

    def untrained(self) -> "_Noise":
        return _Noise()

    def state(self) -> dict[str, torch.Tensor]:
        return {}

    def load(self, state: object) -> None: ...


def test_an_ensemble_does_not_listen_to_noise() -> None:
    known, target_NM = made_up(400)
    ensemble = Ensemble({"noise": _Noise(), "tasks": TaskMeans()})
    ensemble.fit(known, target_NM)
    assert ensemble.contrast_P[0] < 0.1 < 0.7 < ensemble.contrast_P[1]


def test_an_ensemble_is_the_weighted_sum_of_its_parts() -> None:
    known, target_NM = made_up(200)
    ensemble = Ensemble({"knn": NearestNeighbours(16), "linear": Linear()})
    ensemble.fit(known, target_NM)
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


def test_ridge_chooses_its_penalty_anew_for_other_data() -> None:
    rng = np.random.default_rng(0)
    x_NF = rng.normal(size=(200, 6))
    x_NF /= np.linalg.norm(x_NF, axis=1, keepdims=True)
    known = Inputs(x_NF, np.zeros((200, 8)), np.zeros(200))
    noise, signal = rng.normal(size=(200, 2)), x_NF @ rng.normal(size=(6, 2))
    again, fresh = Linear(), Linear()
    again.fit(known, noise)
    again.fit(known, signal)
    fresh.fit(known, signal)
    np.testing.assert_array_equal(again.weights_FM, fresh.weights_FM)
