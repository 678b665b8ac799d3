"""Jobs, errors in plain words, and the buttons of every tab with work that goes on until it is stopped."""

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Semaphore

import gradio as gr
import pytest
from gradio.utils import get_upload_folder
from gradio_client import Client
from gradio_client.exceptions import AppError
from playwright.sync_api import Browser, Page, expect

from mofme.errors import Cancelled, ModelError, MofmeError, PictureError
from mofme.ui.models import Engine
from mofme.ui.runs import Job
from mofme.ui.uploads import new_folder, without_folders
from mofme.ui.work import Endpoint, plain_errors, start_and_cancel, status_box, work
from tests.ui.one_tab import one_tab


def test_a_job_runs_until_it_is_cancelled_or_its_time_is_up() -> None:
    job = Job(seconds=60)
    job.check()
    job.cancel()
    with pytest.raises(Cancelled):
        job.check()
    with pytest.raises(MofmeError, match="longer than the limit"):
        Job(seconds=-1).check()


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


def test_errors_for_the_user_lose_markup_and_folders_and_others_are_logged_and_hidden(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    with pytest.raises(gr.Error) as caught, plain_errors():
        raise PictureError(f"{new_folder()}/a <b>.jpg: the file is empty.")
    assert caught.value.message == "a &lt;b&gt;.jpg: the file is empty."
    assert without_folders(f"{get_upload_folder()}/ab12/x y.jpg: damaged.") == "x y.jpg: damaged."
    assert without_folders("x y.jpg: 50% / damaged.") == "x y.jpg: 50% / damaged."
    with pytest.raises(gr.Error) as caught, plain_errors():
        raise RuntimeError("password=1234")
    assert "1234" not in caught.value.message and "1234" in caplog.text


class Endless:
    """Work that ends only when it is stopped; counts how often it began and ended."""

    def __init__(self) -> None:
        self.began, self.ended = Semaphore(0), Semaphore(0)

    def draw(self) -> None:
        buttons, status = start_and_cancel("Start", "endless"), status_box("Nothing yet")
        told = Endpoint("endless", "", {"words": gr.Text}, str)
        work(self.run, [], {status: str}, buttons, status, seconds=60, endpoint=told, away=0.5)

    def run(self, job: Job) -> str:
        self.began.release()
        try:
            while True:
                job.check()
                time.sleep(0.02)
        finally:
            self.ended.release()


def test_work_stops_with_its_page_or_its_program_and_who_cancels_while_waiting_is_never_served(
    browser: Browser, folders: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRADIO_IS_E2E_TEST", "1")  # else it looks every 15 seconds whether they are there
    endless = Endless()

    def begin(page: Page) -> Page:
        page.goto(address)
        page.click("text=Start")
        return page

    with one_tab(endless.draw) as address:
        first = begin(browser.new_page())
        assert endless.began.acquire(timeout=90)
        second = begin(browser.new_page())
        expect(second.get_by_text("queue:")).to_be_visible()
        second.click("text=Cancel")
        expect(second.get_by_text("Stopped.")).to_be_visible()
        first.click("text=Cancel")
        assert endless.ended.acquire(timeout=90)
        expect(first.get_by_role("button", name="Start")).to_be_enabled()
        assert not endless.began.acquire(timeout=1)
        second.click("text=Start")
        assert endless.began.acquire(timeout=90)
        second.close()
        assert endless.ended.acquire(timeout=90)
        first.close()
        program, other = Client(address, verbose=False), Client(address, verbose=False)
        program.submit(api_name="/endless")
        assert endless.began.acquire(timeout=90)
        other.close()  # whose work it is not
        assert not endless.ended.acquire(timeout=0.5)
        program.close()
        assert endless.ended.acquire(timeout=90)


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


def test_programs_see_how_far_work_is_every_result_or_the_last_and_no_state_and_pages_what_is_missing(
    visit: Callable[..., Page], folders: None
) -> None:
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
        page = visit(address)
        page.get_by_label("Most").fill("10")
        page.click("#count")
        expect(page.locator("p.problem")).to_have_text("so many <b> are not installed")
        expect(page.locator("#count")).to_be_enabled()
