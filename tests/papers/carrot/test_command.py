import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from mofme.cli.app import app
from mofme.papers.carrot.carrot import CarrotRouter

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
