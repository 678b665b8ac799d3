"""Backends that answer at once and misbehave on demand, to test the endpoint without any model.

An answer repeats the last message, so that whoever asked can tell his own from another's.
"""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse


@dataclass
class FakeBackend:
    """Its settings may be changed while it runs; `asked` counts the prompts that came in, by text."""

    seconds: float = 0.0  # until the first byte
    held: bool = False  # no byte comes as long as this is so
    status: int = 200
    retry_after: str | None = None  # with it, only the first `limited` requests are answered by `status`
    limited: int = 1_000_000
    break_after: int | None = None  # events until the connection closes
    pause: float = 0.0  # seconds between two events, from the first word on
    without_usage: bool = False
    asked: Counter[str] = field(default_factory=Counter)
    busy: int = 0
    busiest: int = 0  # requests waiting for their first byte at once
    left: int = 0  # clients that went away during a stream
    headers: list[dict[str, str]] = field(default_factory=list)
    bodies: list[dict[str, Any]] = field(default_factory=list)

    @property
    def app(self) -> FastAPI:
        app = FastAPI(openapi_url=None)
        app.router.add_route("/v1/chat/completions", self._answer, methods=["POST"])
        return app

    async def _answer(self, request: Request) -> Response:
        body = await request.json()
        text = body["messages"][-1]["content"]
        self.asked[text] += 1
        self.headers.append(dict(request.headers))
        self.bodies.append(body)
        self.busy += 1
        self.busiest = max(self.busiest, self.busy)
        try:
            await asyncio.sleep(self.seconds)
            while self.held:
                await asyncio.sleep(0.005)
        finally:
            self.busy -= 1
        if self.status != 200 and sum(self.asked.values()) <= self.limited:
            headers = {"retry-after": self.retry_after} if self.retry_after is not None else {}
            error = {"message": f"no, {request.headers.get('authorization')}", "type": "fake", "code": None}
            return JSONResponse({"error": error}, self.status, headers)
        if body.get("stream"):
            return StreamingResponse(self._events(body, text), media_type="text/event-stream")
        message = {"role": "assistant", "content": text}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        usage = {} if self.without_usage else {"usage": _usage(text)}
        return JSONResponse({**_head(body, "chat.completion"), "choices": [choice], **usage})

    async def _events(self, body: dict[str, Any], text: str) -> AsyncGenerator[bytes]:
        head = _head(body, "chat.completion.chunk")
        first, *others = text.split(" ")
        deltas: list[dict[str, Any]] = [{"delta": {"role": "assistant", "content": ""}, "finish_reason": None}]
        pieces = [first, *(f" {word}" for word in others)]
        deltas += [{"delta": {"content": piece}, "finish_reason": None} for piece in pieces]
        deltas += [{"delta": {}, "finish_reason": "stop"}]
        events = [{**head, "choices": [{"index": 0, **delta}]} for delta in deltas]
        if (body.get("stream_options") or {}).get("include_usage") and not self.without_usage:
            events.append({**head, "choices": [], "usage": _usage(text)})
        try:
            for number, event in enumerate(events):
                if number == self.break_after:
                    raise ConnectionAbortedError
                yield b"data: " + json.dumps(event).encode() + b"\n\n"
                await asyncio.sleep(self.pause if number else 0)
            yield b"data: [DONE]\n\n"
        except (asyncio.CancelledError, GeneratorExit):
            self.left += 1
            raise


def _head(body: dict[str, Any], kind: str) -> dict[str, Any]:
    return {"id": "chatcmpl-fake", "object": kind, "created": 0, "model": body["model"]}


def _usage(text: str) -> dict[str, int]:
    """10 tokens in, and one out for each word."""
    words = len(text.split())
    return {"prompt_tokens": 10, "completion_tokens": words, "total_tokens": 10 + words}
