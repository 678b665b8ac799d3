"""Restoring by a Ray cluster: the same as on one machine, also when workers die in the middle."""

import csv
import importlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from PIL import Image
from torch import Tensor

from mofme.errors import ConfigError, ModelError
from mofme.vision.batch import BatchSettings, restore_tree
from mofme.vision.cluster import connected, restore_tree_by_ray
from mofme.vision.report import FileReport, write_report
from mofme.vision.restorer import Restoration, Restorer
from tests.films import inverted
from tests.vision.tiny_models import save_two_models

pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),  # Ray leaves sockets and files to the garbage collector
    pytest.mark.filterwarnings("ignore:Tip.:FutureWarning"),
]
Load = Callable[[], Callable[..., Restoration]]


@pytest.fixture(scope="module", autouse=True)
def ray() -> Iterator[None]:
    """A cluster on this machine, whose workers reach an S3 server."""
    from moto.server import ThreadedMotoServer  # not above: workers read this file, too, and would wait for it

    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        patch.setenv("AWS_ACCESS_KEY_ID", "id")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        with connected("local"):
            yield
    server.stop()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_two_models(tmp_path_factory.mktemp("models"))[1]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """12 pictures in two folders, of several formats, and one that is none."""
    draw = np.random.default_rng(0)
    for number in range(12):
        path = tmp_path / "in" / ("sub" if number % 2 else "") / f"{number}{('.png', '.jpg', '.webp')[number % 3]}"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(draw.integers(0, 256, (24, 32, 3), np.uint8)).save(path)
    (tmp_path / "in/broken.png").write_bytes(b"no picture")
    return tmp_path / "in"


class Fatal:
    """Ends its process at pictures 8 pixels wide until the file `once` is there, and at those 9 pixels wide always."""

    def __init__(self, once: Path) -> None:
        self.once = once

    def __call__(self, image: Tensor, **_: object) -> Restoration:
        width = image.shape[-1]
        if width == 9 or (width == 8 and not self.once.exists()):
            self.once.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return inverted(image)


def refuse() -> Restorer:
    raise ModelError("no such model")


def command(*words: object) -> Any:
    from typer.testing import CliRunner

    from mofme.cli.app import app

    return CliRunner().invoke(app, ["restore", *map(str, words)])


def s3_with(folder: str) -> Any:
    import s3fs

    s3 = s3fs.S3FileSystem()
    s3.mkdir(folder)
    return s3


def by_ray(load: Load, source: Path, target: Path, format: str | None = None, **cluster: Any) -> list[FileReport]:
    settings = BatchSettings(format=format)
    reports = list(restore_tree_by_ray(load, source, target, settings, **({"workers": 1} | cluster)))
    write_report(target / "report.csv", reports)
    return sorted(reports, key=lambda report: report.file)


def contents(folder: Path) -> dict[str, tuple[bytes, int]]:
    """What files hold, and their times; only how long it took differs in a report."""
    found = {}
    for path in folder.rglob("*"):
        if path.is_file() and path.name != "report.csv":
            found[str(path.relative_to(folder))] = path.read_bytes(), path.stat().st_mtime_ns
    return found


def rows(folder: Path, *but: str) -> list[dict[str, str]]:
    with (folder / "report.csv").open(encoding="utf-8", newline="") as file:
        return [{name: row[name] for name in row if name not in ("seconds", *but)} for row in csv.DictReader(file)]


