"""The endpoint: a FastAPI application, and one chat request in it from its first byte to its last.

A request is checked, looked up in the cache, routed, forwarded and counted.
"""

import asyncio
import json
from collections.abc import AsyncGenerator, Coroutine
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any

import httpx
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import Message, Receive, Scope, Send

from mofme.language.tables.table import FloatArray
from mofme.papers.carrot.serving.answer_cache import AnswerCache, Kept
from mofme.papers.carrot.serving.chat import ChatRequest, Refused, Tokens, bytes_in, counted_tokens, read_request
from mofme.papers.carrot.serving.config import AUTO, ROUTED_NAMES, Backend, ServingConfig, is_local
from mofme.papers.carrot.serving.counters import OWN_NAMES, Counters, Gate, by_another_name, without_token
from mofme.papers.carrot.serving.forwarding import (
    BackendFailed,
    Embed,
    Forwarder,
    ModelChoice,
    Router,
    StreamedAnswer,
    WholeAnswer,
)

# Idle connections are given up before servers do so: one that closes as we write on it looks like a dead backend.
_POOL = httpx.Limits(max_connections=None, max_keepalive_connections=100, keepalive_expiry=2)
# Seconds a server keeps an idle connection: for the same reason longer than clients do, the openai client for 5.
KEEP_ALIVE = 75
_READ_BEYOND = 4  # times the limit of a body
STREAM_HEADERS = {"content-type": "text/event-stream", "cache-control": "no-cache", "x-accel-buffering": "no"}
_Asgi = tuple[Scope, Receive, Send]


def create_app(config: ServingConfig, router: Router, embed: Embed | None = None) -> FastAPI:
    """The application that answers `/v1/chat/completions`, `/v1/models`, `/metrics` and `/health`.

    `embed` makes the cache find reworded questions; without it only the same words count. Router and `embed` are called
    from one thread of their own. Raises ConfigError if the backends do not fit the router.
    """
    thread = ThreadPoolExecutor(1, "routing")  # a router is not made for several threads
    counters = Counters(tuple(backend.name for backend in config.backends))
    choice = ModelChoice(config, router, thread)
    no_cookies = CookieJar(DefaultCookiePolicy(allowed_domains=()))  # one backend's are none of another's business
    client = httpx.AsyncClient(limits=_POOL, follow_redirects=False, cookies=no_cookies)

    def failed(failure: BackendFailed) -> None:
        counters.errors[failure.backend.name, failure.kind] += 1

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncGenerator[None]:
        async with client:
            yield
        thread.shutdown(cancel_futures=True)

    app = FastAPI(lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None)
    forwarder = Forwarder(config.backends, client, failed)
    chat = ChatEndpoint(config, counters, choice, forwarder, AnswerCache(config.cache), embed, thread)
    app.router.add_route("/v1/chat/completions", chat, methods=["POST"])  # type: ignore[arg-type]

    names = [AUTO, *(backend.name for backend in config.backends)]

    @app.get("/v1/models")
    def models() -> dict[str, Any]:
        return {"object": "list", "data": [_model(name) for name in names]}

    @app.get("/v1/models/{name:path}")
    def model(name: str) -> dict[str, Any]:
        if name not in names:
            raise _unknown_model(name)
        return _model(name)

    @app.get("/metrics")
    def metrics() -> Response:
        text = counters.as_prometheus(choice)
        return Response(text, media_type="text/plain; version=0.0.4")

    @app.get("/health")
    def health() -> dict[str, str]:
        return {"status": "ok"}

    @app.exception_handler(Refused)
    async def refused(_: Request, error: Refused) -> JSONResponse:
        return JSONResponse(error.body(), error.status, error.headers)

    @app.exception_handler(HTTPException)
    async def no_such_path(request: Request, error: HTTPException) -> JSONResponse:
        asked = f"{request.method} {request.url.path}"
        message = f"{asked} is not served here: ask GET /v1/models, or POST /v1/chat/completions"
        refused = Refused(error.status_code, message, "not_found" if error.status_code == 404 else "not_allowed")
        return JSONResponse(refused.body(), error.status_code, error.headers)

    if config.token:
        app.add_middleware(Gate, refusal=partial(without_token, config.token))
    elif is_local(config.host):
        app.add_middleware(Gate, refusal=partial(by_another_name, (*OWN_NAMES, config.host)))
    return app


def _model(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "mofme"}


