from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.metrics import roc_auc_score

from mofme.language.sentence_encoder import Queries
from mofme.language.tables.table import FloatArray, RoutingTable
from mofme.measure.result import Figure, Result, Row, load_result, save_result
from mofme.papers.carrot import DOLLARS, JUDGED, judge
from mofme.papers.carrot.baselines import BestSingle, Hull, Oracle, PairRouter, TaskTable
from mofme.papers.carrot.carrot import Estimate, EstimatingRouter
from mofme.papers.carrot.comparison import (
    BETTER,
    GAIN,
    LOST,
    MEAN,
    PROMPTS,
    RIGHT,
    Comparison,
    Reading,
    as_figure,
    auc,
    compare,
    draw_weights,
    milliseconds,
    read,
    within_tasks,
)
from mofme.papers.carrot.curve import Curve, aiq, curve_of, quality_at, worth_routing
from mofme.papers.carrot.experiment import Measured, as_result, measure

COUNT = 600


def world(seed: int = 0) -> tuple[RoutingTable, Queries]:
    """Two tasks that embeddings show; within a task the models' answers are tosses of a coin that nothing shows."""
    random = np.random.default_rng(seed)
    task_N = random.random(COUNT) < 0.5
    embeddings_ND = 0.2 * random.normal(size=(COUNT, 6))
    embeddings_ND[np.arange(COUNT), task_N.astype(int)] += 1
    embeddings_ND /= np.linalg.norm(embeddings_ND, axis=1, keepdims=True)
    chance_NM = np.where(task_N[:, None], [0.9, 0.6, 0.2], [0.2, 0.8, 0.4])
    quality_NM = (random.random((COUNT, 3)) < chance_NM).astype(float)
    cost_NM = np.array([1.0, 3, 0.5]) * random.uniform(0.5, 1.5, (COUNT, 1))
    prompts = tuple(f"prompt {row}" for row in range(COUNT))
    tasks = tuple("maths" if task else "verse" for task in task_N)
    table = RoutingTable("world", prompts, ("a", "b", "c"), quality_NM, cost_NM, tasks)
    return table, Queries(prompts, embeddings_ND)


class Insider(EstimatingRouter):
    """Knows the truth of some models and nothing of the others."""

    name = "carrot"

    def __init__(self, truth: RoutingTable, known: float) -> None:
        self.oracle, self.known = Oracle(truth), known

    def fit(self, table: RoutingTable, queries: Queries) -> None:
        self.noise = np.random.default_rng(0)

    def estimate(self, queries: Queries) -> Estimate:
        truth = self.oracle.estimate(queries)
        guess_NM = self.noise.random(truth.quality_NM.shape)
        return Estimate(self.known * truth.quality_NM + (1 - self.known) * guess_NM, truth.cost_NM)


TABLE, QUERIES = world()
GROUP_N = np.arange(COUNT) // 2


def compared(known: float = 0.9, splits: int = 3) -> Comparison:
    routers = [BestSingle(), Hull(), TaskTable(), Insider(TABLE, known), PairRouter(), Oracle(TABLE)]
    return compare(TABLE, QUERIES, routers, splits=splits, seed=1, groups=GROUP_N)


@cache
def comparison() -> Comparison:
    return compared()


@cache
def weights() -> FloatArray:
    return draw_weights(comparison(), draws=40)


@cache
def readings() -> dict[str, Reading]:
    return read(comparison(), weights())


def judged(comparison: Comparison) -> Measured:
    times = {name: np.array([1.0, 2, 9]) for name in comparison.routers}
    return measure(comparison, worth_routing(TABLE), np.array([20.0]), times, judged=["carrot"], draws=100)


@cache
def measured() -> Measured:
    return judged(comparison())


def test_groups_are_never_parted() -> None:
    for trial in comparison().trials:
        inside_N = np.isin(np.arange(COUNT), trial.test_n)
        assert (inside_N[0::2] == inside_N[1::2]).all()
        assert 0.15 < inside_N.mean() < 0.25
    assert len({tuple(trial.test_n) for trial in comparison().trials}) == 3


def test_routers_never_see_the_prompts_they_are_judged_on() -> None:
    seen: list[set[str]] = []

    class Spy(Hull):
        def fit(self, table: RoutingTable, queries: Queries) -> None:
            assert tuple(queries.prompts) == table.prompts
            seen.append(set(table.prompts))
            super().fit(table, queries)

    comparison = compare(TABLE, QUERIES, [Spy()], splits=3, seed=1, groups=GROUP_N)
    for prompts, trial in zip(seen, comparison.trials, strict=True):
        assert prompts == set(TABLE.prompts) - {TABLE.prompts[row] for row in trial.test_n}


