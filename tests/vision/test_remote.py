"""Folders at addresses: what a report there may do here, and which files there are inputs."""

import os
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

from mofme.errors import PictureError
from mofme.vision.remote import mirrored
from mofme.vision.report import FileReport, plan_tree, write_report


@pytest.fixture
def memory() -> Iterator[fsspec.AbstractFileSystem]:
    system = fsspec.filesystem("memory")
    yield system
    system.store.clear()


@pytest.mark.parametrize("when", ["2020-01-01T00:00:00+00:00", "30.11.2026 15:00"])
def test_a_strangers_report_touches_nothing_here_and_stops_nothing(
    tmp_path: Path, when: str, memory: fsspec.AbstractFileSystem
) -> None:
    mine = tmp_path / "mine"
    mine.touch()
    os.utime(mine, (1, 1))
    rows = [
        FileReport(name, output, 1, 1, source=f"1 bytes, {when}") for name, output in (("a", str(mine)), ("b", "b"))
    ]
    write_report(tmp_path / "report.csv", rows)
    memory.put_file(str(tmp_path / "report.csv"), "/strange/report.csv")
    memory.pipe("/strange/b", b"x")
    with mirrored(Path("memory://strange")):
        assert mine.stat().st_mtime == 1


def test_what_stands_for_a_folder_in_an_object_store_is_no_file(
    tmp_path: Path, memory: fsspec.AbstractFileSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory.pipe("/shots/in/sub/a.png", b"x")
    # As S3 lists what its console makes for "New folder".
    marks = {f"/shots/{name}": {"name": f"/shots/{name}", "type": "file", "size": 0} for name in ("in/", "in/sub/")}
    found = {**marks, **memory.find("/shots/in", detail=True)}
    monkeypatch.setattr(type(memory), "find", lambda *_, **__: found)
    folder = Path("memory://shots/in")
    with mirrored(folder) as mirror:
        plan = plan_tree(mirror.path(folder), tmp_path / "out")
        assert [path.relative_to(mirror.path(folder)).as_posix() for path, _ in plan] == ["sub/a.png"]


def test_the_address_of_one_file_is_told_from_that_of_a_folder(
    memory: fsspec.AbstractFileSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory.pipe("/shots/a.JPG", b"x")
    memory.pipe("/named.jpg/b.png", b"x")
    with mirrored(Path("memory://named.jpg"), Path("memory://nowhere.jpg")):
        pass
    one = Path("memory://shots/a.JPG")
    with pytest.raises(PictureError, match=r"^memory://shots/a\.JPG: is one file; fetch it first"), mirrored(one):
        pass
    monkeypatch.setattr(type(memory), "find", lambda *_, **__: {})  # as of HTTP
    with pytest.raises(PictureError, match="is one file"), mirrored(one):
        pass


def test_results_of_an_earlier_run_at_an_address_are_no_inputs(
    tmp_path: Path, memory: fsspec.AbstractFileSystem
) -> None:
    write_report(tmp_path / "report.csv", [FileReport("a.png", "a.png", 1, 1)])
    memory.pipe("/shots/in/a.png", b"x")
    memory.pipe("/shots/in/clear/a.png", b"x")
    memory.put_file(str(tmp_path / "report.csv"), "/shots/in/clear/report.csv")
    folder = Path("memory://shots/in")
    with mirrored(folder) as mirror:
        assert len(plan_tree(mirror.path(folder), tmp_path / "out")) == 1