def _unknown_model(name: str) -> Refused:
    return Refused(404, f"there is no model {name!r}: GET /v1/models lists them; {AUTO!r} is routed", "model_not_found")


@dataclass
class _Query:
    """A request, the backend that it would have cost the price of without us, and whether it is one for the cache."""

    request: ChatRequest
    baseline: Backend
    cached: bool
    missed: str = ""  # that no model is expected to keep to the rule's bound
    embedding_D: FloatArray | None = None


@dataclass
class ChatEndpoint:
    """ASGI application for `/v1/chat/completions`. Raises Refused before anything was sent."""

    config: ServingConfig
    counters: Counters
    choice: ModelChoice
    forwarder: Forwarder
    cache: AnswerCache
    embed: Embed | None
    thread: Executor

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        outcome = "failed"
        self.counters.in_flight += 1
        try:
            request = await self._read(Request(scope, receive))
            outcome = await _while_connected(receive, self._answer(request, (scope, receive, send)))
        except Refused as refused:
            outcome = "refused" if refused.status < 500 and refused.code != "rate_limited" else "failed"
            raise
        except ClientDisconnect:
            outcome = "left"
        finally:
            self.counters.in_flight -= 1
            self.counters.outcomes[outcome] += 1

    async def _read(self, request: Request) -> ChatRequest:
        limits = self.config.limits
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            # Web pages may send other types across origins without asking, and would spend the user's money.
            raise Refused(415, "the content type must be application/json", "unsupported_media_type")
        if (coding := request.headers.get("content-encoding", "").strip().lower()) not in ("", "identity"):
            words = f"the body is packed ({coding[:20]}): send it as it is, without content-encoding"
            raise Refused(415, words, "unsupported_media_type", {"accept-encoding": "identity"})
        if self.counters.in_flight > limits.concurrency:
            raise Refused(503, "too many requests at once: try again", "busy", {"retry-after": "1"})
        content, length = bytearray(), 0
        try:
            async with asyncio.timeout(limits.seconds):
                async for chunk in request.stream():
                    length += len(chunk)
                    # A body a little too long is read to its end: who is cut off while sending sees no answer.
                    if length > _READ_BEYOND * limits.body_bytes:
                        break
                    if length <= limits.body_bytes:
                        content += chunk
        except TimeoutError:
            raise Refused(408, "the body did not come in time", "timeout") from None
        if length > limits.body_bytes:
            raise Refused(
                413,
                f"the request is above {limits.body_bytes / 1e6:g} MB, the limit of this server (limits, body_bytes): "
                "send less, or smaller pictures",
                "too_large",
            )
        return read_request(bytes(content))

    async def _answer(self, request: ChatRequest, asgi: _Asgi) -> str:
        """The outcome, once the answer has been sent."""
        deadline = asyncio.get_running_loop().time() + self.config.limits.seconds
        named = next((backend for backend in self.config.backends if backend.name == request.model), None)
        if named is None and request.model not in ROUTED_NAMES:
            raise _unknown_model(request.model)
        cached = self.config.cache.enabled and request.cacheable
        query = _Query(request, named or self.config.best_backend, cached)
        try:
            async with asyncio.timeout_at(deadline):
                if cached and (kept := await self._known(query)):
                    self.counters.saved += query.baseline.dollars(kept.tokens.into, kept.tokens.out)
                    await _cached(request, kept)(*asgi)
                    return "cached"
                order = [query.baseline.name]
                if not named:
                    order, query.missed = await self.choice.order(request.prompt)
                reply = await self.forwarder.forward(request, order)
        except TimeoutError:
            raise Refused(504, "no answer came in time", "timeout") from None
        self.counters.fallbacks += reply.backend.name != order[0]
        if isinstance(reply, StreamedAnswer):
            return await self._send_stream(reply, query, deadline, self._in_time(asgi[2]))
        return await self._send_whole(reply, query, asgi)

    async def _send_whole(self, reply: WholeAnswer, query: _Query, asgi: _Asgi) -> str:
        headers = self._headers(reply, query)
        if reply.status != 200:
            await _json(reply.answer, headers, reply.status)(*asgi)
            return "refused"
        tokens = counted_tokens(reply.answer) or query.request.estimated_tokens(bytes_in(reply.answer))
        cost = self._book(reply.backend, query, tokens)
        self._keep(query, Kept(reply.backend.name, json.dumps(reply.answer).encode(), tokens))
        await _priced(reply.answer, headers, cost)(*asgi)
        return "answered"

    async def _send_stream(self, reply: StreamedAnswer, query: _Query, deadline: float, send: Send) -> str:
        headers = self._headers(reply, query)
        record, content = reply.record, bytearray()
        try:
            await send({"type": "http.response.start", "status": 200, "headers": _raw({**STREAM_HEADERS, **headers})})
            async with aclosing(reply.events(deadline)) as events:
                async for event in events:
                    if query.cached:
                        content += event
                    await send({"type": "http.response.body", "body": event, "more_body": True})
        finally:  # what was said has to be paid for, whether it came to its end or not
            whole = record.complete and not record.error
            tokens = record.tokens or query.request.estimated_tokens(record.bytes)
            self._book(reply.backend, query, tokens, answered=whole)
            await reply.close()
        if whole:
            self._keep(query, Kept(reply.backend.name, bytes(content), tokens))
        else:
            name = reply.backend.name
            self.forwarder.console.tell(name, f"{name}: its stream broke off: no other is asked, and the client knows")
        await send({"type": "http.response.body", "body": b"", "more_body": False})
        return "answered" if whole else "broken"

    def _in_time(self, send: Send) -> Send:
        """A client that does not read for as long as a request may last is as good as gone."""

        async def send_in_time(message: Message) -> None:
            try:
                async with asyncio.timeout(self.config.limits.seconds):
                    await send(message)
            except TimeoutError:
                raise ClientDisconnect() from None

        return send_in_time

    async def _known(self, query: _Query) -> Kept | None:
        kept = self.cache.same(query.request.key)
        if kept is None and self.embed and self.cache.compares(query.request.text):
            loop = asyncio.get_running_loop()
            with suppress(Exception):  # a text that the encoder stumbles over is looked up by its words alone
                query.embedding_D = await loop.run_in_executor(self.thread, self.embed, query.request.text)
        if query.embedding_D is not None:
            kept = self.cache.nearest(query.request.key, query.embedding_D)
        self.counters.cache_hits += kept is not None
        self.counters.cache_misses += kept is None
        return kept

    def _keep(self, query: _Query, kept: Kept) -> None:
        if query.cached:
            self.cache.keep(query.request.key, query.embedding_D, kept)

    def _book(self, backend: Backend, query: _Query, tokens: Tokens, answered: bool = True) -> float:
        self.counters.answers[backend.name] += answered
        return self.counters.spend(backend, query.baseline, tokens)

    def _headers(self, reply: WholeAnswer | StreamedAnswer, query: _Query) -> dict[str, str]:
        cache = "miss" if query.cached else "skipped" if self.config.cache.enabled else "off"
        headers = {"x-mofme-model": reply.backend.name, "x-mofme-cache": cache}
        return {**headers, "x-mofme-bound": query.missed} if query.missed else headers


