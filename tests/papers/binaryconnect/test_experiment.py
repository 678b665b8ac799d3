"""What is measured of runs, and how it is told."""

from pathlib import Path

import pytest
from scipy import stats

from mofme.errors import ModelError
from mofme.measure.result import Figure, load_result, save_result
from mofme.papers.binaryconnect.experiment import REAL, SIGNS, Evaluation, Outcome, as_result, evaluate
from mofme.papers.binaryconnect.net import Mnist
from mofme.papers.binaryconnect.training import Plan, Run, train


def silent(_: str) -> None:
    pass


@pytest.fixture(scope="module")
def evaluation(mnist: Mnist, tmp_path_factory: pytest.TempPathFactory) -> Evaluation:
    folder = tmp_path_factory.mktemp("runs")
    for arm in ("float", "stochastic", "deterministic"):
        train(Plan(arm, epochs=8, batch=50, width=64), mnist, folder, silent)
    return evaluate(folder, mnist, nets=2, repeats=2, report=silent)


def test_every_arm_is_tested_with_the_options_it_knows(evaluation: Evaluation) -> None:
    assert [one.run.plan.arm for one in evaluation.tested] == ["deterministic", "stochastic", "float"]
    assert [len(one.wrong) for one in evaluation.tested] == [6, 6, 2]
    assert [one.own_option for one in evaluation.tested] == [SIGNS, REAL, REAL]
    # guessing takes 90 of 100 for another
    assert all(one.wrong[one.own_option, True] < 20 for one in evaluation.tested)
    assert {batch for _, batch in evaluation.milliseconds} == {1, 100}
    assert all(len(taken) == 2 and min(taken) > 0 for taken in evaluation.milliseconds.values())


def test_packed_nets_are_small_and_answer_the_same(evaluation: Evaluation) -> None:
    assert list(evaluation.packed) == ["deterministic-0", "stochastic-0"]
    for figures in evaluation.packed.values():
        assert figures["predictions that differ"].value == 0
        # 784 x 64 + 2 x 64 x 64 + 64 x 10 = 59,008 weights: 4 bytes against 1 bit each, and some for scales and names
        assert 59.008 * 4 < figures["single precision, kB"].value < 240
        assert 59.008 / 8 < figures["packed, kB"].value < 12


def run(arm: str, seed: int) -> Run:
    plan = Plan(arm, seed, epochs=10)
    return Run(plan, 10, 120.0, best_epoch=9, best_error=0.02)


def test_errors_become_percent_with_intervals(tmp_path: Path) -> None:
    signs = {(option, anew): 150 for option in (SIGNS, REAL, "3: an ensemble of drawn signs") for anew in (True, False)}
    one = Evaluation(
        [Outcome(run("deterministic", 0), signs), Outcome(run("float", 0), {(REAL, True): 100, (REAL, False): 100})],
        {"deterministic-0": {"times smaller": Figure(30.5), "predictions that differ": Figure(0)}},
        digits=10_000,
    )
    result = as_result(one, "python -m mofme binary evaluate")
    told = {name: figure.value for name, figure in result.rows[0].figures.items()}
    assert (told["error, %"], told["published, %"], told["epochs"], told["seeds"]) == (1.5, 1.29, 10, 1)
    assert told["CPU minutes a run"] == 2
    error = result.figure("test error", "deterministic", "error, %")
    wilson = stats.binomtest(150, 10_000).proportion_ci(method="wilson")
    assert (error.low, error.high) == pytest.approx((100 * wilson.low, 100 * wilson.high))
    assert "Deterministic: 1.50 % of the test digits (1.29 published)." in result.verdict
    assert "30.5 times smaller and at most 0 predictions differ" in result.verdict
    assert result.judgements == []  # two arms of four
    assert result.figure("size on disk", "deterministic-0", "times smaller").value == 30.5
    save_result(result, tmp_path)
    assert load_result("binary_mnist", tmp_path).tables().keys() == {"test error", "test-time options", "size on disk"}


def test_several_seeds_have_students_interval() -> None:
    tested = [Outcome(run("float", seed), {(REAL, True): wrong}) for seed, wrong in enumerate((100, 120, 140))]
    error = as_result(Evaluation(tested, {}, 10_000), "").rows[0].figures["error, %"]
    # mean 1.2, deviation .2, t of 2 degrees of freedom 4.3027: half 4.3027 * .2 / sqrt(3) = .4968
    assert (error.value, error.low, error.high) == pytest.approx((1.2, 0.7032, 1.6968), abs=1e-4)


def test_incomplete_runs_are_left_out_in_words(mnist: Mnist, tmp_path: Path) -> None:
    def stop(line: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(Plan("float", epochs=2, batch=50, width=8), mnist, tmp_path, stop)
    lines: list[str] = []
    with pytest.raises(ModelError, match="no complete run"):
        evaluate(tmp_path, mnist, 1, 2, lines.append)
    assert lines == ["float-0 is left out: 1 of 2 epochs are done"]
