from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import torch
import typer
from typer.testing import CliRunner

from mofme.cli.train import train
from mofme.vision import training
from mofme.vision.training import TrainingPlan

app = typer.Typer()
app.command()(train)


@pytest.fixture
def plans(monkeypatch: pytest.MonkeyPatch) -> list[tuple[TrainingPlan, str]]:
    """Takes the plans and devices instead of training."""
    taken: list[tuple[TrainingPlan, str]] = []

    def take(plan: TrainingPlan, report: Callable[[str], None], device: str) -> None:
        report("a line of progress")
        taken.append((plan, device))

    monkeypatch.setattr(training, "train", take)
    return taken


def run(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    return result.exit_code, result.output


def test_two_words_are_enough(tmp_path: Path, plans: list[tuple[TrainingPlan, str]]) -> None:
    assert run(tmp_path, "--out", tmp_path / "out") == (0, "a line of progress\n")
    assert plans == [(TrainingPlan(out=tmp_path / "out", clean=[tmp_path]), "auto")]


def test_every_option_reaches_the_plan(tmp_path: Path, plans: list[tuple[TrainingPlan, str]]) -> None:
    other = tmp_path / "other"
    other.mkdir()
    options: dict[str, Any] = {
        "size": "base",
        "init": tmp_path,
        "minutes": 2.5,
        "batch": 3,
        "crop": 64,
        "canvas": 256,
        "identity": 0.2,
        "learning_rate": 0.01,
        "seed": 7,
        "validate_minutes": 1.5,
        "sources": "my photographs",
        "licence": "CC0",
        "binary": True,
    }
    words = [word for name, value in options.items() for word in (f"--{name.replace('_', '-')}", value)]
    words.remove(True)  # a switch
    words += ["--pairs", tmp_path, "--pairs", f"{other}=0.25", "--haze", f"{other}=0.2"]
    words += ["--rain-layers", f"{other}=.05", "--judge", other, "--device", "cpu"]
    assert run(tmp_path, other, "--out", tmp_path / "out", *words)[0] == 0
    options |= {"pairs": {tmp_path: 0.1, other: 0.25}, "haze": {other: 0.2}, "rain_layers": {other: 0.05}}
    expected = TrainingPlan(out=tmp_path / "out", clean=[tmp_path, other], judges=[other], **options)
    assert plans == [(expected, "cpu")]
    default = TrainingPlan(out=tmp_path, clean=[])
    assert not [f.name for f in fields(expected) if getattr(expected, f.name) == getattr(default, f.name)]


@pytest.mark.parametrize("words", [("--crop", 100), ("--crop", 0), ("--batch", 0), ("--pairs", "here=much")])
def test_what_no_net_takes_is_refused_at_once(
    tmp_path: Path, plans: list[tuple[TrainingPlan, str]], words: tuple[object, ...]
) -> None:
    assert run(tmp_path, "--out", tmp_path / "out", *words)[0] == 2 and plans == []


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_not_replaced_in_silence(tmp_path: Path) -> None:
    code, output = run(tmp_path, "--out", tmp_path / "out", "--minutes", 0, "--device", "cuda")
    assert code == 2 and "there is no device cuda" in output
