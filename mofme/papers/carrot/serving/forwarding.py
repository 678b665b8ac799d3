"""Which backends a request is sent to, one after the other until one answers.

First the router's choice among those that there are backends for, then the fallbacks and the rest; those that failed
lately come last.
"""

import asyncio
import json
import logging
import math
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from concurrent.futures import Executor
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from itertools import zip_longest
from typing import Any, Protocol

import httpx

from mofme.errors import ConfigError
from mofme.language.tables.table import FloatArray
from mofme.papers.carrot.carrot import Estimate, at_least_quality, within_budget
from mofme.papers.carrot.serving.chat import (
    ChatRequest,
    Refused,
    StreamRecord,
    data_of,
    error_body,
    no_number,
    refusal_body,
    says_error,
    split_events,
)
from mofme.papers.carrot.serving.config import Backend, Rule, ServingConfig
from mofme.papers.carrot.trained_router import Routed

COOL_DOWN = 10.0  # seconds a backend that failed is tried last
LONGEST_COOL_DOWN = 60.0  # whatever its Retry-After says
BRIEF_WAIT = 1.0  # seconds of Retry-After that are worth waiting for; beyond, the next backend is asked
LARGEST_ANSWER = 64_000_000  # bytes of a whole answer; a longer one is no chat
REFUSALS = {400, 413, 415, 422}  # of this query: others may know more, but the backend is well
QUIET = 60.0  # seconds after a line on the console in which none of the same backend follows

log = logging.getLogger(__name__)


class BackendFailed(Exception):  # noqa: N818 - as in Refused
    """One backend gave no answer: `kind` in a word, `retry_after` in seconds where it said so."""

    def __init__(self, backend: Backend, kind: str, advice: str = "", retry_after: float | None = None) -> None:
        super().__init__(f"{backend.name}: {kind}{advice and f', {advice}'}")
        self.backend, self.kind, self.retry_after = backend, kind, retry_after


@dataclass
class WholeAnswer:
    """A backend's JSON: the answer to a query, or with a status of 4xx what is wrong with the query."""

    backend: Backend
    status: int
    answer: dict[str, Any]


@dataclass
class StreamedAnswer:
    """A stream whose answer has begun, with the events until then. To be closed, read or not."""

    backend: Backend
    first: list[bytes]
    rest: AsyncGenerator[bytes]
    record: StreamRecord
    hides_usage: bool
    held: AsyncExitStack

    async def events(self, deadline: float) -> AsyncGenerator[bytes]:
        """What the client gets, event by event: the last one says so where the stream broke off.

        `deadline` is in the event loop's time.
        """
        waiting = list(self.first)
        try:
            while True:
                if not waiting:
                    async with asyncio.timeout_at(deadline):
                        waiting = [await anext(self.rest)]
                event, failed = waiting.pop(0), self.record.error
                only_counts = self.record.see(event)
                if self.record.error and not failed:  # in other shapes clients take it for a part of the answer
                    said = refusal_body(data_of(event), "the answer failed", "stream_broken", "server_error")
                    event = b"data: " + json.dumps(said).encode() + b"\n\n"
                if not (only_counts and self.hides_usage):
                    yield _without_key(event, self.backend)
        except StopAsyncIteration:
            reason = "ended early"
        except TimeoutError:
            reason = "took too long"
        except (httpx.HTTPError, ValueError):
            reason = "broke off"
        if not self.record.complete and not self.record.error:
            self.record.error = True
            yield b"data: " + json.dumps(error_body(f"the answer {reason}", "stream_broken")).encode() + b"\n\n"

    async def close(self) -> None:
        await self.held.aclose()


Reply = WholeAnswer | StreamedAnswer


@dataclass
class Console:
    """Lines for whoever runs the endpoint, without prompts and keys, and each `about` once in QUIET seconds at most."""

    _told: dict[str, float] = field(default_factory=dict)

    def tell(self, about: str, line: str) -> None:
        now = time.monotonic()
        if now - self._told.get(about, -math.inf) >= QUIET:
            self._told[about] = now
            log.warning("%s", line)


@dataclass
class _State:
    places: asyncio.Semaphore
    failing: bool = False
    rests_until: float = -math.inf


