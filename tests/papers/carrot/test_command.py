import csv
import json
import re
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from mofme.cli.app import app
from mofme.core.weights import ModelCard, load_card, save_model
from mofme.errors import ModelError
from mofme.measure.result import load_result
from mofme.papers.carrot import command, experiment
from mofme.papers.carrot.carrot import CarrotRouter
from mofme.papers.carrot.simulation import WORLDS, World
from mofme.papers.carrot.trained_router import train_router
from tests.ui.toy_router import WordEncoder, toy_table

PROMPT = "Who wrote the song about a yellow submarine?"


def run(*words: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, ["route", *words])
    return result.exit_code, result.stdout, result.stderr


@pytest.mark.parametrize("words", [[PROMPT], ["prompt", PROMPT], ["--cost-weight", "0", PROMPT]])
def test_a_prompt_is_routed_with_or_without_the_subcommand(words: list[str]) -> None:
    code, out, _ = run(*words)
    assert code == 0
    assert out.startswith("ask llama") and "gemma-2-9b-it" in out


def test_json_and_nothing_else() -> None:
    code, out, _ = run(PROMPT, "--cost-weight", "1", "--json")
    answer = json.loads(out)
    costs = {name: model["cost"] for name, model in answer["models"].items()}
    assert code == 0 and len(costs) == 9
    assert costs[answer["model"]] == min(costs.values())
    assert answer["neighbours"][0].keys() == {"similarity", "task", "solved_by"}


def test_a_prompt_that_is_called_like_a_subcommand() -> None:
    assert run("prompt", "train", "--json")[0] == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([PROMPT, "--budget", "1", "--quality", "0.5"], "give one of"),
        ([" "], "blank"),
        ([PROMPT, "--router", "nothing"], "no router is called 'nothing'"),
        ([PROMPT, "--quality", "2"], "less than or equal to 1"),
    ],
)
def test_what_cannot_be_done_is_said(words: list[str], message: str) -> None:
    code, _, err = run(*words)
    assert code == 2 and message in err


def test_train_writes_a_router_that_routes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOFME_CACHE", str(tmp_path / "cache"))
    rows = [
        (f"What is {a} times {b}?", 1, 0) if (a + b) % 2 else (f"Name an animal beginning with {chr(65 + a)}{b}.", 1, 1)
        for a in range(6)
        for b in range(8)
    ]
    lines = [f'"{prompt}",{dear},{cheap},0.001,0.0001' for prompt, dear, cheap in rows]
    table = tmp_path / "table.csv"
    table.write_text("prompt,quality:dear,quality:cheap,cost:dear,cost:cheap\n" + "\n".join(lines) + "\n")
    out = tmp_path / "mine"
    code, _, err = run("train", str(table), "--out", str(out), "--estimator", "knn", "--licence", "my own")
    assert code == 0, err
    card = json.loads((out / "card.json").read_text())
    assert card["licence"] == "my own" and card["training"]["prompts"] == 48 and "AIQ, hull" in card["metrics"]
    assert CarrotRouter.load(out).models == ("dear", "cheap")
    assert "animal" not in (out / "card.json").read_text() and b"animal" not in (out / "model.safetensors").read_bytes()
    code, printed, _ = run("What is 7 times 9?", "--router", str(out), "--quality", "0.8", "--json")
    assert code == 0 and json.loads(printed)["model"] == "dear"


@pytest.mark.parametrize("words", [["--estimator", "magic"], []])
def test_train_that_cannot_begin_writes_nothing(words: list[str], tmp_path: Path) -> None:
    table = tmp_path / "table.csv"
    table.write_text("prompt,quality:a,quality:b,cost:a,cost:b\n" + "one,1,0,1,1\n")
    code, _, err = run("train", str(table), "--out", str(tmp_path / "out"), *words)
    assert code == 2 and "error: " in err
    assert not (tmp_path / "out").exists()


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


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setattr("mofme.papers.carrot.simulation.WORLDS", WORLDS[1:2])
    monkeypatch.setattr("mofme.papers.carrot.command._SIMULATED", range(2))
    return WORLDS[1]


def test_it_writes_what_it_prints(quick: World, tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["route", "simulate", "--largest", "5000", "--out", str(tmp_path), "--json"])
    assert done.exit_code == 0, done.output
    printed = json.loads(done.stdout)
    assert printed["command"] == "python -m mofme route simulate --largest 5000"
    assert printed["verdict"] == load_result("llm_routing_rate", tmp_path).verdict
    # 1,000 and 4,000 queries, besides the row of slopes.
    assert [row["name"] for row in printed["rows"]] == [quick.name, "n = 1,000", "n = 4,000"]


def test_a_folder_that_cannot_be_written_is_named(quick: World, tmp_path: Path) -> None:
    blocked = tmp_path / "a-file"
    blocked.touch()
    done = CliRunner().invoke(app, ["route", "simulate", "--largest", "4000", "--out", str(blocked)])
    assert done.exit_code == 2
    assert "a-file" in re.sub(r"[\s│]", "", done.stderr)  # a long path takes several lines


def test_a_router_does_not_replace_a_model_of_another_kind(tmp_path: Path) -> None:
    save_model(tmp_path, ModelCard("mine", "restoration", {}, "CC0"), {"w": torch.ones(1)})
    with pytest.raises(ModelError, match="would be replaced"):
        train_router(toy_table(), tmp_path, "knn", encoder=WordEncoder())
    assert load_card(tmp_path).net == "restoration"
