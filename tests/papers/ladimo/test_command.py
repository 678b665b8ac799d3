from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from typer.testing import CliRunner

from mofme.cli.app import app
from mofme.measure.result import load_result

if TYPE_CHECKING:
    from mofme.language.pretrained import PretrainedLM


def run(*words: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, [str(word) for word in words])
    return result.exit_code, " ".join(result.output.split())


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text("the quick brown fox jumps over the lazy dog, and the dog sleeps on. " * 60, encoding="utf-8")
    return path


@pytest.fixture
def model(tmp_path: Path, tiny_pretrained: "Callable[..., PretrainedLM]") -> Path:
    lm = tiny_pretrained(layers=2)
    lm.model.save_pretrained(tmp_path / "dense")
    lm.tokenizer.save_pretrained(tmp_path / "dense")
    return tmp_path / "dense"


OPTIONS = ("--experts", 4, "--shared", 16, "--tokens", 1024)


def test_a_model_is_converted_and_opens_again(tmp_path: Path, text: Path, model: Path) -> None:
    from mofme.core.moe import parameters
    from mofme.papers.ladimo.conversion import open_model
    from mofme.papers.ladimo.converted_layer import activated

    code, output = run("moefy", model, "--text", text, "--out", tmp_path / "moe", *OPTIONS, "--target", 0.1)
    assert code == 0
    assert "layer 1:" in output
    lm, dense = open_model(str(tmp_path / "moe")), open_model(str(model))
    assert activated(lm.model, lm.tokens("the quick brown fox" * 9)) < 0.97 * parameters(dense.model)
    assert not (tmp_path / "moe" / "unfinished").exists()


def test_what_cannot_be_is_said(tmp_path: Path, text: Path, model: Path) -> None:
    for options, message in (
        (("--split", "alphabetical"), "no such split: alphabetical"),
        (("--shared", 47), "47 shared ones cannot be divided evenly"),
        (("--target", 0.9), "90% cannot be saved"),
        (("--tokens", 600, "--text", "nowhere.txt"), "nowhere.txt cannot be read"),
    ):
        code, output = run("moefy", model, "--text", text, "--out", tmp_path / "moe", *OPTIONS, *options)
        assert code == 2 and message in output
        assert not (tmp_path / "moe" / "model.safetensors").exists()


def test_the_comparison_writes_its_result(
    tmp_path: Path, text: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mofme.papers.ladimo import experiment

    monkeypatch.setattr(experiment, "seconds", lambda models, *_: {name: np.ones((2, 2)) for name in models})
    monkeypatch.setattr(experiment, "gc", SimpleNamespace(collect=lambda: None))  # longer than a conversion so small
    questions = tmp_path / "questions.jsonl"
    questions.write_text('{"question": "Who sleeps?", "choices": ["the dog", "the fox"], "answer": 0}\n' * 3)
    files = ("--text", text, "--questions", questions, "--arms", tmp_path / "arms", "--out", tmp_path / "results")
    code, output = run("evaluate", "dense-to-moe", model, *files, "--measure", 600, *OPTIONS, "--target", 0.1)
    assert code == 0, output
    result = load_result("dense_to_moe", tmp_path / "results")
    assert str(tmp_path) not in result.command
    assert "--text text.txt --questions questions.jsonl" in result.command
    assert next(row.name for row in result.rows if row.table == "quality") == "dense"
    assert "fewer activated parameters" in output