def _cached(request: ChatRequest, kept: Kept) -> Response:
    headers = {"x-mofme-model": kept.model, "x-mofme-cache": "hit"}
    if request.stream:
        return Response(kept.content, headers={**STREAM_HEADERS, **headers})
    return _priced(json.loads(kept.content), headers, 0.0)


def _priced(answer: dict[str, Any], headers: dict[str, str], cost: float) -> Response:
    """The answer with its cost in dollars in a header, and all that the headers say in a field of ours."""
    extra = {"model": headers["x-mofme-model"], "cost": cost, "cache": headers["x-mofme-cache"]}
    return _json({**answer, "mofme": extra}, {**headers, "x-mofme-cost": f"{cost:.9f}"})


def _json(answer: dict[str, Any], headers: dict[str, str], status: int = 200) -> Response:
    return Response(json.dumps(answer), status, headers, "application/json")


def _raw(headers: dict[str, str]) -> list[tuple[bytes, bytes]]:
    return [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]


async def _while_connected(receive: Receive, work: Coroutine[Any, Any, str]) -> str:
    """The work's result. Raises ClientDisconnect, with the work cancelled, as soon as the client goes away."""

    async def gone() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    working, watching = asyncio.ensure_future(work), asyncio.ensure_future(gone())
    try:
        await asyncio.wait({working, watching}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientDisconnect()
        return working.result()
    finally:
        working.cancel()
        watching.cancel()
        await asyncio.gather(working, watching, return_exceptions=True)
