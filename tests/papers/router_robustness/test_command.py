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
from mofme.papers.router_robustness import experiment
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
    names = ("logistic", "neighbours")
    monkeypatch.setattr(experiment, "TRAINERS", {name: TRAINERS[name] for name in names})
    monkeypatch.setattr(experiment, "QUICK", names)


def run(*arguments: object) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, ["route", "robustness", *map(str, arguments)])
    return result.exit_code, result.stdout, result.stderr


def write_table(path: Path, count: int = 120) -> Path:
    """Prompts with a number need the large model."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["prompt", "task", "quality:large", "cost:large", "quality:small", "cost:small"])
        for n in range(count):
            needs = n % 3 == 0
            text = (
                f"What comes after {n} and {n + 2}, roughly?"
                if needs
                else f"Say {'very ' * (n % 7)}well: {chr(97 + n % 26)} {'x' * n}"
            )
            writer.writerow([text, "ab"[n % 2], 1, 0.02, 0 if needs else 1, 0.001])
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


def test_a_table_that_cannot_be_used(tmp_path: Path) -> None:
    table = tmp_path / "broken.csv"
    table.write_text("prompt,quality:a,cost:a\nhello,1,0.1\n")
    code, _, error = run("--table", table)
    assert code == 2
    assert "one model: routing needs two" in error


def test_a_folder_without_prompts(tmp_path: Path) -> None:
    code, _, error = run("--queries", tmp_path)
    assert code == 2
    assert "has no prompts" in error


def test_tasks_that_tell_everything_leave_nothing_to_balance(tmp_path: Path) -> None:
    path = write_table(tmp_path / "mine.csv")
    with path.open(encoding="utf-8", newline="") as file:
        header, *rows = list(csv.reader(file))
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *([row[0], "ab"[row[4] == "0"], *row[2:]] for row in rows)])
    code, _, progress = run("--table", path, "--seeds", 1, "--out", tmp_path)
    assert code == 0 and "balanced training is left out" in progress


def test_two_tables_of_one_name(tmp_path: Path) -> None:
    tables = [write_table(tmp_path / f"{month}.a.csv") for month in ("a", "b")]
    twice = tables[0].rename(tmp_path / "x.jan.csv"), tables[1].rename(tmp_path / "x.feb.csv")
    code, _, error = run("--table", twice[0], "--table", twice[1])
    assert code == 2 and "two tables are called x" in error
