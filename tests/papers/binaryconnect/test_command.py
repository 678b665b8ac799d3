"""`binary train`, `evaluate` and `pack`, one after the other on made-up digits."""

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from mofme.cli.app import app
from mofme.measure.result import load_result
from mofme.papers.binaryconnect import net


@pytest.fixture
def digits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """40 digits to train on, half of them held back, and 20 to test with; class c has a bright row c."""
    parts = {}
    for part, count in (("train", 40), ("test", 20)):
        labels = np.arange(count, dtype=np.uint8) % 10
        pixels = np.zeros((count, 28, 28), np.uint8)
        pixels[np.arange(count), labels] = 255
        parts |= {f"{part}_x": pixels, f"{part}_y": labels}
    path = tmp_path / "digits.npz"
    np.savez(path, **parts)
    load = net.load_mnist
    monkeypatch.setattr(net, "load_mnist", lambda path: load(path, held_back=20))
    return path


def run(*words: object) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, ["binary", *map(str, words)])
    return result.exit_code, result.stdout, result.stderr


def test_trained_nets_are_evaluated_and_packed(digits: Path, tmp_path: Path) -> None:
    small = ("--width", 16, "--batch", 10, "--epochs", 2, "--seeds", 1)
    arms = ("--arm", "deterministic", "--arm", "float")
    code, _, told = run("train", digits, "--runs", tmp_path / "runs", *arms, *small)
    assert code == 0
    assert "deterministic-0  epoch 2 of 2" in told and "float-0  epoch 2 of 2" in told
    code, printed, _ = run(
        "evaluate", digits, "--runs", tmp_path / "runs", "--nets", 2, "--repeats", 2, "--out", tmp_path, "--json"
    )
    assert code == 0
    result = load_result("binary_mnist", tmp_path)
    assert json.loads(printed)["verdict"] == result.verdict
    assert result.command == "python -m mofme binary evaluate digits.npz --runs runs --nets 2 --repeats 2"
    code, printed, _ = run("pack", digits, tmp_path / "runs" / "deterministic-0", "--out", tmp_path / "packed")
    assert code == 0 and "test error" in printed
    assert (tmp_path / "packed" / "card.json").is_file()


def test_what_is_wrong_is_said(digits: Path, tmp_path: Path) -> None:
    code, _, told = run("train", tmp_path / "none.npz", "--runs", tmp_path)
    assert (code, "none.npz is missing" in told) == (2, True)
    code, _, told = run("train", digits, "--runs", tmp_path / "runs", "--arm", "float", "--arm", "flaot", "--batch", 10)
    assert (code, "no arm is called 'flaot'" in told) == (2, True)
    assert not (tmp_path / "runs").exists()  # told before the first arm is trained
    code, _, told = run("evaluate", digits, "--runs", tmp_path)
    assert (code, "no complete run" in told) == (2, True)
    code, _, told = run("pack", digits, tmp_path, "--out", tmp_path / "packed")
    assert (code, "train that arm first" in told) == (2, True)
