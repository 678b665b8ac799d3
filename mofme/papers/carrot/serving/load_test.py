"""What the endpoint costs in time, and whether it loses or doubles answers while a backend dies: on fake backends."""

import asyncio
import threading
import time
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import httpx
import numpy as np
import torch
import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from starlette.types import ASGIApp

from mofme.measure.result import Figure, Result, Row, this_machine
from mofme.measure.statistics import bootstrap
from mofme.papers.carrot.serving.config import ServingConfig
from mofme.papers.carrot.serving.endpoint import KEEP_ALIVE, create_app
from mofme.papers.carrot.serving.forwarding import Router
from mofme.papers.carrot.trained_router import Routed

_TEXT = "Three friends share {token} marbles and each keeps a third of them. How many does each of them have, and why?"
_RESAMPLES = 1000
ADDED, ADDED_CPU = "added by the endpoint, ms", "CPU added, ms"


class Served:
    """Any ASGI application on a free port of this machine, in a thread of its own, while the context lasts."""

    def __init__(self, app: ASGIApp) -> None:
        settings = uvicorn.Config(
            app,
            port=0,
            log_level="critical",
            access_log=False,
            ws="none",
            timeout_keep_alive=KEEP_ALIVE,
            timeout_graceful_shutdown=1,
        )
        self._server = uvicorn.Server(settings)
        self._thread = threading.Thread(target=asyncio.run, args=(self._serve(),), daemon=True)

    async def _serve(self) -> None:
        await self._server.serve()
        # A server that is stopped at once leaves its connections open; with a machine they would be gone.
        for connection in self._server.server_state.connections:
            connection.transport.abort()

    def __enter__(self) -> Self:
        self._thread.start()
        while not self._server.started:
            self._thread.join(0.005)
            if not self._thread.is_alive():
                raise RuntimeError("the server did not start")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    @property
    def url(self) -> str:
        host, port = self._server.servers[0].sockets[0].getsockname()[:2]
        return f"http://{host}:{port}"

    def stop(self, at_once: bool = False) -> None:
        """`at_once`: as if the machine had died, with every request under way."""
        self._server.force_exit = at_once
        self._server.should_exit = True
        self._thread.join()


def echo(seconds: float = 0.0) -> FastAPI:
    """A backend without any model: after so many seconds it says what it was asked.

    So whoever asked can tell his own answer from another's.
    """

    async def answer(request: Request) -> JSONResponse:
        body = await request.json()
        await asyncio.sleep(seconds)
        message = {"role": "assistant", "content": body["messages"][-1]["content"]}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        usage = {"prompt_tokens": 10, "completion_tokens": 10, "total_tokens": 20}
        head = {"id": "chatcmpl-echo", "object": "chat.completion", "created": 0, "model": body["model"]}
        return JSONResponse({**head, "choices": [choice], "usage": usage})

    app = FastAPI(openapi_url=None)
    app.router.add_route("/v1/chat/completions", answer, methods=["POST"])
    return app


@dataclass(frozen=True)
class DrawingRouter:
    """Sends equal shares to two models by the prompt's letters, so that either may die; takes the time of `timed`."""

    timed: Router | None = None
    models: tuple[str, ...] = ("first", "second")

    def route(self, prompt: str, **dial: float | None) -> Routed:
        if self.timed:
            self.timed.route(prompt, **dial)
        model = self.models[zlib.crc32(prompt.encode()) % len(self.models)]
        equal_M = np.ones(len(self.models))
        return Routed(model, self.models, equal_M, equal_M, (), equal_M)


Figures = dict[str, Figure]


def measure_overhead(requests: int, router: Router) -> Figures:
    """What the endpoint adds to a request, and what it takes without: direct and through the endpoint alternate.

    One request at a time, after ten to warm up. The CPU's time, with the client's and the backend's own, hardly grows
    on a busy machine.
    """
    taken: list[list[float]] = []
    with (
        Served(echo()) as backend,
        Served(_endpoint(router, [backend, backend])) as endpoint,
        httpx.Client(timeout=120) as client,
    ):
        for number in range(requests + 10):
            row = []
            for server in (backend, endpoint):
                began, cpu_began = time.perf_counter(), time.process_time()
                client.post(f"{server.url}/v1/chat/completions", json=_body(number)).raise_for_status()
                row += [time.perf_counter() - began, time.process_time() - cpu_began]
            taken.append(row)
    direct, cpu_direct, through, cpu_through = 1e3 * np.array(taken[10:]).T
    return {
        "backend alone, ms": bootstrap(direct, np.median, _RESAMPLES),
        ADDED: bootstrap(through - direct, np.median, _RESAMPLES),
        "added at the 95th percentile, ms": Figure(float(np.quantile(through - direct, 0.95))),
        ADDED_CPU: bootstrap(cpu_through - cpu_direct, np.median, _RESAMPLES),
    }


