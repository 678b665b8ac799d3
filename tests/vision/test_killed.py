"""A folder of pictures and a video, killed at random moments and begun again: the same bytes as without a kill.

Takes minutes, so it runs by `MOFME_KILLS=10 pytest tests/vision/test_killed.py`.
"""

import os
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.films import film

KILLS = int(os.environ.get("MOFME_KILLS", "0"))
WORK = """
import sys, time
from pathlib import Path
import torch
from mofme.vision import video_writer
from mofme.vision.batch import restore_tree
from mofme.vision.report import write_report
from mofme.vision.restorer import Restoration
video_writer.SEGMENT_FRAMES = 4

class Restores:
    version = "one"
    def __call__(self, image, **settings):
        time.sleep(float(sys.argv[3]))
        return Restoration(1 - image, {"rain": 1.0}, torch.zeros(1, 1), (), 0.0)

print("begun", flush=True)
reports = []
for report in restore_tree(Restores(), Path(sys.argv[1]), Path(sys.argv[2])):
    reports.append(report)
    write_report(Path(sys.argv[2], "report.csv"), reports)
"""


def start(source: Path, target: Path, pause: float) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", WORK, str(source), str(target), str(pause)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)


def contents(folder: Path) -> dict[str, bytes]:
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != "report.csv"]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


@pytest.mark.skipif(not KILLS, reason="slow: set MOFME_KILLS to how often it is to be killed")
def test_killed_at_any_moment_it_ends_with_the_same_bytes(tmp_path: Path) -> None:
    source, draw = tmp_path / "in", random.Random("mofme")
    (source / "sub").mkdir(parents=True)
    for number in range(10):
        noise = np.random.default_rng(number).integers(0, 256, (48, 64, 3), np.uint8)
        Image.fromarray(noise).save(source / ("sub" if number % 2 else "") / f"{number}.{('png', 'jpg')[number // 5]}")
    film(source / "drive.mp4", frames=24, sound="aac")
    with start(source, tmp_path / "calm", 0) as calm:
        assert calm.wait(60) == 0
    disturbed = 0
    for _ in range(KILLS):
        with start(source, tmp_path / "out", 0.08) as killed:
            assert killed.stdout and killed.stdout.readline()
            try:
                killed.wait(draw.uniform(0.02, 1.0))
            except subprocess.TimeoutExpired:
                disturbed += 1
            killed.kill()
    with start(source, tmp_path / "out", 0) as last:
        assert last.wait(60) == 0
    assert disturbed > KILLS / 3
    expected = contents(tmp_path / "calm")
    assert len(expected) == 11 and contents(tmp_path / "out") == expected
    print(f"{disturbed} of {KILLS} kills met work")
