import json
import sys
from functools import partial
from pathlib import Path

import openai
import pytest
import torch
import uvicorn
from PIL import Image
from typer.testing import CliRunner

from mofme.cli.app import app
from mofme.core.weights import ModelCard, load_card, save_model
from mofme.errors import ModelError
from mofme.measure.result import load_result
from mofme.papers.carrot import command, experiment
from mofme.papers.carrot.carrot import CarrotRouter
from mofme.papers.carrot.simulation import WORLDS
from mofme.papers.carrot.trained_router import train_router
from tests.ui.toy_router import WordEncoder, toy_table

PROMPT = "Who wrote the song about a yellow submarine?"


def run(*words: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, ["route", *words])
    return result.exit_code, result.stdout, result.stderr


@pytest.mark.parametrize("words", [[PROMPT], ["prompt", "train"], ["--cost-weight", "0", PROMPT]])
def test_a_prompt_is_routed_with_or_without_the_subcommand(words: list[str]) -> None:
    code, out, _ = run(*words)
    assert code == 0 and out.startswith("ask ") and "gemma-2-9b-it" in out


def test_json_and_nothing_else() -> None:
    code, out, _ = run(PROMPT, "--cost-weight", "1", "--json")
    answer = json.loads(out)
    costs = {name: model["cost"] for name, model in answer["models"].items()}
    assert code == 0 and len(costs) == 9
    assert costs[answer["model"]] == min(costs.values())
    assert answer["neighbours"][0].keys() == {"similarity", "task", "solved_by"}


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


@pytest.mark.parametrize(
    ("words", "message"), [(["--budget", "1e-9"], "to cost as little"), (["--quality", "1"], "to be as good")]
)
def test_what_no_model_can_do_is_said(words: list[str], message: str) -> None:
    code, out, err = run(PROMPT, *words, "--json")
    assert code == 0 and json.loads(out)["model"] and message in err


def test_train_writes_a_router_that_routes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOFME_CACHE", str(tmp_path / "cache"))
    rows = [
        f"What is {a} times {b}?,1,0" if (a + b) % 2 else f"Name an animal beginning with {chr(65 + a)}{b}.,1,1"
        for a in range(6)
        for b in range(8)
    ]
    table = tmp_path / "table.csv"
    lines = [f"{row},0.001,0.0001" for row in rows]
    table.write_text("\n".join(["prompt,quality:dear,quality:cheap,cost:dear,cost:cheap", *lines]))
    out = tmp_path / "mine"
    code, _, err = run("train", str(table), "--out", str(out), "--estimator", "knn", "--licence", "my own")
    assert code == 0, err
    card = json.loads((out / "card.json").read_text())
    assert card["licence"] == "my own" and card["training"]["prompts"] == 48 and "AIQ, hull" in card["metrics"]
    assert CarrotRouter.load(str(out)).models == ("dear", "cheap")  # type: ignore[arg-type]
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


