"""Jobs, errors in plain words, and the buttons of every tab with work that goes on until it is stopped."""

import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Semaphore
from types import SimpleNamespace
from typing import Any

import gradio as gr
import pytest
from gradio.utils import get_upload_folder
from gradio_client import Client
from gradio_client.exceptions import AppError
from playwright.sync_api import Browser, Page, expect

from mofme.errors import Cancelled, ModelError, MofmeError, PictureError
from mofme.ui.models import Engine
from mofme.ui.runs import Job
from mofme.ui.uploads import KEEP_SECONDS, RESULTS, new_folder, without_folders
from mofme.ui.work import Endpoint, Jobs, plain_errors, start_and_cancel, status_box, work
from tests.ui.one_tab import one_tab


def visitor(name: str) -> Any:
    return SimpleNamespace(session_hash=name)


def test_a_job_runs_until_it_is_cancelled() -> None:
    job = Job(seconds=60)
    job.check()
    job.cancel()
    with pytest.raises(Cancelled):
        job.check()


def test_a_job_ends_when_its_time_is_up() -> None:
    with pytest.raises(MofmeError, match="longer than the limit"):
        Job(seconds=-1).check()


def test_cancel_reaches_the_job_of_this_visitor_only() -> None:
    jobs = Jobs()
    with jobs.running(visitor("a"), Job(60)) as mine, jobs.running(visitor("b"), Job(60)) as other:
        jobs.cancel(visitor("a"))
        other.check()
        with pytest.raises(Cancelled):
            mine.check()
    jobs.cancel(visitor("a"))  # nothing runs any more: no harm


def test_a_job_that_winds_down_late_leaves_its_successor_cancellable() -> None:
    jobs = Jobs()
    with jobs.running(visitor("a"), Job(60)):
        successor = jobs.running(visitor("a"), Job(60))
        job = successor.__enter__()
    jobs.cancel(visitor("a"))
    with pytest.raises(Cancelled):
        job.check()
    successor.__exit__(None, None, None)


