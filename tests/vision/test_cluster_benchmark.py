"""What Ray adds, by hand, and by real processes. The whole takes minutes: `MOFME_KILLS=1 pytest` runs it as well."""

import os
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from mofme.cli.app import app
from mofme.measure.pages import headline
from mofme.measure.result import load_result
from mofme.vision import cluster_benchmark
from mofme.vision.cluster_benchmark import Outcome, _run, as_result

WORK = """
import json, subprocess, sys
burns = subprocess.Popen([sys.executable, "-c", "import time\\nwhile time.process_time() < 1: pass"])
worker = subprocess.Popen(["ray::Worker.restore", "60"], executable="/bin/sleep")
print(json.dumps({"files": [{"worker": worker.wait(), "burns": burns.wait()}]}))
"""


def test_what_ray_adds_and_a_million_frames_by_hand() -> None:
    """By Ray 100 pictures take 110 s, not 100: .1 s more each. So frames of .9 s take 1 s, a million 1e6 / 3600 h."""
    runs = [Outcome("without", 100, 50), Outcome("one", 110, 60), Outcome("killed", 120, 30, 1, 2, 3)]
    result = as_result(runs, [0.9, 0.9], 100, 96, 0.001, "command")
    table, frames = dict.fromkeys(row.table for row in result.rows)
    found = {name: figure.value for name, figure in result.rows[1].figures.items()}
    assert table == "100 pictures of 96x96" and found["pictures a CPU s"] == pytest.approx(100 / 110)
    assert found["added, % of CPU s"] == pytest.approx(10) and found["added, % of wall clock"] == pytest.approx(20)
    assert "added, % of wall clock" not in result.rows[2].figures  # more workers, and nothing beside them
    assert result.figure(frames, "1280x720", "CPU hours").value == pytest.approx(1e6 / 3600)
    assert result.figure(frames, "1280x720", "cost, $").value == pytest.approx(1000)
    assert result.figure(frames, "96x96", "cost, $").value == pytest.approx(1100)
    assert "lost 1, doubled 2, unlike 3" in result.verdict
    assert (told := headline(result)) and "278 hours of one CPU" in told.sentence


def test_all_that_a_command_starts_is_counted_and_a_worker_killed_once_half_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster_benchmark, "_LOOK_EVERY", 0.1)
    for name in ("in/a.png", "in/b.png", "out/a.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    run = _run([sys.executable, "-c", WORK], tmp_path / "out", kill=True)
    assert run.reports == [{"worker": -9, "burns": 0}]
    assert run.cpu >= 0.5  # of 1 s, the last of which may be missed


@pytest.mark.skipif(not os.environ.get("MOFME_KILLS"), reason="slow: set MOFME_KILLS")
def test_nothing_is_lost_doubled_or_unlike(tmp_path: Path) -> None:
    words = ["bench", "cluster", "--pictures", "100", "--out", str(tmp_path)]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.stderr
    assert "lost 0, doubled 0, unlike 0" in load_result("cluster", tmp_path).verdict