@dataclass
class Forwarder:
    """Sends requests on; `on_failure` is told of every backend that fails."""

    backends: Sequence[Backend]
    client: httpx.AsyncClient
    on_failure: Callable[[BackendFailed], None]
    console: Console = field(default_factory=Console)
    _states: dict[str, _State] = field(init=False)

    def __post_init__(self) -> None:
        self._states = {b.name: _State(asyncio.Semaphore(b.max_concurrent)) for b in self.backends}

    async def forward(self, request: ChatRequest, order: Sequence[str]) -> Reply:
        """The first answer of the backends in `order` that take such a request; where all refuse, what the first said.

        Raises Refused where it is too much for all of them, or none gave an answer.
        """
        by_name = {backend.name: backend for backend in self.backends}
        misfits = [misfit for name in order if (misfit := request.misfit(by_name[name]))]
        if len(misfits) == len(order):
            words = "; ".join(misfit.message for misfit in misfits)
            raise Refused(400, f"no backend takes it: {words}", misfits[0].code)
        fitting = [name for name in order if not request.misfit(by_name[name])]
        now = time.monotonic()
        rested = sorted(fitting, key=lambda name: self._states[name].rests_until > now)  # stable
        failures: list[BackendFailed] = []
        refusals: list[WholeAnswer] = []
        for name, following in zip_longest(rested, rested[1:]):
            try:
                reply = await self._ask_patiently(by_name[name], request)
            except BackendFailed as failure:
                failures.append(failure)
                instead = f"{following} is asked instead" if following else "no other is left to ask"
                self.console.tell(name, f"{failure}: {instead}")
                continue
            if isinstance(reply, StreamedAnswer) or reply.status == 200:
                return reply
            refusals.append(reply)
        if refusals and not failures:
            return refusals[0]
        failures += [BackendFailed(reply.backend, f"refused_{reply.status}") for reply in refusals]
        raise _refusal(failures)

    async def _ask_patiently(self, backend: Backend, request: ChatRequest) -> Reply:
        """Ask once, and once more where the backend wants a moment only."""
        try:
            return await self._ask_once(backend, request)
        except BackendFailed as failure:
            if failure.retry_after is None or failure.retry_after > BRIEF_WAIT:
                raise
            await asyncio.sleep(failure.retry_after)
        return await self._ask_once(backend, request)

    async def _ask_once(self, backend: Backend, request: ChatRequest) -> Reply:
        state = self._states[backend.name]
        if finds_out := state.failing:  # this request does, for all others
            state.rests_until = time.monotonic() + max(COOL_DOWN, backend.timeout)
        try:
            reply = await self._ask(backend, request, state.places)
        except asyncio.CancelledError:
            if finds_out:  # its client has left: the next one finds out
                state.rests_until = -math.inf
            raise
        except BackendFailed as failure:
            if failure.kind != "busy":  # with all its places taken it may be well
                rest = min(max(COOL_DOWN, failure.retry_after or 0), LONGEST_COOL_DOWN)
                state.failing, state.rests_until = True, time.monotonic() + rest
            self.on_failure(failure)
            raise
        state.failing, state.rests_until = False, -math.inf
        return reply

    async def _ask(self, backend: Backend, request: ChatRequest, places: asyncio.Semaphore) -> Reply:
        async with AsyncExitStack() as stack:
            try:
                async with asyncio.timeout(backend.timeout):
                    await stack.enter_async_context(places)
            except TimeoutError:
                raise BackendFailed(backend, "busy") from None
            try:
                async with asyncio.timeout(backend.timeout):
                    response = await self.client.send(_message(self.client, backend, request), stream=True)
                    stack.push_async_callback(response.aclose)
                    if response.status_code != 200 or not request.stream:
                        return await _whole(backend, response)
                    if not response.headers.get("content-type", "").lower().startswith("text/event-stream"):
                        raise BackendFailed(backend, "no_stream")
                    rest = split_events(response.aiter_bytes())
                    stack.push_async_callback(rest.aclose)
                    # Until the answer begins, also after a sign of life, another backend may still give it.
                    first, record = list[bytes](), StreamRecord()
                    while not record.begun:
                        first.append(await anext(rest))
                        record.see(first[-1])
                        if record.error:
                            raise BackendFailed(backend, "error")
            except (TimeoutError, httpx.TimeoutException):
                raise BackendFailed(backend, "timeout") from None
            except httpx.ConnectError:
                raise BackendFailed(backend, "unreachable") from None
            except (httpx.HTTPError, httpx.InvalidURL, ValueError, RecursionError, StopAsyncIteration):
                raise BackendFailed(backend, "broken") from None
            hides = backend.stream_usage and not request.wants_usage()
            return StreamedAnswer(backend, first, rest, StreamRecord(), hides, stack.pop_all())


def _message(client: httpx.AsyncClient, backend: Backend, request: ChatRequest) -> httpx.Request:
    headers = {"content-type": "application/json", "accept-encoding": "identity"}
    if backend.key:
        headers["authorization"] = f"Bearer {backend.key}"
    return client.build_request(
        "POST",
        f"{backend.base_url}/chat/completions",
        content=request.content_for(backend),
        headers=headers,
        timeout=httpx.Timeout(backend.timeout),
    )