def test_models_are_loaded_once_and_by_listed_names_only() -> None:
    loaded = []
    engine = Engine(["small"], lambda name: loaded.append(name) or object())
    threads = [threading.Thread(target=engine.restorer, args=("small",)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert loaded == ["small"]
    for name in ("/etc", None):
        for ask in (engine.restorer, engine.fast_restorer):
            with pytest.raises(ModelError):
                ask(name)


def test_a_model_is_sped_up_once_and_for_many_pictures_alone() -> None:
    sped_up = []
    engine = Engine(["small"], lambda name: f"slow {name}", lambda slow: sped_up.append(slow) or "fast")
    assert engine.restorer("small") == "slow small" and not sped_up
    assert [engine.fast_restorer("small") for _ in range(2)] == ["fast", "fast"]
    assert engine.restorer("small") == "slow small" and sped_up == ["slow small"]


def test_errors_for_the_user_keep_their_words_and_lose_markup_and_folders() -> None:
    with pytest.raises(gr.Error) as caught, plain_errors():
        raise PictureError(f"{new_folder()}/a <b>.jpg: the file is empty.")
    assert caught.value.message == "a &lt;b&gt;.jpg: the file is empty."


def test_other_errors_are_logged_and_hidden(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(gr.Error) as caught, plain_errors():
        raise RuntimeError("password=1234")
    assert "1234" not in caught.value.message
    assert "1234" in caplog.text


@pytest.fixture(autouse=True)
def own_results(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    monkeypatch.setattr(RESULTS, "_looked", 0.0)
    monkeypatch.setattr(RESULTS, "most_bytes", RESULTS.most_bytes)


def kept(age: float, size: int = 0) -> Path:
    folder = new_folder()
    file = folder / "result"
    file.write_bytes(b"x" * size)
    for path in (file, folder):
        os.utime(path, (0, time.time() - age))
    return folder


def test_results_are_kept_for_a_while_and_then_removed() -> None:
    old, recent = kept(KEEP_SECONDS + 60), kept(KEEP_SECONDS - 60)
    RESULTS._looked = 0
    new_folder()
    assert not old.exists()
    assert recent.exists()


def test_too_many_results_go_oldest_first_but_not_while_they_are_written_or_fetched() -> None:
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
    assert (written / "result").exists()


def test_folders_of_the_server_are_taken_out_of_messages() -> None:
    assert without_folders(f"{get_upload_folder()}/ab12/x y.jpg: damaged.") == "x y.jpg: damaged."
    assert without_folders("x y.jpg: 50% / damaged.") == "x y.jpg: 50% / damaged."


class Endless:
    """Work that ends only when it is stopped; counts how often it began and ended."""

    def __init__(self) -> None:
        self.began, self.ended = Semaphore(0), Semaphore(0)

    def draw(self) -> None:
        buttons, status = start_and_cancel("Start", "endless"), status_box("Nothing yet")
        work(self.run, [], {status: str}, buttons, status, seconds=60)

    def run(self, job: Job) -> str:
        self.began.release()
        try:
            while True:
                job.check()
                time.sleep(0.02)
        finally:
            self.ended.release()


@pytest.fixture
def endless() -> Endless:
    return Endless()


@pytest.fixture
def visit(browser: Browser, endless: Endless, folders: None) -> Iterator[Callable[[], Page]]:
    """Opens the page anew, as one more visitor."""
    with one_tab(endless.draw) as address:

        def visit() -> Page:
            page = browser.new_page()
            page.goto(address)
            return page

        yield visit


def test_work_stops_when_its_visitor_closes_the_page(endless: Endless, visit: Callable[[], Page]) -> None:
    page = visit()
    page.click("text=Start")
    assert endless.began.acquire(timeout=90)
    page.close()
    assert endless.ended.acquire(timeout=90)


def test_who_cancels_while_waiting_is_never_served(endless: Endless, visit: Callable[[], Page]) -> None:
    first, second = visit(), visit()
    first.click("text=Start")
    assert endless.began.acquire(timeout=90)
    second.click("text=Start")
    expect(second.get_by_text("queue:")).to_be_visible()
    second.click("text=Cancel")
    expect(second.get_by_text("Stopped.")).to_be_visible()
    first.click("text=Cancel")
    assert endless.ended.acquire(timeout=90)
    expect(first.get_by_role("button", name="Start")).to_be_enabled()
    assert not endless.began.acquire(timeout=1)
    first.close()
    second.close()


class Counting:
    """Counts to a number, and waits at every step until it is told to go on."""

    def __init__(self) -> None:
        self.go_on = Semaphore(0)

    def draw(self) -> None:
        most, before = gr.Number(2, label="Most"), gr.State((7,))
        for name, streams in (("count", True), ("last", False)):
            buttons, status = start_and_cancel("Count", name), status_box("")
            told = Endpoint(name, "", {"number": gr.Number, "before": gr.JSON}, lambda found: found, streams)
            work(self.run, [most, before], {status: str}, buttons, status, seconds=60, endpoint=told)

    def run(self, job: Job, most: int, before: tuple[int, ...] = ()) -> Iterator[tuple[int, list[int]]]:
        if most > 9:
            raise ModelError("so many <b> are not installed")
        for number in range(int(most) + 1):
            job.report(number / most, f"at {number}")
            self.go_on.acquire(timeout=90)
            yield number, list(before)


def test_programs_see_how_far_work_is_every_result_or_the_last_and_no_state(folders: None) -> None:
    counting = Counting()
    with one_tab(counting.draw) as address:
        client = Client(address, verbose=False)
        running = client.submit(most=2, api_name="/count")
        while not (told := running.status().progress_data):
            time.sleep(0.02)
        assert (told[0].progress, told[0].desc) == (0, "at 0")
        counting.go_on.release(6)
        assert running.result() == (2, [])
        assert running.outputs() == [(0, []), (1, []), (2, [])]
        assert client.predict(most=2, api_name="/last") == (2, [])
        with pytest.raises(AppError, match="so many &lt;b&gt; are not installed"):
            client.predict(most=10, api_name="/last")
        client.close()


def test_a_model_that_is_missing_is_told_on_the_page_and_stays(browser: Browser, folders: None) -> None:
    with one_tab(Counting().draw) as address:
        page = browser.new_page()
        page.goto(address)
        page.get_by_label("Most").fill("10")
        page.click("#count")
        expect(page.locator("p.problem")).to_have_text("so many <b> are not installed")
        expect(page.locator("#count")).to_be_enabled()
        page.close()
