"""Who is let in to the endpoint: with a token whoever sends it, else what asks this machine by its own name."""

import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass

from starlette.requests import HTTPConnection
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from mofme.papers.carrot.serving.chat import Refused

OWN_NAMES = ("localhost", "127.0.0.1", "[::1]")
_PORT = re.compile(r":\d*$")


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


@dataclass
class HostGate:
    """Turns away who asks by another name than these: a web page may not reach us under a name of its own."""

    app: ASGIApp
    names: Sequence[str]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            host = HTTPConnection(scope).headers.get("host", "")
            if _PORT.sub("", host).lower() not in self.names:
                words = f"{host!r} is no name of this machine: ask {self.names[0]}, or set host and token_env"
                refused = Refused(400, words, "invalid_host")
                await JSONResponse(refused.body(), 400)(scope, receive, send)
                return
        await self.app(scope, receive, send)
