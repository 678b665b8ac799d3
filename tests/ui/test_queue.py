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


def queue_of(window: gr.Blocks) -> FairQueue:
    """At most 5 wait, and 2 of one client."""
    return FairQueue(2, live_updates=True, concurrency_count=9, update_intervals=1, max_size=5, blocks=window)


@pytest.fixture
def queue() -> Iterator[FairQueue]:
    """Of a window with one function."""

    async def build() -> FairQueue:
        with gr.Blocks(analytics_enabled=False) as window:
            gr.Button().click(lambda: None, concurrency_id="work", concurrency_limit=None)
        return queue_of(window)

    yield in_a_loop(build())  # Gradio makes a loop for each of its locks where none runs, and leaves them open
    service.closing.clear()


def in_a_loop(work: Coroutine[Any, Any, Any]) -> Any:
    """In a thread of its own: the browser of other tests keeps a loop running in this one."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, work).result()


def asked_by(client: str) -> Any:
    return SimpleNamespace(client=SimpleNamespace(host=client))


def send(queue: FairQueue, *clients: str) -> None:
    """Put one event of each of these in the queue, whatever its limits."""
    waiting = queue.event_queue_per_concurrency_id.setdefault("work", EventQueue("work", None))
    for client in clients:
        waiting.queue.append(Event(None, queue.blocks.fns[0], asked_by(client), None))


def served(queue: FairQueue, count: int) -> str:
    return "".join(taken[0][0].request.client.host for _ in range(count) if (taken := queue.get_events()))


def push(queue: FairQueue, client: str) -> Any:
    return in_a_loop(queue.push(SimpleNamespace(fn_index=0), asked_by(client), None))


def test_clients_are_served_in_turn_and_who_was_just_served_after_who_was_not(queue: FairQueue) -> None:
    send(queue, *"aaabac")
    assert served(queue, 9) == "abcaaa"
    send(queue, "d")
    assert served(queue, 1) == "d"
    send(queue, *"adbe")  # e was never served; then b, before a
    assert served(queue, 4) == "ebad"


def test_clients_of_long_ago_are_forgotten(queue: FairQueue, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mofme.ui.window._REMEMBERED", 2)
    send(queue, *"abc")
    assert served(queue, 3) == "abc" and list(queue._served) == ["b", "c"]


def test_who_asks_too_much_or_too_late_is_told_in_words_and_who_comes_back_is_let_in(
    queue: FairQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    send(queue, "a", "b", "b")
    many = "You have 2 of these waiting already. Send more when some of them are done."
    assert push(queue, "b") == (False, many, "queue_full")
    send(queue, "c", "d")
    full = "The app is busy: 5 others wait already. Try again in a few minutes."
    assert push(queue, "e") == (False, full, "queue_full")
    with monkeypatch.context() as patch:

        async def taken(*_: object) -> tuple[bool, str, str]:
            return True, "event", "success"

        patch.setattr("gradio.queueing.Queue.push", taken)
        patch.setattr(queue.blocks.fns[0], "api_name", "come-back-work")
        assert push(queue, "f")[0]
    service.closing.set()
    assert "being stopped" in push(queue, "b")[1] and queue.get_events() is None


def test_calls_of_the_api_leave_no_state_behind() -> None:
    with gr.Blocks(analytics_enabled=False) as window:
        gr.Button().click(lambda: "done", None, gr.Text(), api_name="do")
    window.queue()
    window._queue = queue_of(window)
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
