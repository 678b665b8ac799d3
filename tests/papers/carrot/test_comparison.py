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
from mofme.papers.carrot.baselines import BestSingle, Hull, Oracle, Pair, PairRouter, TaskTable
from mofme.papers.carrot.carrot import Estimate, EstimatingRouter
from mofme.papers.carrot.comparison import (
    MEAN,
    Comparison,
    Reading,
    Trial,
    as_figure,
    auc,
    compare,
    draw_weights,
    milliseconds_to_choose,
    milliseconds_to_embed,
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


def test_the_same_seed_makes_the_same_comparison() -> None:
    for one, other in zip(comparison().trials, compared().trials, strict=True):
        assert (one.test_n == other.test_n).all()
        assert all((one.choices[name] == other.choices[name]).all() for name in comparison().routers)


def test_nobody_beats_the_oracle() -> None:
    for reading in readings().values():
        assert (reading.aiq_TB <= readings()["oracle"].aiq_TB + 1e-3).all()


def test_the_first_reading_is_that_of_the_curve() -> None:
    for number, trial in enumerate(comparison().trials):
        truth = TABLE.rows(trial.test_n)
        best = curve_of(trial.choices["best single"], truth)
        for name, reading in readings().items():
            curve = curve_of(trial.choices[name], truth)
            assert reading.aiq_TB[number, 0] == pytest.approx(aiq(curve, truth.cost_NM.mean(0).max()))
            assert reading.quality_TB[number, 0] == pytest.approx(quality_at(curve, best.cost_S[0]))


def test_draws_are_of_whole_groups_with_replacement() -> None:
    assert (weights()[0] == 1).all()
    assert (weights()[:, 0::2] == weights()[:, 1::2]).all()
    assert (weights().sum(1) == COUNT).all()


def test_the_bootstrap_against_a_loop() -> None:
    """Each drawn prompt as a row of its own, as often as it was drawn."""
    for number, trial in enumerate(comparison().trials):
        for draw in range(1, 5):
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
    lines = {line.task: line for line in within_tasks(compared(1.0), "carrot", "task table", weights())}
    assert list(lines) == ["maths", "verse", MEAN]
    for line in lines.values():
        assert line.correct and line.correct.value == 1
        assert line.better and line.better.value == 1
        assert line.lost and line.lost.low and line.lost.low > 0
    assert 45 < lines["maths"].prompts < 75


def test_the_task_table_knows_nothing_within_a_task() -> None:
    lines = within_tasks(comparison(), "task table", "task table", weights())
    for line in lines:
        assert line.gain == Figure(0, 0, 0)
        assert line.correct == line.better == Figure(0.5, 0.5, 0.5)


def test_a_pair_router_is_judged_by_its_score_alone() -> None:
    line = within_tasks(comparison(), "pair, logistic", "task table", weights())[-1]
    assert line.correct is None
    assert line.better and line.better.low is not None and line.better.low < 0.5 < (line.better.high or 0)


def test_a_trial_with_nothing_to_tell_apart_does_not_count() -> None:
    first, *others = comparison().trials
    empty = replace(comparison(), trials=[first.only(np.zeros(COUNT, bool)), *others])
    without = replace(comparison(), trials=others)
    lines = [within_tasks(each, "carrot", "task table", weights()) for each in (empty, without)]
    for one, other in zip(*lines, strict=True):
        assert one.better and other.better and one.better.value == pytest.approx(other.better.value)
    alike = replace(comparison(), table=replace(TABLE, quality_NM=np.ones_like(TABLE.quality_NM)))
    for line in within_tasks(alike, "carrot", "task table", weights()):
        assert line.better is None and line.correct is None and line.gain


def test_small_tasks_are_left_out() -> None:
    rare = replace(TABLE, tasks=("rare",) * 8 + TABLE.tasks[8:])
    lines = within_tasks(replace(comparison(), table=rare), "carrot", "task table", weights())
    assert "rare" not in [line.task for line in lines]


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
    assert headings[1:] == [
        "AIQ",
        "AIQ, gain over the hull",
        "quality, gain over the best single",
        "AIQ, gain over the task table",
    ]
    assert [line[0] for line in lines] == list(comparison().routers)
    time = {row.name: row.figures for row in result.rows if "processor time" in row.table}
    assert time["carrot"]["without embedding"].value == 2
    assert time["carrot"]["with embedding"].value == 22


def test_what_was_measured_does_not_depend_on_the_order_of_the_models() -> None:
    order = [2, 0, 1]
    table = TABLE.keep_models([TABLE.models[model] for model in order])
    moved = compare(table, QUERIES, [BestSingle(), Hull(), TaskTable()], splits=2, seed=1)
    as_was = compare(TABLE, QUERIES, [BestSingle(), Hull(), TaskTable()], splits=2, seed=1)
    one, other = (read(each, np.ones((1, COUNT))) for each in (moved, as_was))
    for name in one:
        assert one[name].aiq_TB == pytest.approx(other[name].aiq_TB)


def test_a_trial_of_some_prompts_only() -> None:
    quality_nM: FloatArray = np.arange(6.0).reshape(3, 2)
    trial = Trial(np.array([4, 7, 9]), Pair(0, 1), {"r": np.array([[0, 1, 0]], np.int16)}, {"r": quality_nM}, {})
    wanted_N = np.zeros(10, bool)
    wanted_N[[7, 9]] = True
    some = trial.only(wanted_N)
    assert some.test_n.tolist() == [7, 9]
    assert some.choices["r"].tolist() == [[1, 0]]
    assert some.quality["r"].tolist() == [[2, 3], [4, 5]]


def test_every_prompt_is_embedded_by_itself_on_one_thread() -> None:
    asked: list[Sequence[str]] = []

    def embed(prompts: Sequence[str]) -> Queries:
        assert torch.get_num_threads() == 1
        asked.append(tuple(prompts))
        return Queries(prompts, np.eye(1))

    torch.set_num_threads(2)
    try:
        milliseconds = milliseconds_to_embed(embed, ["p", "q", "r"])
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)
    assert asked == [("p",), ("p",), ("q",), ("r",)]  # the first to warm up
    assert milliseconds.shape == (3,) and (milliseconds >= 0).all()


@pytest.mark.parametrize("router", [Hull(), Oracle(TABLE)])
def test_every_prompt_is_decided_by_itself(router: Hull | Oracle) -> None:
    router.fit(TABLE, QUERIES)
    milliseconds = milliseconds_to_choose(router, QUERIES.rows([0, 1, 2]))
    assert milliseconds.shape == (3,) and (milliseconds > 0).all()


def test_the_best_model_may_cost_nothing() -> None:
    names = (JUDGED, "best single")
    rows = [Row(f"t: {DOLLARS}", name, {"for 95% of its quality": Figure(0.0, 0.0, 0.0)}) for name in names]
    assert "quality for" not in judge(Result("llm_routing", "", "", "", "", rows)).verdict
