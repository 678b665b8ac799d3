import csv
import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from mofme.cli.app import app
from mofme.measure.result import load_result
from mofme.papers.carrot import command, experiment

SUMS = [f"What is {a} plus {a * 7 + 3}?" for a in range(30)]
POEMS = [
    f"Write a short poem about a {colour} {thing}."
    for colour in ("red", "blue", "old", "tiny", "golden", "sleepy")
    for thing in ("ship", "cat", "door", "river", "star")
]


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sums need the dear model; poems do not."""
    path = tmp_path_factory.mktemp("table") / "mine.csv"
    random = np.random.default_rng(0)
    with path.open("w", newline="", encoding="utf-8") as file:
        lines = csv.writer(file)
        lines.writerow(["prompt", "task", "quality:cheap", "cost:cheap", "quality:dear", "cost:dear"])
        for prompt in SUMS + POEMS:
            poem = prompt.startswith("Write")
            lines.writerow([prompt, "poem" if poem else "sum", int(poem or random.random() < 0.1), 0.001, 1, 0.01])
    return path


@pytest.fixture(scope="module")
def ran(table: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, str]:
    folder = tmp_path_factory.mktemp("out")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MOFME_CACHE", str(folder / "cache"))
        patch.setattr(command, "_TIMED", 2)
        patch.setattr(experiment, "measure", partial(experiment.measure, draws=50))
        arguments = ["route", "evaluate", str(table), "--splits", "2", "--seed", "0", "--out", str(folder), "--json"]
        outcome = CliRunner().invoke(app, arguments)
    assert outcome.exit_code == 0, outcome.stderr
    return folder, outcome.stdout, outcome.stderr


def test_json_is_all_that_is_printed(ran: tuple[Path, str, str]) -> None:
    printed = json.loads(ran[1])
    assert printed["room"] == "llm_routing" and printed["verdict"]
    aiq = {row["name"]: row["figures"]["AIQ"] for row in printed["rows"] if row["table"] == "mine: AIQ"}
    routers = {"carrot", "stacked ensemble", "hull", "best single", "task table", "oracle", "complexity rule"}
    assert routers <= set(aiq)
    assert all(figure["low"] <= figure["value"] <= figure["high"] for figure in aiq.values())
    assert aiq["oracle"]["value"] > aiq["hull"]["value"]
    assert aiq["carrot"]["value"] > aiq["hull"]["value"]
    assert "split 2 of 2" in ran[2]


def test_result_and_plot_are_written(ran: tuple[Path, str, str]) -> None:
    folder = ran[0]
    result = load_result("llm_routing", folder)
    assert result.command == "python -m mofme route evaluate mine.csv --splits 2 --seed 0"
    assert "mine: AIQ" in {row.table for row in result.rows}
    with Image.open(folder / "llm_routing-mine.png") as picture:
        assert min(picture.size) > 300


@pytest.mark.parametrize(
    ("content", "fault"), [("prompt,quality:a,cost:a\nhello,1,-2\n", "below zero"), ("name,age\nx,1\n", "mine.csv")]
)
def test_a_table_that_cannot_be_used_is_refused(tmp_path: Path, content: str, fault: str) -> None:
    path = tmp_path / "mine.csv"
    path.write_text(content, encoding="utf-8")
    outcome = CliRunner().invoke(app, ["route", "evaluate", str(path), "--json"])
    assert outcome.exit_code == 2
    assert outcome.stdout == ""
    assert fault in outcome.stderr


def test_two_tables_of_one_name_are_refused(table: Path) -> None:
    outcome = CliRunner().invoke(app, ["route", "evaluate", str(table), str(table)])
    assert outcome.exit_code == 2
    assert "two tables are called mine" in outcome.stderr
