"""What a Ray cluster adds to restoring a folder, and whether a worker that is killed costs a file.

The command `restore` itself runs, by one thread a process, on many small pictures, with which all that is not the net
weighs most. Its CPU time is that of all processes that it starts, Ray's among them, from the first import to the end.
"""

import filecmp
import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory, TemporaryFile
from typing import Any, NamedTuple

import numpy as np
import psutil
from PIL import Image

from mofme.errors import ConfigError
from mofme.files import ASSETS
from mofme.measure.result import Figure, Result, Row, this_machine
from mofme.measure.statistics import bootstrap
from mofme.vision.batch import restore_tree
from mofme.vision.benchmark import precision
from mofme.vision.report import REPORT
from mofme.vision.restorer import Restorer

_LOOK_EVERY = 0.5  # seconds: so much of each process may be missed at its end
_FRAME, _FRAMES = (1280, 720), 9  # the first of which counts for nothing
_WRONG = ("lost", "doubled", "unlike")
_A_MILLION, _HOUR = 1e6, 3600


@dataclass(frozen=True)
class Outcome:
    """A run in CPU and wall-clock seconds, and files: lost, told or there twice, or unlike those made without Ray."""

    name: str
    cpu: float
    wall: float
    lost: int = 0
    doubled: int = 0
    unlike: int = 0


def compare(model: str, runtime: str, pictures: int, side: int, workers: int) -> Iterator[Outcome]:
    """By one worker of Ray and beside it without Ray, then by `workers` of which one is killed. Raises ConfigError."""
    with TemporaryDirectory(prefix="mofme-") as root, ThreadPoolExecutor(1) as beside:
        source, here = Path(root, "in"), Path(root, "without Ray")
        names = {path.name for path in _crops(source, pictures, (side, side))}
        how = ["--json", "--model", model, "--device", "cpu", "--runtime", runtime]

        def run(target: Path, workers: int, kill: bool = False) -> _Run:
            by = ["--engine", "ray", "--workers", str(workers)] * bool(workers)
            return _run([sys.executable, "-m", "mofme", "restore", str(source), str(target), *how, *by], target, kill)

        def outcome(target: Path, run: _Run) -> Outcome:
            done = Counter(report["file"] for report in run.reports if not (report["error"] or report["skipped"]))
            there = {path.name for path in target.iterdir()} - {REPORT}
            unlike = [name for name in there & names if not filecmp.cmp(here / name, target / name, shallow=False)]
            twice = done.total() - len(done) + len(there - names)
            return Outcome(target.name, run.cpu, run.wall, len(names - (there & done.keys())), twice, len(unlike))

        one = Path(root, "Ray, 1 worker")
        by_ray = beside.submit(run, one, 1)
        while not (by_ray.done() or list(one.glob("*.png"))):  # Ray gives up where it does not start in 30 s
            time.sleep(_LOOK_EVERY)
        if by_ray.done():
            by_ray.result()
        alone = run(here, 0)
        yield outcome(here, alone)
        yield outcome(one, by_ray.result())
        killed = Path(root, f"Ray, {workers} worker{'s' * (workers > 1)}, 1 killed")
        yield outcome(killed, run(killed, workers, kill=True))


def frame_seconds(model: str, runtime: str) -> list[float]:
    """CPU seconds of each of a few frames of 1280x720 in a folder, read and written."""
    restorer = Restorer.from_pretrained(model, "cpu", runtime)
    with TemporaryDirectory(prefix="mofme-") as root:
        list(_crops(Path(root, "in"), _FRAMES, _FRAME))
        times = []
        for report in restore_tree(restorer, Path(root, "in"), Path(root, "out")):
            times.append(time.process_time())
            if report.error:
                raise ConfigError(report.error)
    return np.diff(times).tolist()


