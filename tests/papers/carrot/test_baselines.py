import numpy as np
import pytest

from mofme.language.sentence_encoder import Queries
from mofme.language.tables.table import RoutingTable
from mofme.papers.carrot.baselines import (
    PREFERENCES,
    SHARES,
    BestSingle,
    ComplexityRule,
    Kind,
    Oracle,
    PairRouter,
    TaskTable,
    choose_pair,
    complexity,
)
from mofme.papers.carrot.curve import aiq, curve_of

KINDS: list[Kind] = list(PREFERENCES)
CHEAP, DEAR, BAD = 0, 1, 2


def world(count: int = 200, seed: int = 0) -> tuple[RoutingTable, Queries]:
    """Easy prompts lie along one axis, hard ones along another; the dear model alone answers the hard ones."""
    random = np.random.default_rng(seed)
    hard_N = random.random(count) < 0.5
    embeddings_ND = 0.1 * random.normal(size=(count, 8))
    embeddings_ND[np.arange(count), hard_N.astype(int)] += 1
    embeddings_ND /= np.linalg.norm(embeddings_ND, axis=1, keepdims=True)
    quality_NM = np.stack([1.0 * ~hard_N, np.ones(count), np.zeros(count)], axis=1)
    cost_NM = np.tile([1.0, 10.0, 2.0], (count, 1))
    prompts = tuple(f"{'prove that' if hard else 'hello'} {i}" for i, hard in enumerate(hard_N))
    tasks = tuple("hard" if hard else "easy" for hard in hard_N)
    table = RoutingTable("world", prompts, ("cheap", "dear", "bad"), quality_NM, cost_NM, tasks)
    return table, Queries(prompts, embeddings_ND)


TABLE, QUERIES = world()
UNSEEN, UNSEEN_QUERIES = world(seed=1)
RIGHT_N = np.where(np.array(UNSEEN.tasks) == "hard", DEAR, CHEAP)


def toy(quality: list[list[float]], cost: list[list[float]]) -> RoutingTable:
    count, models = len(quality), "abc"[: len(quality[0])]
    return RoutingTable("t", tuple("pqr"[:count]), tuple(models), np.array(quality), np.array(cost), ("",) * count)


def test_the_best_single_model_is_the_cheaper_of_two_as_good() -> None:
    router = BestSingle()
    router.fit(toy([[1.0, 1, 0], [0, 0, 1]], [[2.0, 1, 5]] * 2), QUERIES)
    assert router.sweep(QUERIES.rows([0])).tolist() == [[1]]


def test_the_oracle_and_a_task_table_of_plain_tasks_ask_the_cheapest_that_is_right() -> None:
    oracle, tasks = Oracle(UNSEEN), TaskTable()
    for router in (oracle, tasks):
        router.fit(TABLE, QUERIES)
        assert (router.sweep(UNSEEN_QUERIES)[1] == RIGHT_N).all()
    estimate = tasks.estimate(UNSEEN_QUERIES)
    means = {"easy": [1, 1, 0], "hard": [0, 1, 0]}
    assert estimate.quality_NM.tolist() == [means[task] for task in UNSEEN.tasks]
    assert estimate.cost_NM.tolist() == [[1, 10, 2]] * len(UNSEEN)
    tasks.fit(toy([[1.0], [0]], [[1.0], [3]]), QUERIES)  # without tasks: means alone
    estimate = tasks.estimate(UNSEEN_QUERIES.rows([0]))
    assert (estimate.quality_NM.tolist(), estimate.cost_NM.tolist()) == ([[0.5]], [[2]])


def test_the_pair_is_the_best_model_and_its_best_mate_or_else_the_second_best() -> None:
    assert choose_pair(TABLE) == (DEAR, CHEAP)
    assert choose_pair(toy([[0.9, 0.5, 0.7]], [[1.0, 2, 3]])) == (0, 2)  # none is cheaper


@pytest.mark.parametrize("kind", KINDS)
def test_a_pair_router_learns_when_the_strong_model_is_needed(kind: Kind) -> None:
    router = PairRouter(kind)
    router.fit(TABLE, QUERIES)
    choices_SN = router.sweep(UNSEEN_QUERIES)
    score_N = router.score(UNSEEN_QUERIES)
    assert score_N[RIGHT_N == DEAR].min() > score_N[RIGHT_N == CHEAP].max()
    assert set(np.unique(choices_SN)) == {CHEAP, DEAR}
    perfect = curve_of(np.stack([np.full(len(UNSEEN), CHEAP), RIGHT_N]), UNSEEN)
    assert aiq(curve_of(choices_SN, UNSEEN), 10) > 0.9 * aiq(perfect, 10)
    router.fit(TABLE.keep_models(["dear", "bad"]), QUERIES)  # one always wins: there is nothing to learn
    assert set(router.score(UNSEEN_QUERIES)) == {0.0}
    assert (router.sweep(UNSEEN_QUERIES)[[0, -1]] == [[1], [0]]).all()
    router.fit(*world(seed=5))
    router.fit(TABLE, QUERIES)
    assert (router.sweep(UNSEEN_QUERIES) == choices_SN).all()  # what was learnt before is forgotten


@pytest.mark.parametrize("kind", KINDS)
def test_thresholds_are_calibrated_to_shares_of_strong_calls(kind: Kind) -> None:
    """With noisy labels scores spread, and unseen prompts of the same kind are parted in about the shares asked for."""
    random = np.random.default_rng(3)
    embeddings_ND = random.normal(size=(800, 6))
    embeddings_ND /= np.linalg.norm(embeddings_ND, axis=1, keepdims=True)
    wins_N = random.random(800) < 1 / (1 + np.exp(-3 * embeddings_ND[:, 0]))
    quality_NM = np.stack([0.5 * np.ones(800), np.where(wins_N, 1, 0.2)], axis=1)
    prompts = tuple(map(str, range(800)))
    table = RoutingTable("t", prompts, ("weak", "strong"), quality_NM, np.tile([1.0, 2], (800, 1)), ("",) * 800)
    queries = Queries(prompts, embeddings_ND)
    router = PairRouter(kind)
    router.fit(table.rows(range(400)), queries.rows(range(400)))
    share_S = (router.sweep(queries.rows(range(400, 800))) == 1).mean(1)
    assert share_S[0] == 0 and share_S[-1] == 1
    assert np.abs(share_S - SHARES).max() < 0.2


def test_a_neighbours_share_by_hand() -> None:
    # Similarities 1 and .5 to a win and a loss: weights 10 and 10 ** .5.
    router = PREFERENCES["neighbours"]()
    router.fit(np.array([[1.0, 0], [0.5, 0.75**0.5]]), np.array([True, False]))
    assert router.score(np.array([[1.0, 0]])) == pytest.approx(10 / (10 + 10**0.5))


def test_complexity_by_hand() -> None:
    assert complexity("one two three") == 2  # log2(1 + 3)
    assert complexity("one two import os") == pytest.approx(np.log2(5) + 2)
    assert complexity("what is 3 + 4 now") == pytest.approx(np.log2(7) + 2)
    assert complexity("Explain why rain falls down today, all") == 4  # log2(1 + 7) and a reason


def test_the_rule_sends_complex_prompts_to_the_strong_model() -> None:
    router = ComplexityRule()
    router.fit(TABLE, QUERIES)
    some = router.sweep(UNSEEN_QUERIES)[SHARES.tolist().index(0.4)]
    assert ((some == DEAR) == (RIGHT_N == DEAR)).mean() > 0.95