def measure_storm(clients: int, requests: int, router: Router) -> Figures:
    """`clients` at once send `requests`, each with a token of its own, while one of two backends dies.

    It dies at once, with all it was doing, after a third of the answers, and is dead for the last third. Lost: no
    answer came, or one without the token. Doubled: answers above one that a token was seen in.
    """
    with (
        Served(echo(seconds=0.02)) as dying,
        Served(echo(seconds=0.02)) as living,
        Served(_endpoint(router, [dying, living], clients)) as endpoint,
    ):
        measured = asyncio.run(_storm(clients, requests, endpoint, dying))
    return {what: Figure(value) for what, value in measured.items()}


async def _storm(clients: int, requests: int, endpoint: Served, dying: Served) -> dict[str, float]:
    waiting = iter(range(requests))
    seen: Counter[int] = Counter()
    latencies: list[float] = []
    dead = asyncio.Event()

    async def ask_on(client: httpx.AsyncClient, numbers: Iterator[int]) -> None:
        for number in numbers:
            if number >= requests * 2 // 3:  # a server takes a while to die: a short storm could be over by then
                await dead.wait()
            began = time.perf_counter()
            response = await client.post(f"{endpoint.url}/v1/chat/completions", json=_body(number))
            latencies.append(time.perf_counter() - began)
            if response.status_code == 200:
                text = response.json()["choices"][0]["message"]["content"]
                seen.update(other for other in range(requests) if _token(other) in text)

    async def kill() -> None:
        while len(latencies) < requests // 3:
            await asyncio.sleep(0.001)
        await asyncio.to_thread(dying.stop, at_once=True)
        dead.set()

    began = time.perf_counter()
    async with httpx.AsyncClient(timeout=120, limits=httpx.Limits(max_connections=None)) as client:
        await asyncio.gather(kill(), *(ask_on(client, waiting) for _ in range(clients)))
        seconds = time.perf_counter() - began
        metrics = (await client.get(f"{endpoint.url}/metrics")).text
    [fallbacks] = [line.split()[1] for line in metrics.splitlines() if line.startswith("mofme_fallbacks_total ")]
    return {
        "requests": requests,
        "lost": sum(seen[number] == 0 for number in range(requests)),
        "doubled": sum(max(0, count - 1) for count in seen.values()),
        "answered by the other backend": int(float(fallbacks)),
        "requests per second": requests / seconds,
        "median time, ms": 1e3 * float(np.median(latencies)),
    }


def _endpoint(router: Router, backends: Sequence[Served], clients: int = 1) -> FastAPI:
    listed = [
        {"name": name, "base_url": f"{server.url}/v1", "model": name, "price_in": 1, "price_out": 1}
        for name, server in zip(router.models, backends, strict=True)
    ]
    # None is to be turned away: a request counts a moment longer than its client waits.
    config = {"backends": listed, "rule": {"cost_weight": 0.3}, "limits": {"concurrency": 256 + 2 * clients}}
    return create_app(ServingConfig.model_validate(config), router)


def _token(number: int) -> str:
    return f"<{number}>"


def _body(number: int) -> dict[str, Any]:
    return {"model": "auto", "messages": [{"role": "user", "content": _TEXT.format(token=_token(number))}]}


def as_result(overheads: Mapping[str, Figures], storms: Mapping[str, Figures], clients: int, command: str) -> Result:
    """Overheads and storms by the name of what routed."""
    asked = " and ".join(f"{storm['requests'].value:.0f} {name}" for name, storm in storms.items())
    lost, doubled = (sum(storm[what].value for storm in storms.values()) for what in ("lost", "doubled"))
    added = [f"{o[ADDED].value:.1f} ms {name} ({o[ADDED_CPU].value:.1f} of CPU)" for name, o in overheads.items()]
    title = f"{clients} clients at once, one of two backends dies"
    return Result(
        room="llm_serving",
        paper="CARROT (arXiv 2502.03261)",
        claim="None about serving; ours: 50 clients lose no answer and get none twice while a backend dies.",
        verdict=f"Of requests of {clients} clients at once, {asked}, {lost:.0f} were lost and {doubled:.0f} doubled "
        f"while one of two backends died; the endpoint added {' and '.join(added)} to a request at the median.",
        command=command,
        rows=[Row("one request at a time", name, overhead) for name, overhead in overheads.items()]
        + [Row(title, name, storm) for name, storm in storms.items()],
        seeds=(0,),
        machine=this_machine(threads=torch.get_num_threads()),
        interval=f"95 %, of the median, {_RESAMPLES} bootstrap resamples of the requests",
    )