def test_same_as_on_one_machine_though_a_worker_is_killed_and_one_file_kills_all(
    tmp_path: Path, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mofme.vision.cluster._TRIES", 1)  # by itself: first it is one of three
    Image.new("RGB", (8, 8)).save(photos / "sub/once.png")
    Image.new("RGB", (9, 8)).save(photos / "sub/zz always.png")
    load = partial(Fatal, tmp_path / "killed")
    *there, last = by_ray(load, photos, tmp_path / "there", "png")
    assert (tmp_path / "killed").exists()
    assert last.file == "sub/zz always.png" and "1 workers ended at it" in last.error

    (photos / "sub/zz always.png").unlink()
    here = list(restore_tree(load(), photos, tmp_path / "here", BatchSettings(format="png")))
    write_report(tmp_path / "here/report.csv", here)
    assert [replace(one, seconds=0) for one in there] == [replace(one, seconds=0) for one in here]
    assert [one.file for one in there if one.error] == ["broken.png"]
    assert contents(tmp_path / "there") == contents(tmp_path / "here") and len(contents(tmp_path / "there")) == 13
    assert rows(tmp_path / "there")[:-1] == rows(tmp_path / "here")

    (tmp_path / "there/0.png").unlink()
    again = by_ray(load, photos, tmp_path / "there", "png")
    assert [one.file for one in again if not (one.skipped or one.error)] == ["0.png"]
    assert contents(tmp_path / "there") == contents(tmp_path / "here")
    assert rows(tmp_path / "there")[:-1] == rows(tmp_path / "here")


def test_what_cannot_be_begun_is_told(tmp_path: Path, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ModelError, match=r"^no such model$"):
        by_ray(refuse, photos, tmp_path / "out")
    for workers in (None, 2):
        with pytest.raises(ConfigError, match="no room for a worker of 1 CPU and 64 GPUs"):
            by_ray(refuse, photos, tmp_path / "out", workers=workers, gpus=64)

    def missing(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(ConfigError, match=r"not installed: pip install ray==2\.60\.0"):
        by_ray(refuse, photos, tmp_path / "out")


def test_from_and_to_s3_the_same_as_on_disk_by_the_runtime_that_was_measured_here(
    tmp_path: Path, photos: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def restore(*words: object) -> str:
        return command(*words, "--model", model, "--device", "cpu").stderr

    monkeypatch.setattr("mofme.vision.restorer.fastest_runtime", lambda load, net: "onnx")
    s3 = s3_with("shots")
    s3.put(f"{photos}/", "shots/in", recursive=True)
    told = restore("s3://shots/in", "s3://shots/in/clear", "--engine", "ray", "--workers", 2)
    assert "s3://shots/in/broken.png: not a picture" in told and "12 restored, 1 failed" in told

    restore(photos, tmp_path / "here")
    s3.get("shots/in/clear/", f"{tmp_path}/there", recursive=True)
    there, here = (
        {name: data for name, (data, _) in contents(tmp_path / place).items()} for place in ("there", "here")
    )
    assert there == here
    assert rows(tmp_path / "there", "error", "source") == rows(tmp_path / "here", "error", "source")
    assert all("by onnx" in row["settings"] for row in rows(tmp_path / "there") if row["settings"])

    # It goes on where it was, also by the other engine: what is gone or was edited is restored again.
    s3.rm("shots/in/clear/0.png")
    s3.put_file(photos / "sub/9.png", "shots/in/6.png")
    s3.invalidate_cache()
    assert "2 restored, 1 failed, 10 skipped" in restore("s3://shots/in", "s3://shots/in/clear")
    assert s3.cat("shots/in/clear/6.png") == s3.cat("shots/in/clear/sub/9.png")


def test_an_address_that_cannot_be_read_and_names_that_lead_out_are_told(tmp_path: Path) -> None:
    s3_with("hostile").pipe("hostile/in/../../out.png", b"")
    for address, why in (("s3://hostile/in", "no file in a folder can be called"), ("nowhere://a/b", "cannot be read")):
        result = command(address, tmp_path / "out")
        assert result.exit_code == 2 and address in result.stderr and why in result.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(not os.environ.get("MOFME_KILLS"), reason="slow: set MOFME_KILLS")
def test_a_command_that_is_killed_leaves_no_process_and_goes_on(tmp_path: Path, photos: Path, model: Path) -> None:
    """The command itself, with a cluster of its own. Its workers write what they are at, or leave it as it was."""
    for number in range(40):
        shutil.copy(photos / "0.png", photos / f"copy{number}.png")
    load = partial(Restorer.from_pretrained, str(model), "cpu")
    expected = list(restore_tree(load(), photos, tmp_path / "calm"))
    words = ["restore", str(photos), str(tmp_path / "out"), "--engine", "ray", "--workers", "2", "--model", str(model)]
    driver = psutil.Popen([sys.executable, "-m", "mofme", *words, "--device", "cpu"], stderr=subprocess.DEVNULL)
    while driver.poll() is None and len(contents(tmp_path / "out")) < 4:
        time.sleep(0.01)
    started = driver.children(recursive=True)
    driver.kill()
    assert driver.wait(60) == -signal.SIGKILL and len(started) > 3
    # Two that only watch the others try to tell of their end first, for a minute.
    assert psutil.wait_procs(started, timeout=200)[1] == []
    before = contents(tmp_path / "out")
    assert 4 <= len(before) < 52

    again = by_ray(load, photos, tmp_path / "out")
    assert [one.file for one in again] == [one.file for one in expected]
    assert len([one for one in again if one.skipped]) >= 4
    assert contents(tmp_path / "out") == contents(tmp_path / "calm")
    assert [row["file"] for row in rows(tmp_path / "out")] == [one.file for one in expected]
