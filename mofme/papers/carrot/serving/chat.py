"""Chat requests and answers in OpenAI's shape, whole or as a stream of events; errors that its clients understand."""

import hashlib
import json
import re
from collections.abc import AsyncGenerator, AsyncIterable
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeGuard

from mofme.papers.carrot.serving.config import Backend

ROUTED_CHARACTERS = 8000  # of a longer prompt the beginning and the end: questions stand there
BYTES_PER_TOKEN = 4  # where a backend does not count; a letter of Chinese has three
MOST_TOKENS = 10**9  # no query has so many; beyond, it is no count
LONGEST_EVENT = 16_000_000  # bytes
_END = re.compile(rb"\r?\n\r?\n|\r\r")  # of an event


class Refused(Exception):  # noqa: N818 - an answer to the client, not a fault of ours
    """A request ends here, with this HTTP status and message."""

    def __init__(self, status: int, message: str, code: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.status, self.message, self.code, self.headers = status, message, code, headers or {}

    def body(self) -> dict[str, Any]:
        return error_body(self.message, self.code, "invalid_request_error" if self.status < 500 else "server_error")


def error_body(message: str, code: str, kind: str = "server_error") -> dict[str, Any]:
    """An error as OpenAI writes it."""
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}


def refusal_body(
    content: bytes, otherwise: str, code: str = "refused", kind: str = "invalid_request_error"
) -> dict[str, Any]:
    """A backend's refusal as OpenAI writes it, of whatever shape: a text for an error, a `detail`, a list of one, a
    page of a proxy in between, of which `otherwise` is said.
    """
    answer = None
    with suppress(ValueError, RecursionError):
        answer = json.loads(content, parse_constant=no_number)
    answer = answer[0] if isinstance(answer, list) and answer else answer
    answer = answer if isinstance(answer, dict) else {}
    error = answer.get("error")
    if isinstance(error, dict) and isinstance(error.get("message"), str):
        return answer
    said = error or answer.get("message") or answer.get("detail") or otherwise
    message = said if isinstance(said, str) else json.dumps(said, ensure_ascii=False)
    return {**answer, **error_body(message, code, kind)}


@dataclass(frozen=True)
class Tokens:
    """How many tokens a query had in and out, counted by the backend or estimated."""

    into: int
    out: int


