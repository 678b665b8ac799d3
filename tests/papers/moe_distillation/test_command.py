from pathlib import Path

import pytest
from typer.testing import CliRunner

from mofme.cli.app import app
from mofme.core.weights import load_card
from mofme.language.small_lm import Shape, SmallLM, Vocabulary, save_lm


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    vocabulary = Vocabulary.learn(["the cat and the hat"], 260)
    for name, router in (("teacher", "linear"), ("student", "dense")):
        shape = Shape(260, dim=8, layers=1, heads=2, hidden=8, router=router, experts=4)  # type: ignore[arg-type]
        save_lm(tmp_path / name, SmallLM(shape), vocabulary, "CC0", {}, {})
    (tmp_path / "text.txt").write_text("the cat sat with a hat on the mat. " * 80, encoding="utf-8")
    return tmp_path


def run(folder: Path, *options: str) -> tuple[int, str]:
    models = [str(folder / "teacher"), str(folder / "student")]
    fixed = ["--text", str(folder / "text.txt"), "--out", str(folder / "out"), "--steps", "2", "--batch", "2"]
    result = CliRunner().invoke(app, ["distil", *models, *fixed, *options])
    return result.exit_code, result.output


def test_the_student_is_written_with_how_near_it_came(folder: Path) -> None:
    code, output = run(folder, "--method", "sar", "--licence", "CC0")
    assert code == 0, output
    card = load_card(folder / "out")
    assert card.licence == "CC0" and card.training["method"] == "sar" and card.training["teacher"] == "teacher"
    assert card.metrics["held-out KL"] > 0
    assert "step 2 of 2" in output and "idle experts" in output and "s a step" in output


def test_an_unknown_method_is_refused(folder: Path) -> None:
    code, output = run(folder, "--method", "magic")
    assert code == 2 and "no such method: magic" in output


def test_what_cannot_be_done_is_said(folder: Path) -> None:
    assert run(folder, "--layers", "1")[0] == 2  # not a model of transformers
    (folder / "text.txt").write_text("short", encoding="utf-8")
    code, output = run(folder)
    assert code == 2 and "are needed" in output
    assert not (folder / "out").exists()
