"""The app as a service: whether it is well and ready, what it does for Prometheus, a log line for every request and
piece of work, and how it ends.
"""

import base64
import json
import logging
import secrets
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING

from fastapi.routing import APIRoute
from prometheus_client import CONTENT_TYPE_LATEST, Counter, Gauge, Histogram, generate_latest
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mofme.errors import Cancelled, MofmeError
from mofme.ui.limits import Limits

if TYPE_CHECKING:
    from mofme.ui.memory import Memory
    from mofme.ui.runs import Job

log = logging.getLogger(__name__)

REQUESTS = Counter("mofme_requests", "HTTP requests by route and status.", ("route", "status"))
REFUSED = Counter("mofme_refused", "Work that was turned away before it began, by reason.", ("reason",))
IN_WORK = Gauge("mofme_in_work", "Pieces of work under way.")
WAITING = Gauge("mofme_waiting", "Pieces of work in the queue.")
MEMORY_LIMIT = Gauge("mofme_memory_limit_bytes", "Memory that the app may use.")
MEMORY_HELD = Gauge("mofme_memory_held_bytes", "Memory that work under way may come to need.")
SECONDS = Histogram(
    "mofme_work_seconds",
    "How long work took, by what it was and how it ended.",
    ("work", "outcome"),
    buckets=(0.1, 0.3, 1, 3, 10, 30, 100, 300, 1000, 3600),
)
FETCH_SECONDS = 3.0
_at_work: "set[Job]" = set()
closing = threading.Event()
"""Set once the app takes no more work."""


@contextmanager
def at_work(name: str, job: "Job") -> Iterator[None]:
    """Count what happens inside as a piece of work, which `finish_work` waits for."""
    began, outcome = time.monotonic(), "failed"
    _at_work.add(job)
    IN_WORK.inc()
    try:
        yield
        outcome = "done"
    except (Cancelled, GeneratorExit):
        outcome = "cancelled"
        raise
    except MofmeError:
        outcome = "refused"
        raise
    finally:
        _at_work.discard(job)
        IN_WORK.dec()
        seconds = time.monotonic() - began
        SECONDS.labels(name, outcome).observe(seconds)
        log.info("work", extra={"fields": {"work": name, "outcome": outcome, "seconds": round(seconds, 3)}})


def finish_work(seconds: float) -> None:
    """Take no more work, and wait so many seconds for what is under way; what is left then is cancelled, and gets a
    tenth of that to stop. What came of it can be fetched for FETCH_SECONDS more.
    """
    closing.set()
    if not _at_work:
        return
    if not _wait_for_work(seconds):
        for job in list(_at_work):
            job.cancel("Stopped, because the app is being stopped: try again in a minute.")
        _wait_for_work(seconds / 10)
    time.sleep(FETCH_SECONDS)


def _wait_for_work(seconds: float) -> bool:
    until = time.monotonic() + seconds
    while _at_work and time.monotonic() < until:
        time.sleep(0.05)
    return not _at_work


def routes(
    load: Callable[[], object],
    waiting: Callable[[], int],
    limits: Limits,
    memory: "Memory",
    auth: tuple[str, str] | None = None,
) -> Sequence[BaseRoute]:
    """`/health`: the process answers. `/ready`: the weights load, and there is memory and a place in the queue; else
    503 and why. Both are open to all. `/metrics`: what Prometheus reads, by the app's password where it has one.
    """

    def health() -> Response:
        return JSONResponse({"status": "ok"})

    def ready() -> Response:
        try:
            load()
        except MofmeError as error:
            return _not_ready(str(error))
        if closing.is_set():
            return _not_ready("The app is being stopped.")
        if waiting() >= limits.waiting:
            return _not_ready(f"The queue is full: {limits.waiting} pieces of work wait.")
        if memory.is_full():
            return _not_ready("The app has used up the memory that it may use.")
        return JSONResponse({"status": "ready"})

    def metrics(request: Request) -> Response:
        if auth and not _knows(request.headers.get("authorization", ""), auth):
            return Response("Send the app's user and password.\n", 401, {"WWW-Authenticate": 'Basic realm="mofme"'})
        WAITING.set(waiting())
        MEMORY_LIMIT.set(memory.limit)
        MEMORY_HELD.set(memory.held)
        return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)

    about: dict[str, Callable[..., Response]] = {"/health": health, "/ready": ready, "/metrics": metrics}
    return [APIRoute(path, endpoint, include_in_schema=False) for path, endpoint in about.items()]


def nothing_there(request: Request, error: Exception) -> Response:
    """What an address that leads nowhere answers: a page with the way back where a browser asks, else JSON."""
    if "text/html" not in request.headers.get("accept", ""):
        return JSONResponse({"detail": getattr(error, "detail", "Not Found")}, 404)
    home = "../" * (request.url.path.count("/") - 1) or "./"  # also behind a proxy, whose part of the path is unknown
    return HTMLResponse(
        "<!doctype html><meta name=viewport content='width=device-width'>"
        "<meta name=color-scheme content='light dark'><title>Nothing here</title>"
        "<body style='font: 1.1rem system-ui; margin: 15vh auto; max-width: 30rem; padding: 0 1rem'>"
        "<h1>There is nothing at this address.</h1>"
        f"<p><a href='{home}'>Open the app</a>, with all that it can do.</p>",
        404,
    )


def _knows(header: str, auth: tuple[str, str]) -> bool:
    wanted = base64.b64encode(":".join(auth).encode())
    return secrets.compare_digest(header.encode(), b"Basic " + wanted)


def _not_ready(reason: str) -> Response:
    return JSONResponse({"status": "not ready", "reason": reason}, HTTPStatus.SERVICE_UNAVAILABLE)


@dataclass
class Watched:
    """Counts and logs every HTTP request. It goes by its route: paths hold names of pictures."""

    app: ASGIApp

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        status, began = int(HTTPStatus.INTERNAL_SERVER_ERROR), time.monotonic()

        async def watch(message: Message) -> None:
            nonlocal status
            status = message.get("status", status)
            await send(message)

        try:
            await self.app(scope, receive, watch)
        finally:
            route = getattr(scope.get("route"), "path", "other")
            REQUESTS.labels(route, status).inc()
            fields = {"method": scope["method"], "route": route, "status": status}
            log.info("request", extra={"fields": {**fields, "seconds": round(time.monotonic() - began, 3)}})


class JsonLines(logging.Formatter):
    """A log record as one line of JSON. Of an error its kind and place: what it says may name a picture."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(record.created)),
            "level": record.levelname.lower(),
            "event": record.getMessage() if record.name.startswith("mofme.") else record.name,
            **getattr(record, "fields", {}),
        }
        if record.exc_info and record.exc_info[0]:
            line |= {
                "error": record.exc_info[0].__name__,
                "at": [f"{place.filename}:{place.lineno}" for place in traceback.extract_tb(record.exc_info[2])[-3:]],
            }
        return json.dumps(line)


def log_json() -> None:
    """Log requests, work and errors on standard error, as lines of JSON."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLines())
    logging.basicConfig(handlers=[handler], level=logging.INFO)
    for chatty in ("httpx", "httpcore", "asyncio"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
