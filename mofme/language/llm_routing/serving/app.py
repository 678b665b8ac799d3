"""The endpoint as a FastAPI application."""

import secrets
from collections.abc import AsyncGenerator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any

import httpx
from fastapi import FastAPI, Request, Response
from fastapi.middleware.trustedhost import TrustedHostMiddleware
from fastapi.responses import JSONResponse
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Receive, Scope, Send

from mofme.language.llm_routing.serving.answer_cache import AnswerCache
from mofme.language.llm_routing.serving.chat import Refused
from mofme.language.llm_routing.serving.config import AUTO, ServingConfig, is_local, token_of
from mofme.language.llm_routing.serving.counters import Counters
from mofme.language.llm_routing.serving.exchange import ChatEndpoint
from mofme.language.llm_routing.serving.forwarding import BackendFailed, Forwarder
from mofme.language.llm_routing.serving.model_choice import Embed, ModelChoice, Router

# Idle connections are given up before servers do so: one that closes as we write on it looks like a dead backend.
_POOL = httpx.Limits(max_connections=None, max_keepalive_connections=100, keepalive_expiry=2)
_OWN_NAMES = ["localhost", "127.0.0.1", "[::1]"]


def create_app(config: ServingConfig, router: Router, embed: Embed | None = None) -> FastAPI:
    """The application that answers `/v1/chat/completions`, `/v1/models`, `/metrics` and `/health`.

    `embed` makes the cache find reworded questions; without it only the same words count. Router and `embed` are called
    from one thread of their own. Raises ConfigError if the backends do not fit the router.
    """
    thread = ThreadPoolExecutor(1, "routing")  # tokenizers cannot be shared by threads
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

    @app.get("/v1/models")
    def models() -> dict[str, Any]:
        names = [AUTO, *(backend.name for backend in config.backends)]
        return {
            "object": "list",
            "data": [{"id": name, "object": "model", "created": 0, "owned_by": "mofme"} for name in names],
        }

    @app.get("/metrics")
    def metrics() -> Response:
        text = counters.as_prometheus(choice.calls, choice.seconds, choice.failures)
        return Response(text, media_type="text/plain; version=0.0.4")

    @app.get("/health")
    def health() -> dict[str, str]:
        return {"status": "ok"}

    @app.exception_handler(Refused)
    async def refused(_: Request, error: Refused) -> JSONResponse:
        return JSONResponse(error.body(), error.status, error.headers)

    if token := token_of(config):
        app.add_middleware(TokenGate, token=token)
    elif is_local(config.host):  # a web page may not reach us under a name of its own
        app.add_middleware(TrustedHostMiddleware, allowed_hosts=[*_OWN_NAMES, config.host])
    return app


@dataclass
class TokenGate:
    """Turns away whoever does not send the token, except from `/health`."""

    app: ASGIApp
    token: str

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] != "/health":
            given = HTTPConnection(scope).headers.get("authorization", "")
            if not secrets.compare_digest(given.encode(), f"Bearer {self.token}".encode()):
                refused = Refused(401, "send the token of this server as the API key", "invalid_api_key")
                await JSONResponse(refused.body(), 401, {"www-authenticate": "Bearer"})(scope, receive, send)
                return
        await self.app(scope, receive, send)
