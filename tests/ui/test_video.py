"""The tabs Video and Live."""

import itertools
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from playwright.sync_api import Page, expect

from mofme.errors import Cancelled, PictureError
from mofme.ui.limits import Limits
from mofme.ui.models import Engine
from mofme.ui.runs import Job
from mofme.ui.tabs import video
from mofme.ui.tabs.restore import Settings
from mofme.ui.tabs.video import VideoProgress, restore_upload
from mofme.vision import video_writer
from mofme.vision.video_file import read_video
from tests.films import film

LIMITS = Limits(megapixels=0.1)


def run(engine: Engine, job: Job, upload: Path) -> list[VideoProgress]:
    return list(restore_upload(engine, job, upload, Settings("small"), LIMITS))


def test_a_video_comes_back_under_its_name_and_tells_what_it_lost(engine: Engine, tmp_path: Path) -> None:
    *_, last = run(engine, Job(60), film(tmp_path / "my film.mkv", size=(63, 47), codec="ffv1"))
    assert last.video is not None and last.video.name == "my film-restored.mkv"
    assert (last.number, last.frames, last.late) == (8, 8, False)
    assert sum(last.weathers.values()) == 8
    assert last.look is not None and all(path.is_file() for path in last.look)
    assert "holds odd sizes" in last.words() and "holds odd sizes" in str(last.report()["notes"])


def test_when_time_is_up_the_beginning_is_handed_out(engine: Engine, tmp_path: Path) -> None:
    *_, last = run(engine, Job(0), film(tmp_path / "a.mp4"))
    assert last.late and last.number == 1 and last.video is not None
    with read_video(last.video) as restored:
        assert len(list(restored)) == 1


def test_a_cancelled_video_leaves_nothing(engine: Engine, tmp_path: Path) -> None:
    job = Job(60)
    work = restore_upload(engine, job, film(tmp_path / "a.mp4"), Settings("small"), LIMITS)
    first = next(work)
    job.cancel()
    with pytest.raises(Cancelled):
        list(work)
    assert first.look is not None
    assert {path.suffix for path in first.look[0].parent.iterdir()} == {".jpg"}


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such locks")
def test_the_same_video_again_goes_on_and_becomes_the_same(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MOFME_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(video_writer, "SEGMENT_FRAMES", 2)
    monkeypatch.setattr(video, "LOOK_EVERY", -1.0)
    source, again = film(tmp_path / "a.mp4"), tmp_path / "again" / "b.mp4"
    again.parent.mkdir()
    again.write_bytes(source.read_bytes())  # handed in anew, of another time
    *_, whole = run(engine, Job(60), source)

    def begin(upload: Path, settings: Settings, frames: int) -> int:
        """How many of the frames an earlier run has done."""
        work = restore_upload(engine, Job(60), upload, settings, LIMITS)
        *_, progress = itertools.islice(work, frames)
        work.close()
        return progress.known

    assert begin(source, Settings("small"), 6) == 0
    assert begin(source, Settings("small", 0.5), 1) == 0  # another strength is other work
    assert [one.stat().st_mode & 0o077 for one in (tmp_path / "cache/mofme/unfinished").iterdir()] == [0]
    *_, last = run(engine, Job(60), again)
    assert last.known >= 4 and last.number == 8
    assert whole.video is not None and last.video is not None and last.video.name == "b-restored.mp4"
    assert whole.video.read_bytes() == last.video.read_bytes()
    assert whole.weathers == last.weathers
    assert list((tmp_path / "cache/mofme/unfinished").iterdir()) == []


def test_frames_that_are_too_large_are_refused(engine: Engine, tmp_path: Path) -> None:
    with pytest.raises(PictureError, match=r"more than the limit of 0\.1 megapixels"):
        run(engine, Job(60), film(tmp_path / "a.mp4", frames=1, size=(400, 300)))


def test_the_api_returns_the_video_and_a_report(url: str, tmp_path: Path) -> None:
    client = Client(url, verbose=False, download_files=tmp_path)
    sent = handle_file(film(tmp_path / "a.mp4", sound="aac"))
    path, report = client.predict(sent, "small", 1, False, 0, api_name="/video")
    assert report["frames"] == 8 and report["complete"] and report["damaged"] == 0
    with read_video(Path(path)) as restored:
        assert len(list(restored)) == 8
    (tmp_path / "text.mp4").write_text("no video")
    with pytest.raises(AppError, match=r"text\.mp4: cannot be read as a video"):
        client.predict(handle_file(tmp_path / "text.mp4"), "small", 1, False, 0, api_name="/video")
    client.close()


def test_a_person_restores_a_video(visit: Callable[..., Page], url: str, tmp_path: Path) -> None:
    page = visit(f"{url}?tab=video")
    page.set_input_files("#video input[type=file]", film(tmp_path / "a.mp4", frames=20))
    expect(page.locator("#video")).to_contain_text(re.compile(r"a\s*\.mp4\s*\d"))  # its size stands there once it is up
    page.click("#restore-video")
    expect(page.locator("#restored-video video")).to_be_visible()
    expect(page.locator("#video-comparison img")).to_have_count(2)
    expect(page.get_by_text("Done: 20 frames")).to_be_visible()
    assert page.locator("#restored-video video").evaluate("video => video.duration") == pytest.approx(2, abs=0.1)
    with page.expect_download() as download:
        page.click("#download-video")
    assert download.value.suggested_filename == "a-restored.mp4"
    assert page.evaluate("document.documentElement.scrollWidth") == 390


def test_a_camera_is_restored_as_it_films(visit: Callable[..., Page], url: str) -> None:
    page = visit(f"{url}?tab=live")
    page.get_by_text("Click to Access Webcam").click()
    page.locator("#camera button", has_text="Record").click()
    expect(page.locator("#live-words")).to_contain_text("ms a picture")
    first = page.locator("#live img")
    expect(first).to_have_js_property("naturalWidth", 480)
    expect(first).not_to_have_attribute("src", first.get_attribute("src") or "")  # it goes on
    page.locator("#camera button", has_text="Stop").click()
    assert page.evaluate("document.documentElement.scrollWidth") == 390
