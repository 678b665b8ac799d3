"""Who is let in to the endpoint, and what it has done since it began, as Prometheus reads it."""

import re
import secrets
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from starlette.requests import HTTPConnection
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from mofme.papers.carrot.serving.chat import Refused, Tokens
from mofme.papers.carrot.serving.config import Backend
from mofme.papers.carrot.serving.forwarding import ModelChoice

OWN_NAMES = ("localhost", "127.0.0.1", "[::1]")
_PORT = re.compile(r":\d*$")


@dataclass
class Gate:
    """Turns away whom `refusal` finds a reason for, before anything is read."""

    app: ASGIApp
    refusal: Callable[[HTTPConnection], Refused | None]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        app = self.app
        if scope["type"] == "http" and (refused := self.refusal(HTTPConnection(scope))):
            app = JSONResponse(refused.body(), refused.status, refused.headers)
        await app(scope, receive, send)


def without_token(token: str, client: HTTPConnection) -> Refused | None:
    """Of whoever does not send the token, except to `/health`."""
    given = client.headers.get("authorization", "")
    # Not `client.url`, which is made of what the client says is our name.
    if client.scope["path"] == "/health" or secrets.compare_digest(given.encode(), f"Bearer {token}".encode()):
        return None
    words = "send the token of this server as the API key"
    return Refused(401, words, "invalid_api_key", {"www-authenticate": "Bearer"})


def by_another_name(names: Sequence[str], client: HTTPConnection) -> Refused | None:
    """Of who asks by another name than these: a web page may not reach us under a name of its own."""
    host = client.headers.get("host", "")
    if _PORT.sub("", host).lower() in names:
        return None
    words = f"{host!r} is no name of this machine: ask {names[0]}, or set host and token_env"
    return Refused(400, words, "invalid_host")


# How a request ends: with an answer, one from the cache, the client's own mistake, no answer from any backend,
# a stream that broke off, or a client that did not wait.
OUTCOMES = ("answered", "cached", "refused", "failed", "broken", "left")


@dataclass
class Counters:
    """What the endpoint has done since it began. Every request ends in one outcome.

    `saved` is against sending all routed ones to the best model.
    """

    models: tuple[str, ...]
    outcomes: Counter[str] = field(default_factory=Counter)
    in_flight: int = 0
    answers: Counter[str] = field(default_factory=Counter)  # by model, those from the cache not counted
    errors: Counter[tuple[str, str]] = field(default_factory=Counter)  # by model and kind
    fallbacks: int = 0  # requests answered by another model than the one chosen
    cache_hits: int = 0
    cache_misses: int = 0
    dollars: dict[str, float] = field(default_factory=dict)  # by model
    saved: float = 0.0

    def spend(self, backend: Backend, baseline: Backend, tokens: Tokens) -> float:
        """Book a query that `baseline` would else have answered; returns what it cost."""
        cost = backend.dollars(tokens.into, tokens.out)
        self.dollars[backend.name] = self.dollars.get(backend.name, 0.0) + cost
        self.saved += baseline.dollars(tokens.into, tokens.out) - cost
        return cost

    def as_prometheus(self, choice: ModelChoice) -> str:
        """The counters, and those of the choice of models, as Prometheus reads them."""
        total = sum(self.answers.values()) or 1
        shares = {name: count / total for name, count in self.answers.items()}
        outcomes = {_labels(outcome=name): self.outcomes[name] for name in OUTCOMES}
        errors = {_labels(model=model, kind=kind): count for (model, kind), count in sorted(self.errors.items())}
        routing = {"_sum": choice.seconds, "_count": choice.calls}
        metrics: list[tuple[str, str, str, Mapping[str, float]]] = [
            ("requests_total", "counter", "Requests by how they ended.", outcomes),
            ("in_flight", "gauge", "Requests being answered.", {"": self.in_flight}),
            ("answers_total", "counter", "Answers by model.", self._by_model(self.answers)),
            ("share", "gauge", "Share of the answers by model.", self._by_model(shares)),
            ("backend_errors_total", "counter", "Failures of backends, retries counted.", errors),
            ("fallbacks_total", "counter", "Answers by another than the chosen model.", {"": self.fallbacks}),
            ("cache_hits_total", "counter", "Answers from the cache.", {"": self.cache_hits}),
            ("cache_misses_total", "counter", "Requests the cache did not know.", {"": self.cache_misses}),
            ("cost_dollars_total", "counter", "Dollars spent by model.", self._by_model(self.dollars)),
            ("saved_dollars", "gauge", "Dollars saved against always asking the best.", {"": self.saved}),
            ("routing_seconds", "summary", "Time requests spent on being routed, waiting included.", routing),
            ("routing_errors_total", "counter", "Prompts the router failed on.", {"": choice.failures}),
        ]
        lines: list[str] = []
        for name, kind, about, values in metrics:
            lines += [f"# HELP mofme_{name} {about}", f"# TYPE mofme_{name} {kind}"]
            lines += [f"mofme_{name}{suffix} {value!r}" for suffix, value in values.items()]
        return "\n".join(lines) + "\n"

    def _by_model(self, values: Mapping[str, float]) -> dict[str, float]:
        return {_labels(model=name): values.get(name, 0) for name in self.models}


def _labels(**labels: str) -> str:
    """Names in them are plain ASCII: of what has to be escaped they can hold two signs."""
    escaped = {key: value.replace("\\", r"\\").replace('"', r"\"") for key, value in labels.items()}
    return "{" + ",".join(f'{key}="{value}"' for key, value in escaped.items()) + "}"
