"""Server-sent events of a streamed answer: cut at their ends, looked at in passing, and handed on as they came."""

import json
import re
from collections.abc import AsyncGenerator, AsyncIterable
from typing import Any

from mofme.language.llm_routing.serving.chat import Tokens, characters_in, counted_tokens

LONGEST_EVENT = 16_000_000  # bytes
_END = re.compile(rb"\r?\n\r?\n|\r\r")


async def split_events(chunks: AsyncIterable[bytes]) -> AsyncGenerator[bytes]:
    """Whole events with the blank line that ends each; a rest that no blank line ends is dropped.

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
    """What a stream has said so far: whether it came to its end, its error, and its tokens."""

    def __init__(self) -> None:
        self.complete = False
        self.error = False
        self.tokens: Tokens | None = None
        self.characters = 0

    def see(self, event: bytes) -> bool:
        """Take an event into account; True if it holds token counts and nothing else."""
        data = b"\n".join(line[5:].strip() for line in event.splitlines() if line.startswith(b"data:"))
        if data == b"[DONE]":
            self.complete = True
        answer = _object(data)
        choices = answer.get("choices")
        self.error = self.error or bool(answer.get("error"))
        self.tokens = counted_tokens(answer) or self.tokens
        self.characters += characters_in(answer)
        if isinstance(choices, list) and any(isinstance(c, dict) and c.get("finish_reason") for c in choices):
            self.complete = True
        return choices == [] and counted_tokens(answer) is not None


def _object(data: bytes) -> dict[str, Any]:
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