@dataclass(frozen=True)
class ChatRequest:
    """A body for `/v1/chat/completions` that was looked at as far as routing needs; backends check the rest."""

    body: dict[str, Any]

    @property
    def model(self) -> str:
        return self.body.get("model") or ""

    @property
    def stream(self) -> bool:
        return bool(self.body.get("stream"))

    @cached_property
    def text(self) -> str:
        """The text parts of the last message of the user; "" if there are none."""
        messages: list[dict[str, Any]] = self.body["messages"]
        contents = (message.get("content") for message in reversed(messages) if message.get("role") == "user")
        text = "\n".join(_texts(next(contents, None))).strip()
        return text.encode("utf-8", "replace").decode()  # half a surrogate pair would stop the tokenizer

    @property
    def prompt(self) -> str:
        """What is routed on."""
        half = ROUTED_CHARACTERS // 2
        return self.text if len(self.text) <= ROUTED_CHARACTERS else f"{self.text[:half]}\n{self.text[-half:]}"

    @property
    def cacheable(self) -> bool:
        """Whether one answer may serve again: no dice were asked for, and only one answer."""
        return bool(self.text) and not self.body.get("temperature") and self.body.get("n") in (None, 1)

    @cached_property
    def key(self) -> tuple[str, str]:
        """What it is kept by: a digest of everything but the last user message's text, and that text."""
        messages = list(self.body["messages"])
        last = max(i for i, message in enumerate(messages) if message.get("role") == "user")
        content = messages[last].get("content")
        others = [part for part in content if _texts([part]) == []] if isinstance(content, list) else []
        messages[last] = {**messages[last], "content": others}
        frame = json.dumps({**self.body, "messages": messages}, sort_keys=True)
        return hashlib.sha256(frame.encode()).hexdigest(), self.text

    def wants_usage(self) -> bool:
        return bool((self.body.get("stream_options") or {}).get("include_usage"))

    def misfit(self, backend: Backend) -> Refused | None:
        """Why this backend takes no such query, as far as its settings and an estimate of the tokens tell."""
        if not backend.pictures and self._has_more_than_text:
            return Refused(400, f"{backend.name} takes text only", "does_not_fit")
        asked = self.body.get("max_completion_tokens") or self.body.get("max_tokens")
        needed = self.estimated_tokens(0).into + (asked if _is_count(asked) else 1)
        if backend.context is not None and needed > backend.context:
            words = f"{backend.name} takes {backend.context} tokens, question and answer, and this needs about {needed}"
            return Refused(400, words, "context_length_exceeded")
        return None

    @cached_property
    def _has_more_than_text(self) -> bool:
        messages: list[dict[str, Any]] = self.body["messages"]
        listed = [content for message in messages if isinstance(content := message.get("content"), list)]
        kinds = {str(part.get("type")) for content in listed for part in content if isinstance(part, dict)}
        return bool(kinds - {"text", "refusal"}) or any(message.get("images") for message in messages)

    def content_for(self, backend: Backend) -> bytes:
        """The body as this backend gets it: its own name of the model, and streams with their token counts."""
        body = {**self.body, "model": backend.model}
        if self.stream and backend.stream_usage:
            body["stream_options"] = {**(self.body.get("stream_options") or {}), "include_usage": True}
        elif self.stream:  # it would refuse clients that always send them, and never answer their streams
            body.pop("stream_options", None)
        return json.dumps(body, ensure_ascii=False).encode("utf-8", "replace")  # half a surrogate pair is a "?"

    def estimated_tokens(self, answer_bytes: int) -> Tokens:
        asked = sum(map(_bytes_in, self.body["messages"])) + len(json.dumps(self.body.get("tools") or ""))
        return Tokens(asked // BYTES_PER_TOKEN, answer_bytes // BYTES_PER_TOKEN)


def read_request(content: bytes) -> ChatRequest:
    """Raises Refused (400) for what no backend could answer."""
    try:
        body = json.loads(content, parse_constant=_refuse_number)
    except (ValueError, RecursionError) as error:
        raise Refused(400, f"the body is not JSON: {error}", "invalid_json") from None
    if not isinstance(body, dict):
        raise Refused(400, "the body is not a JSON object", "invalid_json")
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages or not all(isinstance(message, dict) for message in messages):
        raise Refused(400, "messages must be a list of at least one object with role and content", "invalid_messages")
    for name, kind, words in (
        ("model", str, "a text, the name of a model"),
        ("stream", bool, "true or false"),
        ("stream_options", dict, "an object"),
    ):
        if not isinstance(body.get(name), kind | None):
            raise Refused(400, f"{name} must be {words}", f"invalid_{name}")
    return ChatRequest(body)


def counted_tokens(answer: dict[str, Any]) -> Tokens | None:
    """The backend's own count, None where it gives none."""
    usage = answer.get("usage")
    if not isinstance(usage, dict):
        return None
    into, out = usage.get("prompt_tokens"), usage.get("completion_tokens")
    return Tokens(into, out) if into and _is_count(into) and _is_count(out) else None  # no question has none


def _is_count(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and 0 <= value < MOST_TOKENS


def bytes_in(answer: dict[str, Any]) -> int:
    """The length of what a whole answer or one event of a stream says, thinks and calls."""
    choices = answer.get("choices")
    listed = choices if isinstance(choices, list) else []
    parts = [choice.get("message") or choice.get("delta") for choice in listed if isinstance(choice, dict)]
    return sum(_bytes_in(part) for part in parts if isinstance(part, dict))


def _bytes_in(message: dict[str, Any]) -> int:
    calls = message.get("tool_calls")
    called = [call.get("function") for call in calls if isinstance(call, dict)] if isinstance(calls, list) else []
    texts = [*_texts(message.get("content")), message.get("reasoning_content") or message.get("reasoning")]
    texts += [each.get(key) for each in called if isinstance(each, dict) for key in ("name", "arguments")]
    return sum(len(text.encode("utf-8", "replace")) for text in texts if isinstance(text, str))


def says_error(answer: dict[str, Any]) -> bool:
    """Whether a whole answer or one event of a stream tells, as OpenAI, vLLM or OpenRouter do, that it failed."""
    choices = answer.get("choices")
    listed = choices if isinstance(choices, list) else []
    ended = [choice.get("finish_reason") for choice in listed if isinstance(choice, dict)]
    return bool(answer.get("error")) or answer.get("object") == "error" or "error" in ended


def _says_something(choice: object) -> bool:
    """Whether it is more than the empty delta with a role that comes before the model has begun."""
    if not isinstance(choice, dict) or not isinstance(choice.get("delta"), dict):
        return True
    return bool(choice.get("finish_reason")) or any(said for key, said in choice["delta"].items() if key != "role")


def data_of(event: bytes) -> bytes:
    """What an event says, without the names of its lines."""
    return b"\n".join(line[5:].strip() for line in event.splitlines() if line.startswith(b"data:"))


def _texts(content: object) -> list[str]:
    """The texts in a message's content, which is a string or a list of typed parts."""
    match content:
        case str():
            return [content]
        case list():
            return [
                part["text"]
                for part in content
                if isinstance(part, dict) and part.get("type") == "text" and isinstance(part.get("text"), str)
            ]
        case _:
            return []


def _refuse_number(name: str) -> object:
    raise ValueError(f"{name} is no number there")


def no_number(name: str) -> None:
    """What NaN and infinities become, which some backends write, and most clients cannot read."""


async def split_events(chunks: AsyncIterable[bytes]) -> AsyncGenerator[bytes]:
    """Server-sent events, whole, with the blank line that ends each; a rest that no blank line ends is dropped.

    Raises ValueError for an event without end.
    """
    rest = b""
    async for chunk in chunks:
        searched = max(0, len(rest) - 3)
        rest += chunk
        start = 0
        while end := _END.search(rest, max(start, searched)):
            yield rest[start : end.end()]
            start = end.end()
        rest = rest[start:]
        if len(rest) > LONGEST_EVENT:
            raise ValueError("an event without end")


class StreamRecord:
    """What a stream has said so far: whether its answer began and came to its end, its error, and its tokens."""

    def __init__(self) -> None:
        self.begun = self.complete = self.error = False
        self.tokens: Tokens | None = None
        self.bytes = 0
        self._done = False
        self._ended: dict[str, bool] = {}  # by choice

    def see(self, event: bytes) -> bool:
        """Take an event into account; True if it holds token counts and nothing else."""
        data = data_of(event)
        self._done = self._done or data == b"[DONE]"
        answer: Any = None
        with suppress(ValueError, RecursionError):
            answer = json.loads(data)
        answer = answer if isinstance(answer, dict) else {}
        choices, tokens = answer.get("choices"), counted_tokens(answer)
        listed = choices if isinstance(choices, list) else []
        self.begun = self.begun or any(map(_says_something, listed))
        named = any(line.replace(b" ", b"") == b"event:error" for line in event.splitlines())
        self.error = self.error or named or says_error(answer)
        self.tokens = tokens or self.tokens
        self.bytes += bytes_in(answer)
        for choice in listed:
            if isinstance(choice, dict):
                index = str(choice.get("index"))
                self._ended[index] = self._ended.get(index, False) or bool(choice.get("finish_reason"))
        self.complete = self._done or (bool(self._ended) and all(self._ended.values()))
        return choices == [] and tokens is not None