def test_the_same_seed_makes_the_same_splits_whatever_the_order_of_the_models() -> None:
    moved = TABLE.keep_models([TABLE.models[model] for model in (2, 0, 1)])
    routers = [BestSingle(), Hull(), TaskTable()]
    one, other = (compare(table, QUERIES, routers, splits=2, seed=1) for table in (TABLE, moved))
    for trial, again in zip(one.trials, other.trials, strict=True):
        assert (trial.test_n == again.test_n).all()
    one, other = (read(each, np.ones((1, COUNT))) for each in (one, other))
    for name in one:
        assert one[name].aiq_TB == pytest.approx(other[name].aiq_TB)


def test_the_first_reading_is_that_of_the_curve_and_nobody_beats_the_oracle() -> None:
    for number, trial in enumerate(comparison().trials):
        truth = TABLE.rows(trial.test_n)
        best = curve_of(trial.choices["best single"], truth)
        for name, reading in readings().items():
            curve = curve_of(trial.choices[name], truth)
            assert reading.aiq_TB[number, 0] == pytest.approx(aiq(curve, truth.cost_NM.mean(0).max()))
            assert reading.quality_TB[number, 0] == pytest.approx(quality_at(curve, best.cost_S[0]))
    for reading in readings().values():
        assert (reading.aiq_TB <= readings()["oracle"].aiq_TB + 1e-3).all()


def test_the_bootstrap_against_a_loop() -> None:
    """Each drawn prompt as a row of its own, as often as it was drawn; drawn are whole groups with replacement."""
    assert (weights()[0] == 1).all() and (weights().sum(1) == COUNT).all()
    assert (weights()[:, 0::2] == weights()[:, 1::2]).all()
    for number, trial in enumerate(comparison().trials):
        for draw in (1, 2):
            place_n = np.repeat(np.arange(len(trial.test_n)), weights()[draw, trial.test_n].astype(int))
            row_n = trial.test_n[place_n]
            cost_nM, quality_nM = TABLE.cost_NM[row_n], TABLE.quality_NM[row_n]
            for name in ("carrot", "hull"):
                costs, qualities = [], []
                for choice_n in trial.choices[name][:, place_n]:
                    costs.append(np.mean([cost_nM[i, choice] for i, choice in enumerate(choice_n)]))
                    qualities.append(np.mean([quality_nM[i, choice] for i, choice in enumerate(choice_n)]))
                expected = aiq(Curve(np.array(costs), np.array(qualities)), max(cost_nM.mean(0)))
                assert readings()[name].aiq_TB[number, draw] == pytest.approx(expected)


def test_a_draw_without_test_prompts_has_no_value() -> None:
    weight_BN = np.ones((2, COUNT))
    weight_BN[1, comparison().trials[0].test_n] = 0
    aiq_TB = read(comparison(), weight_BN, ["hull"])["hull"].aiq_TB
    assert np.isnan(aiq_TB[0, 1]) and np.isfinite(np.delete(aiq_TB.ravel(), 1)).all()
    figure = as_figure(aiq_TB)
    assert figure and figure.value == pytest.approx(aiq_TB[:, 0].mean())


def test_the_interval_over_splits_by_hand() -> None:
    # Deviation 1 over three splits, each with a quarter as many test as training prompts.
    half = stats.t.ppf(0.975, 2) * (1 / 3 + 1 / 4) ** 0.5
    alike = as_figure(np.array([[1.0], [2], [3]]))
    assert alike and (alike.low, alike.high) == (pytest.approx(2 - half), pytest.approx(2 + half))
    figure = as_figure(np.array([[1.0, 1], [2, 2], [3, 30]]))
    assert figure and figure.value == 2
    assert figure.low == pytest.approx(2 - 0.975 * 9)  # the draws' end is the wider here: means 2 and 11, reflected
    assert figure.high == pytest.approx(2 + half)  # and here the splits'


def test_one_split_has_the_interval_over_prompts_alone() -> None:
    # Percentiles 1.1 and 4.9 of draws that lie above the value: it is as likely to lie above the truth.
    figure = as_figure(np.array([[1.0, 2, 3, 4, 5]]))
    assert figure and (figure.value, figure.low, figure.high) == (1, pytest.approx(-2.9), pytest.approx(0.9))
    assert as_figure(np.array([[np.nan, 1.0]])) is None


def test_auc_against_scikit_learn() -> None:
    random = np.random.default_rng(0)
    score_n = random.integers(0, 6, 50) / 5  # with ties
    positive_n = random.random(50) < 0.4
    weight_Bn = random.integers(0, 4, (6, 50)).astype(float)
    expected = [roc_auc_score(positive_n, score_n, sample_weight=weight_n) for weight_n in weight_Bn]
    assert auc(score_n, positive_n, weight_Bn) == pytest.approx(expected)
    assert np.isnan(auc(score_n, np.ones(50, bool), weight_Bn)).all()


