from pathlib import Path

import pytest
from typer.testing import CliRunner

from mofme.cli.app import app
from mofme.errors import ModelError
from mofme.measure.result import load_result
from mofme.vision.runtime_benchmark import FULL, Trial, as_result
from tests.vision.pictures import save_grey as save


def test_ratios_shares_and_loss_by_hand() -> None:
    """Torch takes 2 s and openvino 1 s; 4e9 operations are in 1 s a tenth of 4e10 and two fifths of 1e10."""
    trial = Trial(
        operations=4 * 10**9,
        pixels=500_000,
        seconds={"torch": 2.0, FULL: 4.0, "openvino": 1.0},
        decibels={"torch": 29.99, FULL: 30.0, "openvino": 29.75},
        peaks={"bfloat16": 4e10, "float32": 1e10},
    )
    result = as_result("small", [trial, trial], "command")
    found = {row.name: {name: figure.value for name, figure in row.figures.items()} for row in result.rows}
    assert found["openvino"] == pytest.approx(
        {
            "CPU s a megapixel": 2.0,
            "times as fast as torch": 2.0,
            "lost, dB": 0.25,
            "of the bfloat16 peak, %": 10.0,
            "of the float32 peak, %": 40.0,
        }
    )
    assert found[FULL]["times as fast as torch"] == 0.5 and found[FULL]["lost, dB"] == 0
    assert found["bfloat16"] == {"GFLOP a CPU s": 40}
    with pytest.raises(ModelError, match="no pairs"):
        as_result("small", [], "command")


def test_every_runtime_is_measured(tmp_path: Path) -> None:
    for name, level in (("input", 120), ("target", 100)):
        save(tmp_path / "pairs" / name / "a.png", level)
    words = ["bench", "runtimes", str(tmp_path / "pairs"), "--repeats", "2", "--out", str(tmp_path / "out")]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.stderr
    result = load_result("runtimes", tmp_path / "out")
    assert result.names("Runtimes of small") == ["torch", FULL, "onnx", "openvino"]
    assert result.figure("Runtimes of small", "torch", "times as fast as torch").value == 1
