import os
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr
import pytest
from gradio.data_classes import ImageData
from PIL import Image
from pillow_heif import register_heif_opener

from mofme.files import cache_root
from mofme.ui import uploads
from mofme.ui.memory import MEMORY
from mofme.ui.uploads import (
    KEEP_SECONDS,
    RESULTS,
    kept_folder,
    new_folder,
    own_folder,
    photo_box,
    preview,
    without_folders,
)

locks = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such locks")


@locks
def test_only_what_a_killed_app_left_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    left = tmp_path / "mofme-app-left"  # whose lock nobody holds any more
    for path in (left / "running.lock", left / "photo.jpg", tmp_path / "else/running.lock", tmp_path / "else/kept.txt"):
        path.parent.mkdir(exist_ok=True)
        path.touch()
    (tmp_path / "mofme-app-link").symlink_to(tmp_path / "else")
    (tmp_path / "mofme-app-starting").mkdir()
    with own_folder() as running:
        assert not left.exists()
        with own_folder() as folder:
            assert (running / "running.lock").exists()
            assert (tmp_path / "else" / "kept.txt").exists()
            assert (tmp_path / "mofme-app-starting").exists()
            assert folder.stat().st_mode & 0o077 == 0
        assert not folder.exists()
    assert not running.exists()


@locks
def test_unfinished_work_is_kept_for_whoever_goes_on_but_neither_for_ever_nor_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MOFME_CACHE", str(tmp_path))

    def leave(name: str) -> Path:
        with pytest.raises(ValueError), kept_folder(name) as folder:
            (folder / "segment").touch()
            raise ValueError
        return folder

    first = leave("one")
    with kept_folder("one") as folder, kept_folder("one") as other:
        assert folder == first and (folder / "segment").exists()
        assert list(other.iterdir()) == []  # that of somebody else at the same work
    assert not folder.exists() and not other.exists()
    old = leave("old")
    os.utime(old, (0, time.time() - KEEP_SECONDS - 1))
    names = [leave(str(number)).name for number in range(20)]
    left = {path.name for path in old.parent.iterdir()}
    assert left <= set(names) and len(left) == 8
    with kept_folder("nothing done"):
        pass
    with suppress(ValueError), kept_folder("nothing done") as folder:
        raise ValueError
    assert not folder.exists()
    assert without_folders(f"{cache_root() / 'unfinished' / 'ab12' / 'restored.mp4'}: full.") == "restored.mp4: full."


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder of results, which is looked through at the next chance."""
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "gradio"))
    monkeypatch.setattr(RESULTS, "_looked", 0.0)
    monkeypatch.setattr(RESULTS, "most_bytes", RESULTS.most_bytes)
    return tmp_path / "gradio"


def kept(age: float, size: int = 0) -> Path:
    folder = new_folder()
    (folder / "result").write_bytes(b"x" * size)
    return aged(folder, age)


def aged(folder: Path, age: float) -> Path:
    for path in (*folder.iterdir(), folder):
        os.utime(path, (0, time.time() - age))
    return folder


def test_results_alone_are_removed_after_a_while(results: Path) -> None:
    old, recent = kept(KEEP_SECONDS + 60), kept(KEEP_SECONDS - 60)
    (results / "mofme-main").mkdir()
    own = aged(results / "mofme-main", KEEP_SECONDS + 60)
    RESULTS._looked = 0
    new_folder()
    assert [path.exists() for path in (old, recent, own)] == [False, True, True]


def test_too_many_results_go_oldest_first_but_not_while_they_are_written_or_fetched(results: Path) -> None:
    """300 bytes may stay: the newest has 200 and the next one 100; who writes 400 is let."""
    written, newest, middle, oldest = kept(0, 400), kept(100, 200), kept(200, 100), kept(300, 100)
    RESULTS._looked, RESULTS.most_bytes = 0, 400 + 300
    with (oldest / "result").open("rb") as fetched:
        new_folder()
        assert [path.exists() for path in (written, newest, middle, oldest)] == [True, True, True, False]
        assert fetched.read() == b"x" * 100
    RESULTS.most_bytes = 0
    new_folder()
    assert newest.exists()  # looked for a moment ago
    RESULTS._looked = 0
    new_folder()
    assert [path.exists() for path in (written, newest, middle)] == [True, False, False]


def test_a_video_under_way_stays_though_results_are_too_many(
    results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cache").touch()  # no folder: there is no cache
    monkeypatch.setenv("MOFME_CACHE", str(tmp_path / "cache"))
    RESULTS.most_bytes = 0
    with kept_folder("one") as folder:
        (folder / "segment").write_bytes(b"x")
        aged(folder, 90)
        RESULTS._looked = 0
        new_folder()
        assert (folder / "segment").exists()


def uploaded(path: Path) -> Any:
    return SimpleNamespace(path=str(path))


@pytest.mark.parametrize("suffix", [".tif", ".heic"])
def test_a_thumbnail_stands_for_what_browsers_cannot_show_and_the_untouched_file_is_restored(
    tmp_path: Path, suffix: str
) -> None:
    register_heif_opener()
    path = tmp_path / f"phone{suffix}"
    Image.new("RGB", (1400, 70), "red").save(path)
    shown, problem = preview(str(path))
    assert problem == ""
    with Image.open(shown) as image:
        assert (image.format, image.size) == ("JPEG", (640, 32))
    with gr.Blocks():
        box = photo_box("box")
    assert box.preprocess(uploaded(Path(shown))) == str(path)
    assert box.preprocess(uploaded(Path("elsewhere") / Path(shown).name)) == str(path)  # Gradio moves what it shows


def test_what_browsers_show_is_left_alone_and_what_is_no_photo_is_told_at_once(tmp_path: Path) -> None:
    for suffix in (".jpg", ".png", ".webp", ".bmp"):
        Image.new("RGB", (8, 8)).save(tmp_path / f"a{suffix}")
        assert preview(str(tmp_path / f"a{suffix}")) == (str(tmp_path / f"a{suffix}"), "")
    (tmp_path / "notes.jpg").write_text("no picture, whatever its name")
    shown, problem = preview(str(tmp_path / "notes.jpg"))
    assert shown is None and "notes.jpg" in problem and "class='problem'" in problem


@pytest.mark.parametrize("held", [5.0, 0.0])  # by others, by nobody
def test_a_photo_that_cannot_be_shown_now_stays_chosen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, held: float
) -> None:
    path = tmp_path / "a.tif"
    Image.new("RGB", (8, 8)).save(path)
    monkeypatch.setattr(MEMORY, "limit", 1.0)
    monkeypatch.setattr(MEMORY, "held", held)
    shown, words = preview(str(path))
    assert shown == str(path) and words


def test_a_thumbnail_never_takes_its_photos_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads, "_MOST_ORIGINALS", 1)
    shown = []
    for name in ("one.tif", "two.tif"):
        Image.new("RGB", (1000, 800)).save(tmp_path / name)
        shown.append(preview(str(tmp_path / name))[0])
    assert uploads._path_of(ImageData(path=shown[1])) == str(tmp_path / "two.tif")
    with pytest.raises(gr.Error, match="choose it again"):
        uploads._path_of(ImageData(path=shown[0]))