def test_what_a_repair_leaves_of_one_model_is_no_router(tmp_path: Path) -> None:
    table = tmp_path / "table.csv"
    rows = [f"question {i},{i % 2},0.1,," for i in range(40)]
    table.write_text("\n".join(["prompt,quality:a,cost:a,quality:b,cost:b", *rows]))
    code, _, err = run("train", str(table), "--out", str(tmp_path / "out"), "--repair")
    assert code == 2 and "dropped the model b" in err and "one model leaves nothing to choose" in err
    assert not (tmp_path / "out").exists()


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sums need the dear model; poems do not."""
    path = tmp_path_factory.mktemp("table") / "mine.csv"
    lines = ["prompt,task,quality:cheap,cost:cheap,quality:dear,cost:dear"]
    lines += [f"What is {a} plus {a * 7 + 3}?,sum,{int(a % 10 == 0)},0.001,1,0.01" for a in range(30)]
    colours, things = ("red", "blue", "old", "tiny", "golden", "sleepy"), ("ship", "cat", "door", "river", "star")
    lines += [f"Write a short poem about a {c} {t}.,poem,1,0.001,1,0.01" for c in colours for t in things]
    path.write_text("\n".join(lines) + "\n")
    return path


def test_what_is_measured_is_printed_written_and_drawn(
    table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MOFME_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(command, "_TIMED", 1)
    monkeypatch.setattr(experiment, "measure", partial(experiment.measure, draws=20))
    code, out, err = run("evaluate", str(table), "--splits", "1", "--seed", "0", "--out", str(tmp_path), "--json")
    assert code == 0 and "split 1 of 1" in err
    printed = json.loads(out)  # and nothing else
    assert printed["room"] == "llm_routing" and printed["verdict"]
    aiq = {row["name"]: row["figures"]["AIQ"] for row in printed["rows"] if row["table"] == "mine: AIQ"}
    routers = {"carrot", "stacked ensemble", "hull", "best single", "task table", "oracle", "complexity rule"}
    assert routers <= set(aiq)
    assert all(figure["low"] <= figure["high"] for figure in aiq.values())
    assert min(aiq[name]["value"] for name in ("oracle", "carrot")) > aiq["hull"]["value"]
    result = load_result("llm_routing", tmp_path)
    assert result.command == "python -m mofme route evaluate mine.csv --splits 1 --seed 0"
    assert result.verdict == printed["verdict"]
    with Image.open(tmp_path / "llm_routing-mine.png") as picture:
        assert min(picture.size) > 300


@pytest.mark.parametrize(
    ("content", "fault"), [("prompt,quality:a,cost:a\nhello,1,-2\n", "below zero"), ("name,age\nx,1\n", "mine.csv")]
)
def test_a_table_that_cannot_be_used_is_refused(tmp_path: Path, content: str, fault: str) -> None:
    path = tmp_path / "mine.csv"
    path.write_text(content, encoding="utf-8")
    code, out, err = run("evaluate", str(path), "--json")
    assert (code, out) == (2, "") and fault in err


def test_two_tables_of_one_name_are_refused(table: Path) -> None:
    code, _, err = run("evaluate", str(table), str(table))
    assert code == 2 and "two tables are called mine" in err


def test_a_simulation_writes_what_it_prints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mofme.papers.carrot.simulation.WORLDS", WORLDS[1:2])
    monkeypatch.setattr("mofme.papers.carrot.command._SIMULATED", range(2))
    code, out, err = run("simulate", "--largest", "5000", "--out", str(tmp_path), "--json")
    assert code == 0, err
    printed = json.loads(out)
    assert printed["command"] == "python -m mofme route simulate --largest 5000"
    assert printed["verdict"] == load_result("llm_routing_rate", tmp_path).verdict
    # 1,000 and 4,000 queries, besides the row of slopes.
    assert [row["name"] for row in printed["rows"]] == [WORLDS[1].name, "n = 1,000", "n = 4,000"]


def test_a_router_does_not_replace_a_model_of_another_kind(tmp_path: Path) -> None:
    save_model(tmp_path, ModelCard("mine", "restoration", {}, "CC0"), {"w": torch.ones(1)})
    with pytest.raises(ModelError, match="would be replaced"):
        train_router(toy_table(), tmp_path, "knn", encoder=WordEncoder())
    assert load_card(tmp_path).net == "restoration"


CONFIG = """
backends:
  - {name: weak, base_url: "http://127.0.0.1:1/v1", model: m, price_in: 1, price_out: 2}
rule: {cost_weight: 0.3}
"""


class Trained:
    models = ("weak", "strong")

    @classmethod
    def from_pretrained(cls, name: str) -> "Trained":
        return cls()

    def route(self, prompt: str, **dial: float) -> None:
        assert dial == {"cost_weight": 0.3}


def test_serve_checks_its_file_and_listens_where_it_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mofme.papers.carrot.trained_router.TrainedRouter", Trained)
    told: dict[str, object] = {}
    monkeypatch.setattr(uvicorn, "run", lambda app, **settings: told.update(settings))

    def serve(text: str, *words: str) -> tuple[int, str]:
        (tmp_path / "serve.yaml").write_text(text)
        code, _, err = run("serve", str(tmp_path / "serve.yaml"), *words)
        return code, err

    assert serve(CONFIG.replace("price_in: 1", "price_in: -1"))[0] == 2
    code, err = serve(CONFIG.replace("name: weak", "name: waek"))
    assert code == 2 and "the router does not know 'waek'" in err
    code, err = serve(CONFIG, "--host", "0.0.0.0")
    assert code == 2 and "set token_env" in err
    code, err = serve(CONFIG, "--check")
    assert code == 0 and "is fine: weak" in err and not told
    assert serve(CONFIG)[0] == 0 and (told["host"], told["port"]) == ("127.0.0.1", 8100)
    assert told["timeout_keep_alive"] > openai.DEFAULT_CONNECTION_LIMITS.keepalive_expiry  # else they close as it asks
    serve(CONFIG, "--host", "::1", "--port", "9000")
    assert (told["host"], told["port"]) == ("::1", 9000)
    monkeypatch.setattr(uvicorn, "run", lambda app, **settings: sys.exit(3))
    code, err = serve(CONFIG)
    assert code == 2 and "127.0.0.1:8100 cannot be listened on" in err