def as_result(
    outcomes: Sequence[Outcome], frames: Sequence[float], pictures: int, side: int, price: float, command: str
) -> Result:
    """The runs, and what a million frames cost by one worker: to each Ray adds as much as to a small picture."""
    alone, one, _ = outcomes
    runs = f"{pictures:,} pictures of {side}x{side}"
    rows = [Row(runs, outcome.name, _figures(outcome, alone, one, pictures)) for outcome in outcomes]
    added = (one.cpu - alone.cpu) / pictures
    each = {
        f"{side}x{side}": Figure(one.cpu / pictures),
        "x".join(map(str, _FRAME)): bootstrap(np.array(frames) + added),
    }
    for name, seconds in each.items():
        figures = {
            "frames an hour and worker": seconds.map(lambda value: _HOUR / value),
            "CPU hours": seconds.map(lambda value: _A_MILLION * value / _HOUR),
            "cost, $": seconds.map(lambda value: _A_MILLION * value * price),
        }
        rows.append(Row("A million frames through Ray", name, figures))
    added_cpu, added_wall = (rows[1].figures[f"added, % of {what}"].text() for what in ("CPU s", "wall clock"))
    wrong = [f"{name} {sum(getattr(run, name) for run in outcomes)}" for name in _WRONG]
    return Result(
        room="cluster",
        paper="",
        claim="By one worker Ray adds at most 15 %, and a killed worker costs no file.",
        verdict=f"By one worker Ray adds {added_cpu} % of CPU time, {added_wall} % by the clock. "
        f"Files of all runs: {', '.join(wrong)}.",
        command=command,
        rows=rows,
        interval="95 % bootstrap over the frames; of runs there is one each, the first two beside each other",
        machine=this_machine(1, precision()),
    )


def _figures(outcome: Outcome, alone: Outcome, beside: Outcome, pictures: int) -> dict[str, Figure]:
    values = {"CPU s": outcome.cpu, "wall clock, s": outcome.wall, "pictures a CPU s": pictures / outcome.cpu}
    values |= {name: getattr(outcome, name) for name in _WRONG}
    if outcome is not alone:
        values["added, % of CPU s"] = 100 * (outcome.cpu / alone.cpu - 1)
    if outcome is beside:  # of more workers, with nothing beside them, the clock does not tell what Ray adds
        values["added, % of wall clock"] = 100 * (outcome.wall / alone.wall - 1)
    return {name: Figure(value) for name, value in values.items()}


def _crops(folder: Path, count: int, size: tuple[int, int]) -> Iterator[Path]:
    """Pictures of real weather, all different."""
    folder.mkdir()
    width, height = size
    sheet = Image.open(ASSETS / "before-after.jpg").convert("RGB")
    if sheet.width < width or sheet.height < height:
        sheet = sheet.resize((max(sheet.width, 2 * width), max(sheet.height, 2 * height)))
    draw = np.random.default_rng(0)
    for number in range(count):
        left = int(draw.integers(0, sheet.width - width + 1))
        top = int(draw.integers(0, sheet.height - height + 1))
        path = folder / f"{number:06d}.png"
        sheet.crop((left, top, left + width, top + height)).save(path)
        yield path


class _Run(NamedTuple):
    cpu: float
    wall: float
    reports: list[dict[str, Any]]


def _run(command: list[str], target: Path, kill: bool) -> _Run:
    """A command, with all that it starts; with `kill` one that restores is killed when half of the files are there."""
    # Ray would have its workers wait for every other process, and look slow on a machine that does something else.
    settings = {"OMP_NUM_THREADS": "1", "RAY_worker_niceness": "0", "PYTHONPATH": os.pathsep.join(sys.path)}
    half = len(list(target.with_name("in").iterdir())) // 2
    taken: dict[int, float] = {}
    start = time.monotonic()
    with TemporaryFile() as out, TemporaryFile() as told:
        with subprocess.Popen(command, stdout=out, stderr=told, env={**os.environ, **settings}) as process:
            while process.poll() is None:
                taken |= _tree(process.pid)
                if kill and len(list(target.glob("*.png"))) >= half:
                    kill = not _kill_worker(taken)
                time.sleep(_LOOK_EVERY)
        wall = time.monotonic() - start
        out.seek(0), told.seek(0)
        if process.returncode or kill:
            why = told.read().decode(errors="replace")
            raise ConfigError(f"a run of `restore` failed, or there was no worker to kill: {why}")
        return _Run(sum(taken.values()), wall, json.loads(out.read())["files"])


def _kill_worker(processes: dict[int, float]) -> bool:
    """Kill one that restores, if there is one."""
    for number in processes:
        with suppress(psutil.Error):
            process = psutil.Process(number)
            if "".join(process.cmdline()[:1]).startswith("ray::Worker.restore"):
                process.kill()
                return True
    return False


def _tree(root: int) -> dict[int, float]:
    """CPU seconds so far of a process and of all below it, by their numbers."""
    seconds = {}
    with suppress(psutil.Error):
        top = psutil.Process(root)
        for process in (top, *top.children(recursive=True)):
            with suppress(psutil.Error):
                times = process.cpu_times()
                seconds[process.pid] = times.user + times.system
    return seconds
