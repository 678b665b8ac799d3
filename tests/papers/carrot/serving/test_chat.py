import asyncio
import json
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mofme.papers.carrot.serving import chat
from mofme.papers.carrot.serving.chat import (
    BYTES_PER_TOKEN,
    ChatRequest,
    StreamRecord,
    Tokens,
    bytes_in,
    counted_tokens,
    split_events,
)


def split(chunks: list[bytes]) -> list[bytes]:
    async def come() -> AsyncIterator[bytes]:
        for chunk in chunks:
            yield chunk

    async def collect() -> list[bytes]:
        return [event async for event in split_events(come())]

    # In a thread of its own: the browser of other tests keeps a loop running in this one.
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, collect()).result()


@given(
    st.lists(
        st.tuples(st.sampled_from([b"data: a", b": note", b"event: x\ndata: \xc3\xa4"]), st.booleans()), min_size=1
    ),
    st.lists(st.integers(0, 200)),
)
def test_events_are_the_same_wherever_the_chunks_end(parts, cuts) -> None:
    whole = [text + (b"\r\n\r\n" if windows else b"\n\n") for text, windows in parts]
    stream = b"".join(whole)
    places = sorted({0, len(stream), *(cut for cut in cuts if cut < len(stream))})
    chunks = [stream[a:b] for a, b in pairwise(places)]
    assert split(chunks) == whole


def test_a_rest_without_end_is_dropped_and_an_event_without_end_an_error(monkeypatch) -> None:
    assert split([b"data: a\n\nda", b"ta: b"]) == [b"data: a\n\n"]
    monkeypatch.setattr(chat, "LONGEST_EVENT", 100)
    with pytest.raises(ValueError, match="without end"):
        split([b"x" * 60, b"x" * 60])


def event(**fields: object) -> bytes:
    return b"data: " + json.dumps(fields).encode() + b"\n\n"


def test_what_a_stream_said() -> None:
    record = StreamRecord()
    assert not record.see(b": waiting\n\n")
    assert not record.see(event(choices=[{"delta": {"content": "four"}, "finish_reason": None}]))
    assert (record.complete, record.bytes, record.tokens) == (False, 4, None)
    assert record.see(event(choices=[], usage={"prompt_tokens": 3, "completion_tokens": 1}))
    assert record.tokens == Tokens(3, 1)
    record.see(b"data: [DONE]\n\n")
    assert record.complete and not record.error


def test_a_stream_is_complete_when_all_its_choices_are() -> None:
    record = StreamRecord()
    for index, reason in ((0, None), (1, None), (0, "stop")):
        record.see(event(choices=[{"index": index, "delta": {"content": "x"}, "finish_reason": reason}]))
    assert not record.complete
    record.see(event(choices=[{"index": 1, "delta": {}, "finish_reason": "length"}]))
    assert record.complete and not record.error
    record.see(event(error={"message": "no"}))
    assert record.error


CALL = {"id": "t1", "type": "function", "function": {"name": "save", "arguments": "x" * 400}}


@pytest.mark.parametrize(
    ("message", "tokens"),
    [
        ({"content": "x" * 400}, 100),
        ({"content": None, "tool_calls": [CALL]}, 101),
        ({"content": "x", "reasoning_content": "x" * 399}, 100),
        ({"content": "雨" * 400}, 300),
        ({"content": [{"type": "image_url", "image_url": {"url": "data:" + "x" * 400}}]}, 0),
        ({"content": 1, "tool_calls": [None, {"function": "f"}, {"function": {"arguments": 1}}]}, 0),
    ],
)
def test_what_is_said_thought_and_called_counts_where_a_backend_does_not(message, tokens) -> None:
    assert bytes_in({"choices": [{"message": message}]}) // BYTES_PER_TOKEN == tokens
    assert ChatRequest({"messages": [message]}).estimated_tokens(0).into == tokens
    asked = ChatRequest({"messages": [message], "tools": [{"function": {"description": "x" * 4000}}]})
    assert asked.estimated_tokens(0).into == pytest.approx(tokens + 1000, abs=20)


@pytest.mark.parametrize("count", [-5, 10**400, 1.5, "3", None])
def test_what_is_no_count_is_not_counted(count) -> None:
    # 10 ** 400 dollars would be above every number, and the request would end in an error.
    assert counted_tokens({"usage": {"prompt_tokens": count, "completion_tokens": 1}}) is None
    assert counted_tokens({"usage": {"prompt_tokens": 1, "completion_tokens": count}}) is None
    assert counted_tokens({"usage": {"prompt_tokens": 0, "completion_tokens": 0}}) is None


@settings(max_examples=30)
@given(
    st.binary(max_size=200)
    | st.recursive(st.none() | st.text() | st.integers(), st.lists).map(
        lambda value: b"data: " + json.dumps({"choices": value, "usage": value, "error": None}).encode()
    )
)
def test_nothing_a_backend_says_stops_us(data) -> None:
    StreamRecord().see(data)
