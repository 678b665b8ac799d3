"""Restore a folder by a Ray cluster: processes with a model each, which take a few files at a time.

Every file goes through the steps of `batch`. Its output appears whole and under a name that was planned before, so to
restore it again after a worker died doubles nothing: the same bytes take the place of the same file.
"""

import importlib
import os
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from mofme.errors import ConfigError
from mofme.files import clear_left
from mofme.vision.batch import BatchSettings, File, open_files, restore_files
from mofme.vision.report import FileReport, plan_tree
from mofme.vision.restorer import Restoration

_TOGETHER = 16  # files: what a worker is handed takes far longer than handing it over
_TRIES = 3  # workers that a file may end, before it is left
_MEMORY = 80 * 2**20  # bytes for what Ray passes round: names and reports only


class Worker:
    """One model, and files that are restored by it one after the other."""

    def __init__(self, load: Callable[[], Callable[..., Restoration]]) -> None:
        self._load = load

    def start(self, settings: BatchSettings) -> str:
        """Load the model, and tell what its outputs will be made with."""
        self._restorer = self._load()
        return settings.made_with(self._restorer)

    def restore(self, files: list[File]) -> list[FileReport]:
        return list(restore_files(self._restorer, files))


def restore_tree_by_ray(
    load: Callable[[], Callable[..., Restoration]],
    source: Path,
    target: Path,
    settings: BatchSettings,
    *,
    address: str | None = None,
    workers: int | None = None,
    gpus: float = 0.0,
    kind: Callable[..., File] = File,
) -> Iterator[FileReport]:
    """As `restore_tree`, with the reports in the order in which files are done; every worker calls `load`.

    By a Ray cluster at `address`, or else one that is started on this machine, with as many `workers` or as fit; each
    takes a CPU and a share of a GPU, `gpus`.

    All machines of the cluster see `source` and `target` at the same paths, unless those are mirrors of addresses. A
    worker that dies is replaced, and its files are restored anew, each by itself; one that ends three workers is
    reported. Raises ConfigError if Ray is missing, does not answer, or has no room, and what `load` raises.
    """
    source, target = source.absolute(), target.absolute()  # workers stand in the folder where Ray was started
    plan = plan_tree(source, target, settings.format)
    with connected(address) as ray:
        fitting = _fitting(ray.cluster_resources(), gpus)  # of more, some would never start
        number = min(workers or fitting, fitting, len(plan))
        together = min(_TOGETHER, max(1, len(plan) // (4 * number or 1)))  # so that all end at about the same time
        make = ray.remote(num_cpus=1, num_gpus=gpus)(Worker).remote
        ends = ray.exceptions.RayActorError, ray.exceptions.OutOfMemoryError
        files: Iterator[File] | None = None
        again: deque[list[File]] = deque()
        tries = Counter[str]()
        busy: dict[Any, tuple[Any, list[File]]] = {}  # by the answer that is due: of which worker, for which files

        def start() -> None:
            worker = make(load)
            busy[worker.start.remote(settings)] = worker, []

        for _ in range(number):
            start()
        try:
            while busy:
                (due,), _ = ray.wait(list(busy))
                worker, given = busy.pop(due)
                try:
                    answer = ray.get(due)
                except ray.exceptions.RayTaskError as error:  # the model cannot be loaded
                    raise error.cause from None
                except ends as end:
                    ray.kill(worker)  # it may live where nobody reaches it
                    name = given[0].report.file if len(given) == 1 else ""
                    tries[name] += len(given) < 2
                    if tries[name] < _TRIES:
                        again.extend([file] for file in given)
                    elif given:
                        why = f"{_TRIES} workers ended at it, perhaps for want of memory"
                        told = f"{name}: {why}: restore it by itself, with a smaller --tile."
                        yield replace(given[0].report, error=told)
                    else:
                        raise ConfigError(f"workers of the cluster end while they load the model ({end})") from None
                    start()
                    continue
                if given:
                    yield from answer
                else:
                    tries[""] = 0  # it can be loaded: workers that ended meanwhile were taken away
                    if files is None:
                        files = open_files(plan, source, target, settings, answer, kind)
                share, left_out = (again.popleft(), []) if again else _share(files or iter(()), together)
                yield from left_out
                if share:
                    busy[worker.restore.remote(share)] = worker, share
        finally:
            for worker, _ in busy.values():
                ray.kill(worker)
    for folder in {output.parent for _, output in plan}:  # what workers left that died
        clear_left(folder)


def _share(files: Iterator[File], together: int) -> tuple[list[File], list[FileReport]]:
    """The next files for a worker, a large one or a video being enough, and reports of those with nothing to do."""
    share: list[File] = []
    left_out: list[FileReport] = []
    for file in files:
        if file.report.skipped or file.report.error:
            left_out.append(file.report)
        else:
            share.append(file)
        if len(share) == together or (share and file.is_alone()):
            break
    return share, left_out


def _fitting(resources: dict[str, float], gpus: float) -> int:
    """How many workers these hold."""
    number = int(min(resources.get("CPU", 0), resources.get("GPU", 0) / gpus if gpus else float("inf")))
    if number < 1:
        raise ConfigError(f"the cluster has no room for a worker of 1 CPU and {gpus:g} GPUs: ask for fewer GPUs.")
    return number


@contextmanager
def connected(address: str | None) -> Iterator[Any]:
    """The module `ray`, connected to a cluster; the one of who is connected already stays.

    Nothing is sent to anybody, and a cluster that is started here is for this machine alone. Raises ConfigError.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        ray: Any = importlib.import_module("ray")
    except ImportError as error:
        raise ConfigError("a cluster needs Ray, which is not installed: pip install ray==2.60.0") from error
    if ray.is_initialized():
        yield ray
        return
    where: dict[str, Any] = {"address": address}
    if address in (None, "local"):
        where |= {"include_dashboard": False, "object_store_memory": _MEMORY, "_node_ip_address": "127.0.0.1"}
    try:
        ray.init(**where, log_to_driver=False, logging_level="ERROR")
    except Exception as error:  # Ray has no kind of its own for processes that take too long to start
        raise ConfigError(f"no Ray cluster answers at {address or 'this machine'} ({error}).") from error
    try:
        yield ray
    finally:
        ray.shutdown()