async def _whole(backend: Backend, response: httpx.Response) -> WholeAnswer:
    """Raises BackendFailed for every status that another backend may do better than."""
    match response.status_code:
        case 200:
            pass
        case status if status in REFUSALS:
            pass
        case 401 | 403:
            key = f"check its key in {backend.key_env}" if backend.key_env else "it wants a key: set key_env"
            raise BackendFailed(backend, f"status_{response.status_code}", key)
        case 301 | 302 | 307 | 308 | 404 | 405 as status:
            raise BackendFailed(backend, f"status_{status}", "check its base_url and model")
        case 429:
            raise BackendFailed(backend, "rate_limited", retry_after=_retry_after(response))
        case status:
            raise BackendFailed(backend, f"status_{status}", retry_after=_retry_after(response))
    content = bytearray()
    async for chunk in response.aiter_bytes():
        content += chunk
        if len(content) > LARGEST_ANSWER:
            raise BackendFailed(backend, "too_large")
    known = _without_key(bytes(content), backend)
    if response.status_code != 200:
        said = f"{backend.name} refused the query with status {response.status_code}"
        return WholeAnswer(backend, response.status_code, refusal_body(known, said))
    answer = json.loads(known, parse_constant=no_number)
    choices = answer.get("choices") if isinstance(answer, dict) else None
    if not (isinstance(choices, list) and choices):
        raise BackendFailed(backend, "broken")
    if says_error(answer):
        raise BackendFailed(backend, "error")
    return WholeAnswer(backend, 200, answer)


def _without_key(content: bytes, backend: Backend) -> bytes:
    """Some repeat it in their messages."""
    return content.replace(backend.key.encode(), b"***") if backend.key else content


def _retry_after(response: httpx.Response) -> float | None:
    """Seconds, given as such or as a date; None where there is no sense in it."""
    text = response.headers.get("retry-after", "")
    try:
        seconds = float(text)
    except ValueError:
        try:
            seconds = (parsedate_to_datetime(text) - datetime.now(UTC)).total_seconds()
        except (ValueError, TypeError):
            return None
    return max(0.0, seconds) if math.isfinite(seconds) else None


def _refusal(failures: Sequence[BackendFailed]) -> Refused:
    message = "no backend answered: " + "; ".join(map(str, failures))
    failures = [failure for failure in failures if not failure.kind.startswith("refused")]  # which will be the same
    kinds = {failure.kind for failure in failures}
    if kinds == {"rate_limited"}:
        wait = min(failure.retry_after if failure.retry_after is not None else COOL_DOWN for failure in failures)
        return Refused(429, message, "rate_limited", {"retry-after": str(math.ceil(wait))})
    return Refused(504 if kinds == {"timeout"} else 502, message, "no_backend")


Embed = Callable[[str], FloatArray]  # a text -> its embedding (D,), of length 1


class Router(Protocol):
    """What the endpoint needs of a router; it is called from one thread only."""

    @property
    def models(self) -> Sequence[str]: ...
    def route(
        self,
        prompt: str,
        *,
        cost_weight: float | None = None,
        budget: float | None = None,
        quality: float | None = None,
    ) -> Routed: ...


class ModelChoice:
    """Routes off the event loop; `seconds` and `failures` are what that took so far.

    Raises ConfigError if the router knows none of the backends, or if one that it does not know is no fallback: such a
    name is nearly always misspelt.
    """

    def __init__(self, config: ServingConfig, router: Router, thread: Executor) -> None:
        names = [backend.name for backend in config.backends]
        known = ", ".join(router.models)
        if strange := [name for name in names if name not in {*router.models, *config.fallbacks}]:
            raise ConfigError(
                f"backends: the router does not know {strange[0]!r}, so it would never be chosen. Rename it to one of "
                f"{known}, or list it under fallbacks"
            )
        self._choosable = [name for name in names if name in router.models]
        if not self._choosable:
            raise ConfigError(f"backends: the router knows none of them. Name at least one of {known}")
        self._config, self._router, self._thread = config, router, thread
        self._order = [*config.fallbacks, *names]
        self._console = Console()
        self.calls, self.seconds, self.failures = 0, 0.0, 0

    async def order(self, prompt: str) -> tuple[list[str], str]:
        """All backends' names in the order to try them: the chosen one, the fallbacks, the rest; and in words that none
        is expected to keep to the rule's bound, "" where one is.
        """
        began = time.perf_counter()
        chosen, missed = self._config.best_backend.name, ""
        if prompt:
            try:
                loop = asyncio.get_running_loop()
                chosen, missed = await loop.run_in_executor(self._thread, self._choose, prompt)
            except Exception as error:  # a prompt that the router stumbles over still gets its answer
                self.failures += 1
                self._console.tell("", f"the router failed on a prompt ({type(error).__name__}): {chosen} is asked")
        self.calls += 1
        self.seconds += time.perf_counter() - began
        return list(dict.fromkeys([chosen, *self._order])), missed

    def _choose(self, prompt: str) -> tuple[str, str]:
        rule = self._config.rule
        routed = self._router.route(prompt, **rule.dial())
        model = routed.model if routed.model in self._choosable else choose(routed, rule, self._choosable)
        return model, replace(routed, model=model, budget=rule.budget, quality=rule.quality).missed


def choose(routed: Routed, rule: Rule, names: Sequence[str]) -> str:
    """The model that the rule picks among `names`, a part of the router's models."""
    columns = [list(routed.models).index(name) for name in names]
    estimate = Estimate(routed.quality_M[None, columns], routed.cost_M[None, columns])
    if rule.budget is not None:
        return names[int(within_budget(estimate, rule.budget)[0])]
    if rule.quality is not None:
        return names[int(at_least_quality(estimate, rule.quality)[0])]
    return names[int(routed.utility_M[columns].argmax())]