def test_a_router_that_knows_the_answers_knows_more_than_the_task() -> None:
    lines = within_tasks(compared(1.0), "carrot", weights())
    assert list(lines) == ["maths", "verse", MEAN]
    for line in lines.values():
        right, better, lost = line[RIGHT], line[BETTER], line[LOST]
        assert right and better and (right.value, better.value) == (1, 1)
        assert lost and lost.side() == 1
    prompts = lines["maths"][PROMPTS]
    assert prompts and 45 < prompts.value < 75


def test_the_task_table_knows_nothing_within_a_task_and_a_pair_router_by_its_score_alone() -> None:
    for line in within_tasks(comparison(), "task table", weights()).values():
        assert line[GAIN] == Figure(0, 0, 0)
        assert line[RIGHT] == line[BETTER] == Figure(0.5, 0.5, 0.5)
    line = within_tasks(comparison(), "pair, logistic", weights())[MEAN]
    assert line[RIGHT] is None and line[BETTER] and line[BETTER].side(0.5) == 0


def test_a_trial_with_nothing_to_tell_apart_does_not_count_nor_does_a_small_task() -> None:
    rare = replace(comparison(), table=replace(TABLE, tasks=("rare",) * 8 + TABLE.tasks[8:]))
    assert list(within_tasks(rare, "carrot", weights())) == ["maths", "verse", MEAN]
    first, *others = comparison().trials
    empty = replace(comparison(), trials=[first.only(np.zeros(COUNT, bool)), *others])
    one, other = (within_tasks(each, "carrot", weights()) for each in (empty, replace(comparison(), trials=others)))
    for task, line in one.items():
        assert line[BETTER] and line[BETTER].value == pytest.approx(other[task][BETTER].value)  # type: ignore[union-attr]
    alike = replace(comparison(), table=replace(TABLE, quality_NM=np.ones_like(TABLE.quality_NM)))
    for line in within_tasks(alike, "carrot", weights()).values():
        assert line[BETTER] is None and line[RIGHT] is None and line[GAIN]


def test_gains_are_paired_and_claimed_only_above_zero() -> None:
    trained = set(measured().comparison.routers) - {"hull", "best single", "oracle", "task table"}
    gains = {name: measured().gain(name, "task table") for name in trained}
    assert {name for name, gain in gains.items() if gain and gain.side() > 0} == {"carrot"}
    gain = measured().gain("carrot", "hull")
    assert gain and gain.value == pytest.approx(
        np.mean(readings()["carrot"].aiq_TB[:, 0]) - np.mean(readings()["hull"].aiq_TB[:, 0])
    )
    assert measured().gain("hull", "hull") == as_figure(np.zeros((3, 2)))


def test_a_defeat_is_told() -> None:
    near, tasks = as_result([judged(compared(known=0.0))], "c", 0).judgements
    assert near.verdict == "contradicted"
    # On so few prompts not even an oracle is above the table for sure.
    assert tasks.verdict == "cannot be seen here" and tasks.gates[0].side == 0 and tasks.parts[0].side == -1
    result = as_result([measured()], "c", 0)
    assert [one.verdict for one in result.judgements] == ["reproduced", "cannot be seen here"]
    assert "CARROT is above the task table" in result.verdict


def test_the_result_can_be_written_and_read(tmp_path: Path) -> None:
    result = as_result([measured()], "python -m mofme route evaluate world", 0)
    save_result(result, tmp_path)
    assert load_result("llm_routing", tmp_path) == result
    headings, lines = result.tables()["world: AIQ"]
    gains = ["AIQ, gain over the hull", "quality, gain over the best single", "AIQ, gain over the task table"]
    assert headings[1:] == ["AIQ", *gains]
    assert [line[0] for line in lines] == list(comparison().routers)
    time = {row.name: row.figures for row in result.rows if "processor time" in row.table}
    assert time["carrot"]["without embedding"].value == 2
    assert time["carrot"]["with embedding"].value == 22


@pytest.mark.parametrize("router", [Hull(), Oracle(TABLE)])
def test_every_prompt_is_timed_by_itself_on_one_thread(router: Hull | Oracle) -> None:
    asked: list[Sequence[str]] = []

    def embed(prompts: Sequence[str]) -> Queries:
        assert torch.get_num_threads() == 1
        asked.append(tuple(prompts))
        return QUERIES

    router.fit(TABLE, QUERIES)
    torch.set_num_threads(2)
    try:
        embedding, choice = milliseconds([router], QUERIES.rows([0, 1, 2]), embed)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)
    assert asked == [("prompt 0",), ("prompt 0",), ("prompt 1",), ("prompt 2",)]  # the first to warm up
    assert embedding.shape == choice[router.name].shape == (3,) and (choice[router.name] > 0).all()


def test_the_best_model_may_cost_nothing() -> None:
    names = (JUDGED, "best single")
    rows = [Row(f"t: {DOLLARS}", name, {"for 95% of its quality": Figure(0.0, 0.0, 0.0)}) for name in names]
    assert "quality for" not in judge(Result("llm_routing", "", "", "", "", rows)).verdict
