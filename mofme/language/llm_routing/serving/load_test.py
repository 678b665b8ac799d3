"""What the endpoint costs in time, and whether it loses or doubles answers while a backend dies: on fake backends."""

import asyncio
import time
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import httpx
import numpy as np
from fastapi import FastAPI

from mofme.core.routing import RoutingDecision
from mofme.language.llm_routing.carrot import as_decision
from mofme.language.llm_routing.serving.app import create_app
from mofme.language.llm_routing.serving.config import ServingConfig
from mofme.language.llm_routing.serving.fake_backend import FakeBackend, Served
from mofme.language.llm_routing.serving.model_choice import Router
from mofme.language.tables.table import FloatArray

_TEXT = "Three friends share {token} marbles and each keeps a third of them. How many does each of them have, and why?"


@dataclass(frozen=True)
class Drawn:
    """A choice that only depends on the prompt's letters."""

    model: str
    models: Sequence[str]
    quality_M: FloatArray
    cost_M: FloatArray

    @property
    def decision(self) -> RoutingDecision:
        return as_decision(self.quality_M[None])


@dataclass(frozen=True)
class DrawingRouter:
    """Sends equal shares to two models, so that either may die; takes the time of `timed`, or none."""

    timed: Router | None = None
    models: Sequence[str] = ("first", "second")

    def route(
        self,
        prompt: str,
        *,
        cost_weight: float | None = None,
        budget: float | None = None,
        quality: float | None = None,
    ) -> Drawn:
        if self.timed:
            self.timed.route(prompt, cost_weight=cost_weight, budget=budget, quality=quality)
        model = self.models[zlib.crc32(prompt.encode()) % len(self.models)]
        equal_M = np.ones(len(self.models))
        return Drawn(model, self.models, equal_M, equal_M)


@dataclass(frozen=True)
class Overhead:
    """Seconds (requests,) of the same requests, in turn: sent to the backend directly, and through the endpoint.

    `cpu_` is the processor's time, with the client's and the backend's own; it hardly grows on a busy machine.
    """

    direct: FloatArray
    through: FloatArray
    cpu_direct: FloatArray
    cpu_through: FloatArray


@dataclass(frozen=True)
class Storm:
    """`clients` at once sent `requests`, each with a token of its own, while one of two backends died.

    Lost: no answer came, or one without the token. Duplicated: answers above one that a token was seen in.
    """

    clients: int
    requests: int
    lost: int
    duplicated: int
    fallbacks: int
    seconds: float
    latencies: FloatArray


def measure_overhead(requests: int, router: Router) -> Overhead:
    """One request at a time, after ten to warm up; direct and through the endpoint alternate."""
    taken: list[list[float]] = []
    with (
        Served(FakeBackend().app) as backend,
        Served(_endpoint(router, [backend, backend])) as endpoint,
        httpx.Client() as client,
    ):
        for number in range(requests + 10):
            row = []
            for server in (backend, endpoint):
                began, cpu_began = time.perf_counter(), time.process_time()
                client.post(f"{server.url}/v1/chat/completions", json=_body(number)).raise_for_status()
                row += [time.perf_counter() - began, time.process_time() - cpu_began]
            taken.append(row)
    direct, cpu_direct, through, cpu_through = np.array(taken[10:]).T
    return Overhead(direct, through, cpu_direct, cpu_through)


def measure_storm(clients: int, requests: int, router: Router) -> Storm:
    """The backend dies at once, with all it was doing, after a third of the answers; it is dead for the last third."""
    with (
        Served(FakeBackend(seconds=0.02).app) as dying,
        Served(FakeBackend(seconds=0.02).app) as living,
        Served(_endpoint(router, [dying, living])) as endpoint,
    ):
        return asyncio.run(_storm(clients, requests, endpoint, dying))


async def _storm(clients: int, requests: int, endpoint: Served, dying: Served) -> Storm:
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
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(timeout=120, limits=limits) as client:
        await asyncio.gather(kill(), *(ask_on(client, waiting) for _ in range(clients)))
        seconds = time.perf_counter() - began
        metrics = (await client.get(f"{endpoint.url}/metrics")).text
    fallbacks = next(line for line in metrics.splitlines() if line.startswith("mofme_fallbacks_total "))
    return Storm(
        clients=clients,
        requests=requests,
        lost=sum(seen[number] == 0 for number in range(requests)),
        duplicated=sum(max(0, count - 1) for count in seen.values()),
        fallbacks=int(float(fallbacks.split()[1])),
        seconds=seconds,
        latencies=np.array(latencies),
    )


def _endpoint(router: Router, backends: Sequence[Served]) -> FastAPI:
    listed = [
        {"name": name, "base_url": f"{server.url}/v1", "model": name, "price_in": 1, "price_out": 1}
        for name, server in zip(router.models, backends, strict=True)
    ]
    config = {"backends": listed, "rule": {"cost_weight": 0.3}}
    return create_app(ServingConfig.model_validate(config), router)


def _token(number: int) -> str:
    return f"<{number}>"


def _body(number: int) -> dict[str, Any]:
    return {"model": "auto", "messages": [{"role": "user", "content": _TEXT.format(token=_token(number))}]}
