"""What is said of measured policies: beside the paper, and beside linear ones."""

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest
import torch
from typer.testing import CliRunner

from mofme.cli.app import app
from mofme.errors import ModelError
from mofme.papers.smose.environments import Evaluation
from mofme.papers.smose.experiment import Measured, as_result, measure
from mofme.papers.smose.policy import SparseLinearPolicy, save_policy


def _measured(environment: str, experts: int, seed: int, steps: int, earned: float) -> Measured:
    evaluation = Evaluation((earned, earned), (10, 10), (1 / experts,) * experts)
    return Measured(environment, experts, seed, steps, evaluation, [])


def test_a_mixture_no_better_than_a_linear_policy_shows_nothing() -> None:
    result = as_result(
        [
            _measured("Hopper", 8, 0, 3000, 2112.0),
            _measured("Hopper", 8, 1, 2000, 1690.0),
            _measured("Hopper", 1, 0, 2000, 1900.0),
            _measured("Swimmer", 8, 0, 2000, 40.0),
            _measured("Swimmer", 1, 0, 1000, 44.0),
            _measured("Swimmer", 1, 1, 1500, 46.0),
            _measured("Ant", 8, 0, 2000, 649.0),
        ],
        "a command",
    )
    figures = {row.name: row.figures for row in result.rows}
    # (2112 + 1690) / 2 = 1901 of 2816.
    assert figures["Hopper"]["return"].value == 1901
    assert round(figures["Hopper"]["reached, %"].value, 1) == 67.5
    assert figures["Swimmer"]["linear policy"].value == 45
    assert figures["Swimmer"]["its steps"].value == 1500 and figures["Swimmer"]["its seeds"].value == 2
    assert "linear policy" not in figures["Ant"]
    assert "above a plain linear policy, beyond the noise, in 0 of 2 robots" in result.verdict
    assert result.verdict.startswith("Cannot be seen here") and "the paper 2,816." in result.verdict
    assert "tree" not in result.verdict  # none was grown


def test_policies_are_measured_beside_the_paper(tmp_path: Path, policy: SparseLinearPolicy) -> None:
    for seed in range(2):
        save_policy(tmp_path / f"{seed}", policy, "Reacher", {"seed": seed, "steps": 1000 + seed}, {})
    result = as_result(measure(tmp_path, episodes=2, trees=False), "a command")
    (row,) = result.rows
    assert row.figures["seeds"].value == 2 and row.figures["steps"].value == 1001
    # The paper's -5.49 over a loss of so much.
    assert row.figures["reached, %"].value == pytest.approx(100 * 5.49 / -row.figures["return"].value)
    with pytest.raises(ModelError, match="holds no policy"):
        measure(tmp_path / "nothing")


def test_the_command_line_trains_measures_and_explains(tmp_path: Path) -> None:
    run = CliRunner().invoke
    out = str(tmp_path / "runs" / "a")
    assert run(app, ["control", "train", "Reacher", "--out", out, "--steps", "60", "--experts", "3"]).exit_code == 0
    measured = run(
        app, ["control", "evaluate", str(tmp_path / "runs"), "--episodes", "1", "--no-trees", "--out", str(tmp_path)]
    )
    assert measured.exit_code == 0, measured.output
    assert json.loads((tmp_path / "control.json").read_text())["room"] == "control"
    told = run(app, ["control", "explain", out, "--depth", "2", "--picture", str(tmp_path / "tree.svg")])
    assert told.exit_code == 0 and "A tree of depth 2" in told.output
    assert ElementTree.parse(tmp_path / "tree.svg").getroot().tag.endswith("svg")
    assert run(app, ["control", "train", "Moon", "--out", out]).exit_code == 2


def test_a_copy_is_no_other_seed_and_linear_policies_alone_are_refused(
    tmp_path: Path, policy: SparseLinearPolicy
) -> None:
    for name in ("one", "copy"):
        save_policy(tmp_path / name, policy, "Reacher", {"seed": 0, "steps": 1, "balance": 0.1}, {"return": 0.0})
    with pytest.raises(ModelError, match="same seed"):
        measure(tmp_path, episodes=1, trees=False)
    save_policy(tmp_path / "copy", policy, "Reacher", {"seed": 1, "steps": 1, "balance": 0.2}, {"return": 0.0})
    with pytest.raises(ModelError, match="experts or balance"):
        measure(tmp_path, episodes=1, trees=False)
    linear = SparseLinearPolicy(11, -torch.ones(2), torch.ones(2), num_experts=1)
    save_policy(tmp_path / "linear/0", linear, "Reacher", {"seed": 0, "steps": 1, "balance": 0.1}, {"return": 0.0})
    with pytest.raises(ModelError, match="linear policies only"):
        measure(tmp_path / "linear", episodes=1, trees=False)
