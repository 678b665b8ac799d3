"""`bench service`: what clients wait for, who is turned away, and what the server holds meanwhile."""

import io
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Any, TypeVar

import psutil
import pytest
from PIL import Image
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from mofme.errors import MofmeError
from mofme.papers.carrot.serving.load_test import Served
from mofme.ui.load_test import Memory, as_result, measure_load, measure_memory, small_pictures

T = TypeVar("T")


def apart(measure: Callable[..., T], *args: Any) -> T:
    """In a thread of its own: a browser leaves an event loop running in this one."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(measure, *args).result()


def test_pictures_go_through_a_real_app(url: str) -> None:
    load = apart(measure_load, url, 2, 4)
    figures = {name: figure.value for name, figure in as_result([load], "").rows[0].figures.items()}
    assert (figures["pictures"], figures["turned away"], load.clients) == (4, 0, 2)
    assert 0 < figures["p50, s"] <= figures["p95, s"] <= figures["p99, s"] <= load.seconds
    assert figures["CPU s a picture"] == pytest.approx(load.cpu_seconds / 4) and load.cpu_seconds > 0


def test_memory_is_told_by_the_server_until_the_time_is_over(url: str) -> None:
    shares: list[float] = []
    memory = apart(measure_memory, url, 1, 0.02, shares.append)
    assert len(memory.megabytes) == len(memory.minutes) == len(shares) and shares == sorted(shares)
    assert min(memory.megabytes) > 100  # torch alone


SERVES = """
import subprocess, sys, time
from mofme.ui.load_test import free_port, running
port = str(free_port())
command = [sys.executable, "-m", "http.server", port, "--bind", "127.0.0.1"]
with running(command, f"http://127.0.0.1:{port}/", stdout=subprocess.DEVNULL) as server:
    print(server.pid, flush=True)
    time.sleep(60)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGTERM")
def test_who_is_ended_ends_its_server() -> None:
    quiet = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with subprocess.Popen([sys.executable, "-c", SERVES], text=True, **quiet) as command:
        assert command.stdout
        server = psutil.Process(int(command.stdout.readline()))
        command.terminate()
        assert command.wait(60)
        server.wait(60)


class Busy:
    """An app that turns every picture away once, and then restores it, or fails."""

    def __init__(self, outcome: str = "complete") -> None:
        self.asked: list[str] = []
        self.addresses: set[str] = set()
        self.outcome = outcome
        routes = [
            Route("/gradio_api/upload", self.upload, methods=["POST"]),
            Route("/gradio_api/call/v2/restore", self.ask, methods=["POST"]),
            Route("/gradio_api/call/v2/restore/{event}", self.answer),
            Route("/done.jpg", lambda request: Response(b"restored")),
            Route("/metrics", lambda request: Response("process_cpu_seconds_total 1\n")),
        ]
        self.app = Starlette(routes=routes)

    async def upload(self, request: Request) -> JSONResponse:
        return JSONResponse([f"picture {len(await request.body())}"])

    async def ask(self, request: Request) -> JSONResponse:
        path = (await request.json())["path"]["path"]
        self.addresses.add(request.headers["X-Forwarded-For"])
        self.asked.append(path)
        if self.asked.count(path) == 1:
            return JSONResponse({"detail": "The app is busy."}, 503)
        return JSONResponse({"event_id": "one"})

    async def answer(self, request: Request) -> Response:
        data = f'[{{"url": "{request.base_url}done.jpg"}}]' if self.outcome == "complete" else '{"error": "Too dark."}'
        return Response(f"event: heartbeat\ndata: null\n\nevent: {self.outcome}\ndata: {data}\n\n")


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mofme.ui.load_test._PAUSE", 0.01)


def test_who_is_turned_away_asks_again_and_what_the_app_says_is_told() -> None:
    busy = Busy()
    with Served(busy.app) as server:
        load = apart(measure_load, f"{server.url}/", 3, 5)
    assert len(load.waits) == 5 and load.refusals == {"The app is busy.": 5}
    assert len(busy.addresses) == 3  # or the app would take them for one client
    result = as_result([load], "")
    assert result.figure("turned away, to ask again", "The app is busy.", "3 clients").value == 5
    assert "5 requests were turned away" in result.verdict
    with Served(Busy("error").app) as server, pytest.raises(MofmeError, match=r"not restored: .*Too dark\."):
        apart(measure_load, f"{server.url}/", 1, 2)


def of_minutes(megabytes: list[float]) -> Memory:
    """Two looks a minute."""
    return Memory(2, [number / 2 for number in range(len(megabytes))], megabytes)


def test_memory_that_grows_shows_and_warm_up_does_not() -> None:
    warming = [100.0, 200, 300, 400] + [500.0] * 16
    assert of_minutes(warming).growth().value == 0
    # A megabyte a look is two a minute.
    growing = of_minutes([400.0 + look for look in range(20)]).growth()
    assert growing.value == pytest.approx(120) and growing.side() == 1
    row = as_result(of_minutes([400.0 + look for look in range(20)]), "").rows[0]
    assert {name: figure.value for name, figure in row.figures.items()} == {
        "minutes": 9,
        "at first, MB": 400,
        "warm, MB": pytest.approx(403.8),  # a fifth of 19 looks
        "most, MB": 419,
        "growth, MB an hour": pytest.approx(120),
    }
    with pytest.raises(MofmeError, match="four minutes"):
        of_minutes([1.0, 2.0]).growth()


def test_the_pictures_are_small_of_many_sizes_and_the_same_each_time() -> None:
    first = list(islice(small_pictures(), 6))
    assert first == list(islice(small_pictures(), 6))
    sizes = {Image.open(io.BytesIO(one)).size for one in first}
    assert len(sizes) == 6 and all(64 <= side <= 256 for size in sizes for side in size)
