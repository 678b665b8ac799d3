import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from mofme.cli.app import app
from mofme.core.weights import load_card
from mofme.errors import ModelError, TableError
from mofme.measure.result import load_result, save_result
from mofme.papers.mixture_of_routers.experiment import (
    ARMS,
    MEAN,
    Findings,
    Outcome,
    Setting,
    Shipping,
    TaskFacts,
    as_result,
    compare,
    difference,
)
from mofme.papers.mixture_of_routers.model import LoraMixture

NOUNS = ["cat", "dog", "horse", "bird", "fish", "cow", "goat", "hen", "mouse", "bear"]
VERBS = ["sleeps", "eats grass"]


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MOFME_CACHE", str(tmp_path / "cache"))
    rows = [f"the {noun} {verb},animal" for noun in NOUNS for verb in VERBS]
    rows += [f"what is {a * 7} plus {b * 13},number" for a in range(10) for b in range(1, 3)]
    path = tmp_path / "kinds.csv"
    path.write_text("text,label\n" + "\n".join(rows) + "\n")
    return path


def test_it_goes_on_where_it_stopped_and_ships_adapters(table: Path, tmp_path: Path) -> None:
    said: list[str] = []
    setting, arms = Setting(steps=1, batch=4), tmp_path / "arms"
    first = compare([table], setting, range(1), arms, said.append, Shipping(tmp_path / "mine", "CC0"))
    assert [line for line in said if "seed 0" in line] == [f"seed 0, kinds.csv: {arm}" for arm in ARMS]
    assert LoraMixture.from_pretrained(str(tmp_path / "mine")).labels == ("animal", "number")
    assert load_card(tmp_path / "mine").training["steps"] == 1
    (arms / "kinds.csv-1-0.json").unlink()
    old = arms / "kinds.csv-2-0.json"  # as runs kept it before: a text of 0 and 1
    plain = json.loads(old.read_text())
    old.write_text(json.dumps({**plain, "right_N": "".join(map(str, plain["right_N"]))}))
    said.clear()
    again = compare([table], setting, range(1), arms, said.append)
    assert said == ["seed 0, kinds.csv: wide router, as large as 2", "kinds.csv: reading"]
    for arm in ARMS:
        ours, theirs = first.outcomes["kinds"][arm][0], again.outcomes["kinds"][arm][0]
        assert ours.right_N.tolist() == theirs.right_N.tolist() and ours.load == theirs.load
    facts = first.tasks[0]
    assert facts.classes == 2 and facts.training + facts.validation + len(facts.right_N) == 40


def test_tables_of_one_name_are_refused(table: Path, tmp_path: Path) -> None:
    with pytest.raises(TableError, match="rename one"):
        compare([table, tmp_path / "other" / table.name], Setting(), range(1), tmp_path / "arms", lambda _: None)


def test_the_command(table: Path, tmp_path: Path) -> None:
    words = ["evaluate", "mixture-of-routers", str(table), "--arms", str(tmp_path / "arms"), "--steps", "1"]
    words += ["--batch", "2", "--seeds", "1", "--out", str(tmp_path / "out"), "--json"]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    result = load_result("mixture_of_routers", tmp_path / "out")
    assert str(tmp_path) not in result.command and "kinds.csv --arms arms --steps 1" in result.command


def made_up(
    right: Callable[[str, str, int], list[int]], tasks: tuple[str, ...] = ("one", "two"), seeds: int = 3
) -> Findings:
    outcomes = {
        task: {arm: [Outcome(np.array(right(task, arm, seed)), 0.5, 1.0, 100) for seed in range(seeds)] for arm in ARMS}
        for task in tasks
    }
    return Findings([TaskFacts(task, 2, 30, 10, np.array([1, 0])) for task in tasks], outcomes)


def test_differences_by_hand() -> None:
    # The mixture of 2 is right on the first 60, 70, 80 of 100, every other arm on the first 50: +10, +20, +30 points.
    # Mean 20, deviation 10, Student's quantile of 2 degrees 4.303: 20 +- 4.303 * 10 / sqrt(3).
    def right(task: str, arm: str, seed: int) -> list[int]:
        count = 60 + 10 * seed if arm == "mixture of 2" else 50
        return [1] * count + [0] * (100 - count)

    measured = made_up(right)
    for task in ("one", MEAN):
        gain = difference(measured, task, "mixture of 2", "single router")["gain, points"]
        assert gain.value == pytest.approx(20)
        assert gain.low is not None and gain.high is not None
        assert gain.low == pytest.approx(20 - 24.84, abs=0.01) and gain.high == pytest.approx(20 + 24.84, abs=0.01)


def test_no_difference_is_not_called_a_contradiction() -> None:
    generator = np.random.default_rng(0)
    measured = made_up(lambda task, arm, seed: generator.integers(2, size=200).tolist(), seeds=5)
    verdict = as_result(measured, range(5), "x").verdict
    assert verdict.startswith("Cannot be seen here") and "within the noise of the seeds" in verdict


def test_one_seed_decides_nothing() -> None:
    measured = made_up(lambda task, arm, seed: [1, 0] * 20, seeds=1)
    (judgement,) = as_result(measured, range(1), "x").judgements
    assert judgement.verdict == "cannot be seen here" and {part.side for part in judgement.parts} == {0}


def test_a_difference_on_all_is_said_and_saved(tmp_path: Path) -> None:
    def right(task: str, arm: str, seed: int) -> list[int]:
        count = (90 if arm.startswith("mixture") else 70) + seed
        return [1] * count + [0] * (100 - count)

    measured = made_up(right, seeds=5)
    result = as_result(measured, range(5), "x")
    # 72 of 100 without a mixture where the head alone gets half: the gate is passed.
    assert result.verdict.startswith("Reproduced") and "+20.00" in result.verdict
    assert load_result("mixture_of_routers", save_result(result, tmp_path).parent).rows == result.rows


def test_another_table_of_the_same_name_is_refused(table: Path, tmp_path: Path) -> None:
    def begin(_: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        compare([table], Setting(), range(1), tmp_path / "arms", begin)
    table.write_text(table.read_text().replace("cat", "owl"))
    with pytest.raises(ModelError, match="another content"):
        compare([table], Setting(), range(1), tmp_path / "arms", begin)


def test_tables_of_one_task_are_refused(table: Path, tmp_path: Path) -> None:
    other = tmp_path / "kinds.txt"
    other.write_text(table.read_text())
    with pytest.raises(TableError, match="a task called kinds"):
        compare([table, other], Setting(steps=1, batch=4), range(1), tmp_path / "arms", lambda _: None)
