import json
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from mofme.cli.app import app
from mofme.measure.result import load_result
from mofme.papers.carrot.simulation import WORLDS, World


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
