"""The buttons of every tab, with work that goes on until it is stopped."""

import time
from collections.abc import Callable, Iterator
from threading import Semaphore

import gradio as gr
import pytest
from playwright.sync_api import Browser, Page, expect

from mofme.ui.buttons import run_and_cancel
from mofme.ui.jobs import Jobs, plain_errors
from tests.ui.one_tab import one_tab


class Endless:
    """Work that ends only when it is stopped; counts how often it began and ended."""

    def __init__(self) -> None:
        self.jobs, self.began, self.ended = Jobs(), Semaphore(0), Semaphore(0)

    def draw(self) -> None:
        start, cancel, status = gr.Button("Start"), gr.Button("Cancel", interactive=False), gr.HTML("Nothing yet")
        run_and_cancel(start, cancel, status, self.jobs, self.work, [], [status], concurrency_id="endless")

    def work(self, request: gr.Request) -> str:
        with plain_errors(), self.jobs.running(request, 60) as job:
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
    assert endless.began.acquire(timeout=30)
    page.close()
    assert endless.ended.acquire(timeout=30)


def test_who_cancels_while_waiting_is_never_served(endless: Endless, visit: Callable[[], Page]) -> None:
    first, second = visit(), visit()
    first.click("text=Start")
    assert endless.began.acquire(timeout=30)
    second.click("text=Start")
    expect(second.get_by_text("queue:")).to_be_visible()
    second.click("text=Cancel")
    expect(second.get_by_text("Stopped.")).to_be_visible()
    first.click("text=Cancel")
    assert endless.ended.acquire(timeout=30)
    expect(first.get_by_role("button", name="Start")).to_be_enabled()
    assert not endless.began.acquire(timeout=1)
    first.close()
    second.close()
