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


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such locks")
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


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such locks")
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


def test_what_browsers_show_is_left_alone(tmp_path: Path) -> None:
    for suffix in (".jpg", ".png", ".webp", ".bmp"):
        Image.new("RGB", (8, 8)).save(tmp_path / f"a{suffix}")
        assert preview(str(tmp_path / f"a{suffix}")) == (str(tmp_path / f"a{suffix}"), "")


def test_a_text_that_is_called_a_photo_is_told_at_once_and_promised_nothing(tmp_path: Path) -> None:
    path = tmp_path / "notes.jpg"
    path.write_text("no picture, whatever its name")
    shown, problem = preview(str(path))
    assert shown is None
    assert "notes.jpg" in problem and "class='problem'" in problem
    with gr.Blocks():
        assert "can be restored" not in str(photo_box("box").alt_text)


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


def test_where_a_video_is_kept_is_not_told() -> None:
    assert without_folders(f"{cache_root() / 'unfinished' / 'ab12' / 'restored.mp4'}: full.") == "restored.mp4: full."


def test_only_results_are_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    monkeypatch.setattr(RESULTS, "_looked", 0.0)
    own = tmp_path / "mofme-main"
    own.mkdir()
    os.utime(own, (0, time.time() - KEEP_SECONDS - 60))
    new_folder()
    assert own.exists()


def test_a_thumbnail_never_takes_its_photos_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads, "_MOST_ORIGINALS", 1)
    shown = []
    for name in ("one.tif", "two.tif"):
        Image.new("RGB", (1000, 800)).save(tmp_path / name)
        shown.append(preview(str(tmp_path / name))[0])
    assert uploads._path_of(ImageData(path=shown[1])) == str(tmp_path / "two.tif")
    with pytest.raises(gr.Error, match="choose it again"):
        uploads._path_of(ImageData(path=shown[0]))


def test_a_video_under_way_stays_though_results_are_too_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "gradio"))
    (tmp_path / "cache").touch()  # no folder: there is no cache
    monkeypatch.setenv("MOFME_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(RESULTS, "most_bytes", 0)
    with kept_folder("one") as folder:
        (folder / "segment").write_bytes(b"x")
        for path in (folder / "segment", folder):
            os.utime(path, (time.time() - 90,) * 2)
        monkeypatch.setattr(RESULTS, "_looked", 0.0)
        new_folder()
        assert (folder / "segment").exists()
