"""Work that its visitor comes back to by its link."""

import threading
import time
from collections.abc import Callable, Iterator
from threading import Semaphore
from typing import Any

import gradio as gr
import pytest
from playwright.sync_api import Page, expect

from mofme.errors import Cancelled, PictureError
from mofme.ui.runs import Job, Run, Runs
from mofme.ui.uploads import KEEP_SECONDS
from mofme.ui.work import start_and_cancel, status_box, work
from tests.ui.one_tab import one_tab


class Steps:
    """Yields 1, 2, 3, each when it is told to go on; what it was stopped by is in `stopped`."""

    def __init__(self) -> None:
        self.go_on, self.stopped = Semaphore(0), threading.Event()

    def __call__(self, job: Job) -> Iterator[int]:
        try:
            for number in (1, 2, 3):
                while not self.go_on.acquire(timeout=0.02):
                    job.check()
                job.report(number / 3, f"at {number}")
                yield number
        except Cancelled:
            self.stopped.set()
            raise


@pytest.fixture
def steps() -> Steps:
    return Steps()


def follow(run: Run, visitor: str, told: Callable[[str], Any] = str) -> Iterator[Any]:
    return run.follow(visitor, lambda share, words: told(words))


def test_who_comes_back_sees_the_latest_step_and_those_to_come(steps: Steps) -> None:
    runs, told = Runs(away=60), []
    run = runs.begin("link", steps, seconds=60)
    first = follow(run, "one", told.append)
    steps.go_on.release()
    assert next(first) == 1
    first.close()  # the page is loaded again
    steps.go_on.release()
    assert runs.find("link") is run
    second = follow(run, "two", told.append)
    assert next(second) in (1, 2)
    steps.go_on.release()
    assert list(second)[-1] == 3
    assert (told[0], told[-1]) == ("at 1", "at 3")
    assert list(follow(run, "three")) == [3]  # it is over, and still kept
    assert run.ended_at
    run.ended_at -= KEEP_SECONDS + 1
    assert runs.find("link") is None  # though nobody began anything


def test_work_that_nobody_follows_is_stopped_after_a_while(steps: Steps) -> None:
    runs = Runs(away=0.1)
    following = follow(runs.begin("link", steps, seconds=60), "one")
    steps.go_on.release()
    next(following)
    for run in runs.followed_by("one"):
        run.leave("one")
    assert steps.stopped.wait(30)
    assert list(following) == []  # who has left is told nothing more


def test_work_goes_on_for_others_who_follow_it(steps: Steps) -> None:
    run = Runs(away=0.05).begin("link", steps, seconds=60)
    pages = [follow(run, name) for name in ("one", "two")]
    steps.go_on.release()
    assert [next(page) for page in pages] == [1, 1]
    run.leave("one")
    assert not steps.stopped.wait(0.3)
    run.job.cancel()
    with pytest.raises(Cancelled):
        list(pages[1])


def test_one_run_is_at_work_at_a_time_whose_waiting_is_not_counted_and_errors_reach_who_follows(steps: Steps) -> None:
    runs = Runs(away=60)

    def broken(job: Job) -> Iterator[int]:
        job.check()
        raise PictureError("broken")
        yield 0

    first, second = runs.begin("first", steps, 60), runs.begin("second", broken, 0.3)
    time.sleep(0.5)
    assert second.ended_at is None
    steps.go_on.release(3)
    assert list(follow(first, "one"))[-1] == 3
    for _ in range(2):
        with pytest.raises(PictureError, match="broken"):
            list(follow(second, "two"))


def test_the_time_away_counts_from_the_last_look(steps: Steps, monkeypatch: pytest.MonkeyPatch) -> None:
    timers: list[Any] = []

    class Timer:
        def __init__(self, seconds: float, call: Any, args: tuple[int]) -> None:
            self.seconds, self.ring = seconds, lambda: call(*args)
            timers.append(self)

        def start(self) -> None: ...

    monkeypatch.setattr("mofme.ui.runs.threading.Timer", Timer)
    run = Runs(away=2).begin("link", steps, seconds=60)
    steps.go_on.release()
    for name in ("one", "two"):
        next(follow(run, name))
        run.leave(name)
    first, last = timers[0], timers[-1]
    assert (first.seconds, last.seconds) == (2, 2)
    first.ring()
    assert not steps.stopped.wait(0.1)  # somebody has looked since
    last.ring()
    assert steps.stopped.wait(30)


def test_a_page_loaded_again_shows_its_work_and_an_error_goes_with_other_files(
    visit: Callable[..., Page], folders: None, steps: Steps
) -> None:
    def numbers(job: Job, file: str | None) -> Iterator[int]:
        if file and "bad" in file:
            raise PictureError(f"{file}: damaged.")
        yield from steps(job)

    def draw() -> None:
        file = gr.File(type="filepath", elem_id="file")
        buttons, status = start_and_cancel("Count", "count"), status_box("Nothing yet", "told")
        work(numbers, [file], {status: lambda number: f"step {number}"}, buttons, status, seconds=60)

    def choose(name: str) -> None:
        page.set_input_files("#file input[type=file]", {"name": name, "mimeType": "text/plain", "buffer": b"x"})
        expect(page.locator("#file")).to_contain_text(name.removesuffix(".txt"))

    with one_tab(draw) as address:
        page = visit(address)
        choose("bad.txt")
        page.click("#count")
        expect(page.locator("#told .problem")).to_have_text("bad.txt: damaged.")
        expect(page.get_by_text("Error", exact=True)).to_have_count(0)
        page.get_by_label("Clear").click()
        expect(page.locator("#told")).to_have_text("Nothing yet")
        choose("good.txt")
        page.click("#count")
        steps.go_on.release()
        expect(page.locator("#told")).to_contain_text("step 1")
        page.reload()
        expect(page.locator("#told")).to_contain_text("step 1")
        expect(page.locator("#count")).to_be_disabled()
        steps.go_on.release(2)
        expect(page.locator("#told")).to_have_text("step 3")
        expect(page.locator("#count")).to_be_enabled()
        page.goto(f"{address}?count=of-long-ago")
        expect(page.locator("#told")).to_contain_text("not kept any more")
