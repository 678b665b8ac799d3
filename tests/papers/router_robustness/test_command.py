import csv
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from mofme.cli.app import app
from mofme.language.sentence_encoder import Queries, SentenceEncoder
from mofme.language.tables.table import FloatArray
from mofme.measure.result import load_result
from mofme.papers.carrot.carrot import Estimate
from mofme.papers.carrot.trained_router import TrainedRouter
from mofme.papers.router_robustness import assessment, experiment, routers
from mofme.papers.router_robustness.routers import TRAINERS


def embed(prompts: Sequence[str]) -> FloatArray:
    """Whether there are digits, and what else tells one prompt from another, stand for what an encoder sees."""
    rows = [
        np.r_[2.0 * any(c.isdigit() for c in prompt), np.random.default_rng(list(prompt.encode())).normal(size=24) / 4]
        for prompt in prompts
    ]
    embeddings = np.array(rows, np.float64)
    return embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)


class ThreeModels:
    """The best model is expected to be better the longer the prompt is."""

    models = ("small", "middle", "large")

    def queries(self, prompts: Sequence[str]) -> Queries:
        return Queries(prompts, embed(prompts))

    def estimate(self, queries: Queries) -> Estimate:
        length_N = np.array([min(len(prompt), 500) / 500 for prompt in queries.prompts])
        quality_NM = np.stack([0.2 + 0 * length_N, 0.3 + 0 * length_N, 0.4 + 0.5 * length_N], axis=1)
        return Estimate(quality_NM, np.tile([0.1, 0.5, 1.0], (len(length_N), 1)))


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SentenceEncoder, "queries", lambda _, prompts: Queries(prompts, embed(prompts)))
    monkeypatch.setattr(TrainedRouter, "from_pretrained", lambda _: ThreeModels())
    monkeypatch.setattr(assessment, "DRAWS", 20)
    names = ("logistic", "neighbours")
    monkeypatch.setattr(experiment, "TRAINERS", {name: TRAINERS[name] for name in names})
    monkeypatch.setattr(experiment, "QUICK", names[:1])
    monkeypatch.setattr(routers, "SHARES", (0.01,))


def run(*arguments: object) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, ["route", "robustness", *map(str, arguments)])
    return result.exit_code, result.stdout, result.stderr


def write_table(path: Path, tasks: str = "ab", count: int = 120) -> Path:
    """Prompts with a number, a third, need the large model. The tasks go round, or are "needs" and "does not"."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["prompt", "task", "quality:large", "cost:large", "quality:small", "cost:small"])
        for n in range(count):
            needs = n % 3 == 0
            easy = f"Say {'very ' * (n % 7)}well: {chr(97 + n % 26)} {'x' * n}"
            task = tasks[n % 2] if tasks else str(needs)
            row = [
                f"What comes after {n} and {n + 2}, roughly?" if needs else easy,
                task,
                1,
                0.02,
                int(not needs),
                0.001,
            ]
            writer.writerow(row)
    return path


def test_without_any_data_the_shipped_router_is_probed(tmp_path: Path) -> None:
    code, output, _ = run("--router", "router", "--json", "--out", tmp_path)
    assert code == 0
    result = load_result("llm_robustness", tmp_path)
    assert json.loads(output)["verdict"] == result.verdict
    assert "to large, the rest to " in result.verdict
    assert result.command == "python -m mofme route robustness --router router"
    shares = {row.name: row.figures for row in result.rows if row.table == "router: calls to the strong model, %"}
    assert len(shares) == 7
    assert shares["coding"]["always strong"].value == 100
    # It decides by length alone, and the hard prompts are the longer ones.
    cells = {row.name: row.figures for row in result.rows if "simple and hard" in row.table}
    assert all(cells[f"{c}, hard"]["router"].value > cells[f"{c}, simple"]["router"].value for c in shares)


def test_a_table_is_learnt_from_and_everything_measured(tmp_path: Path) -> None:
    table = write_table(tmp_path / "mine.csv")
    code, output, progress = run("--table", table, "--seeds", 2, "--out", tmp_path)
    assert code == 0, progress
    result = load_result("llm_robustness", tmp_path)
    assert result.command == "python -m mofme route robustness --table mine.csv --seeds 2"
    assert list(result.seeds) == [0, 1]
    assert result.verdict.startswith("On routers trained on mine: all coding goes to the strong model: ")
    titles = {row.table for row in result.rows}
    assert titles >= {
        "mine: claims",
        "mine: calls to the strong model, %",
        "mine: waste",
        "mine: backdoor to the strong model, %",
        "mine: backdoor to the weak model, %",
        "mine, tasks balanced: waste",
    }
    waste = {row.name: row.figures for row in result.rows if row.table == "mine: waste"}
    # A third of the prompts needs the large model: two thirds of always asking it are wasted.
    assert waste["always strong"]["of these wasted, %"].value == pytest.approx(200 / 3, abs=12)
    assert waste["logistic"]["of these wasted, %"].value < waste["always strong"]["of these wasted, %"].value
    assert waste["logistic"]["AUC"].value > 0.95
    assert "mine: probing" in progress
    assert result.verdict[:60] in output.replace("\n", " ")


def test_tasks_that_tell_everything_leave_nothing_to_balance(tmp_path: Path) -> None:
    code, _, progress = run("--table", write_table(tmp_path / "mine.csv", tasks=""), "--seeds", 1, "--out", tmp_path)
    assert code == 0 and "balanced training is left out" in progress


def test_what_cannot_be_used_is_told(tmp_path: Path) -> None:
    broken = tmp_path / "broken.csv"
    broken.write_text("prompt,quality:a,cost:a\nhello,1,0.1\n")
    twice = [write_table(tmp_path / f"x.{month}.csv") for month in ("jan", "feb")]
    (tmp_path / "empty").mkdir()
    for words, told in (
        (["--table", broken], "one model: routing needs two"),
        (["--queries", tmp_path / "empty"], "has no prompts: at least one of humaneval.jsonl"),
        (["--table", twice[0], "--table", twice[1]], "two tables are called x"),
    ):
        code, _, error = run(*words)
        assert code == 2 and told in error
