import asyncio
from collections.abc import Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import gradio as gr
import httpx
import pytest
from gradio.queueing import Event, EventQueue
from gradio_client import Client

from mofme.ui import service
from mofme.ui.window import FairQueue


@pytest.fixture
def queue() -> Iterator[FairQueue]:
    """At most 5 wait, and 2 of one client, for the one function of a window."""

    async def build() -> FairQueue:
        with gr.Blocks(analytics_enabled=False) as window:
            gr.Button().click(lambda: None, concurrency_id="work", concurrency_limit=None)
        return FairQueue(2, live_updates=True, concurrency_count=9, update_intervals=1, max_size=5, blocks=window)

    yield in_a_loop(build())  # Gradio makes a loop for each of its locks where none runs, and leaves them open
    service.closing.clear()


def in_a_loop(work: Coroutine[Any, Any, Any]) -> Any:
    """In a thread of its own: the browser of other tests keeps a loop running in this one."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, work).result()


def send(queue: FairQueue, *clients: str) -> None:
    """Put one event of each of these in the queue, whatever its limits."""
    waiting = queue.event_queue_per_concurrency_id.setdefault("work", EventQueue("work", None))
    for client in clients:
        waiting.queue.append(Event(None, queue.blocks.fns[0], asked_by(client), None))


def asked_by(client: str) -> Any:
    return SimpleNamespace(client=SimpleNamespace(host=client))


def served(queue: FairQueue, count: int) -> str:
    return "".join(taken[0][0].request.client.host for _ in range(count) if (taken := queue.get_events()))


def refused(queue: FairQueue, client: str) -> str:
    taken, words, reason = in_a_loop(queue.push(SimpleNamespace(fn_index=0), asked_by(client), None))
    assert (taken, reason) == (False, "queue_full")
    return words


def test_clients_are_served_in_turn(queue: FairQueue) -> None:
    send(queue, *"aaabac")
    assert served(queue, 9) == "abcaaa"


def test_who_was_just_served_comes_after_who_was_not(queue: FairQueue) -> None:
    send(queue, "a", "a")
    assert served(queue, 1) == "a"
    send(queue, "b")
    assert served(queue, 1) == "b"
    send(queue, "a", "b", "c")  # c was never served, a before b, and then b before a
    assert served(queue, 4) == "caba"


def test_a_client_with_too_many_and_a_full_queue_are_told_in_words(queue: FairQueue) -> None:
    send(queue, "a", "b", "b")
    assert refused(queue, "b") == "You have 2 of these waiting already. Send more when some of them are done."
    send(queue, "c", "d")
    assert refused(queue, "e") == "The app is busy: 5 others wait already. Try again in a few minutes."


def test_calls_of_the_api_leave_no_state_behind() -> None:
    with gr.Blocks(analytics_enabled=False) as window:
        gr.Button().click(lambda: "done", None, gr.Text(), api_name="do")
    window.queue()
    window._queue = FairQueue(9, live_updates=True, concurrency_count=9, update_intervals=1, max_size=9, blocks=window)
    _, address, _ = window.launch(prevent_thread_lock=True, quiet=True, _frontend=False)
    try:
        for _ in range(3):
            event = httpx.post(f"{address}gradio_api/call/do", json={"data": []}, timeout=90).json()["event_id"]
            assert '["done"]' in httpx.get(f"{address}gradio_api/call/do/{event}", timeout=90).text
        assert not window.app.state_holder.session_data and not window.app.state_holder.time_last_used
        client = Client(address, verbose=False)  # a visitor, whose state stays
        client.predict(api_name="/do")
        assert list(window.app.state_holder.session_data) == [client.session_hash]
        client.close()
    finally:
        window.close(verbose=False)


def test_an_app_that_is_stopped_begins_nothing(queue: FairQueue) -> None:
    send(queue, "a")
    service.closing.set()
    assert "being stopped" in refused(queue, "b")
    assert queue.get_events() is None


def test_who_comes_back_is_let_in_however_many_wait(queue: FairQueue, monkeypatch: pytest.MonkeyPatch) -> None:
    async def taken(*_: object) -> tuple[bool, str, str]:
        return True, "event", "success"

    monkeypatch.setattr("gradio.queueing.Queue.push", taken)
    send(queue, *"abcde")
    queue.blocks.fns[0].api_name = "come-back-work"
    assert in_a_loop(queue.push(SimpleNamespace(fn_index=0), asked_by("f"), None))[0]


def test_clients_of_long_ago_are_forgotten(queue: FairQueue, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mofme.ui.window._REMEMBERED", 2)
    send(queue, *"abc")
    assert served(queue, 3) == "abc" and list(queue._served) == ["b", "c"]
