"""Backends that are dead, slow, rate-limited, wrong, or break off; clients that go away; the load test."""

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import openai
import pytest
from starlette.requests import ClientDisconnect
from starlette.responses import Response

from mofme.papers.carrot.serving import forwarding
from mofme.papers.carrot.serving.endpoint import ChatEndpoint
from mofme.papers.carrot.serving.load_test import (
    DrawingRouter,
    Overhead,
    Storm,
    as_result,
    measure_overhead,
    measure_storm,
)
from tests.papers.carrot.serving.fake_backend import FakeBackend

EASY = "an easy question"


def errors(endpoint) -> dict[str, float]:
    metrics = endpoint.metrics()
    return {name: value for name, value in metrics.items() if name.startswith("mofme_backend_errors_total")}


@pytest.mark.parametrize("stream", [False, True])
def test_a_dead_backend_is_passed_over(start, stream) -> None:
    endpoint = start()
    endpoint.machines["weak"].stop()
    raw = endpoint.ask_raw(EASY, stream=stream)
    assert raw.headers["x-mofme-model"] == "strong"
    assert "unreachable" in str(errors(endpoint))
    if stream:
        with raw.parse() as answer:
            list(answer)
    assert endpoint.metrics()["mofme_fallbacks_total"] == 1


def test_a_slow_backend_is_passed_over_and_rests(start, monkeypatch) -> None:
    monkeypatch.setattr(forwarding, "COOL_DOWN", 60.0)
    backends = {"weak": FakeBackend(seconds=60), "strong": FakeBackend()}
    endpoint = start(backends, {"weak": {"timeout": 0.1}})
    assert endpoint.ask_raw(EASY).headers["x-mofme-model"] == "strong"
    assert endpoint.ask_raw(EASY).headers["x-mofme-model"] == "strong"
    assert errors(endpoint) == {'mofme_backend_errors_total{model="weak",kind="timeout"}': 1}  # not asked again


def test_a_rate_limit_of_a_moment_is_waited_for(start) -> None:
    endpoint = start({"weak": FakeBackend(status=429, retry_after="0.05", limited=1), "strong": FakeBackend()})
    assert endpoint.ask_raw(EASY).headers["x-mofme-model"] == "weak"
    assert endpoint.backends["weak"].asked[EASY] == 2


def test_a_long_rate_limit_is_not(start) -> None:
    endpoint = start({"weak": FakeBackend(status=429, retry_after="30"), "strong": FakeBackend()})
    assert endpoint.ask_raw(EASY).headers["x-mofme-model"] == "strong"
    assert endpoint.backends["weak"].asked[EASY] == 1


def test_where_all_are_rate_limited_the_client_learns_for_how_long(start) -> None:
    endpoint = start(
        {"weak": FakeBackend(status=429, retry_after="30"), "strong": FakeBackend(status=429, retry_after="20")}
    )
    with pytest.raises(openai.RateLimitError) as raised:
        endpoint.ask(EASY)
    assert raised.value.response.headers["retry-after"] == "20"
    assert endpoint.metrics()['mofme_requests_total{outcome="failed"}'] == 1


@pytest.mark.parametrize("status", [301, 401, 403, 404, 500, 503])
def test_what_is_not_the_clients_fault_goes_on_to_the_next(start, status) -> None:
    endpoint = start({"weak": FakeBackend(status=status), "strong": FakeBackend()})
    assert endpoint.ask_raw(EASY).headers["x-mofme-model"] == "strong"


@pytest.mark.parametrize("stream", [False, True])
def test_what_is_the_clients_fault_is_passed_on_without_the_key(start, monkeypatch, stream) -> None:
    monkeypatch.setenv("WEAK_KEY", "weak-secret")
    backends = {"weak": FakeBackend(status=400), "strong": FakeBackend(status=422)}
    endpoint = start(backends, {"weak": {"key_env": "WEAK_KEY"}})
    with pytest.raises(openai.BadRequestError, match=r"no, Bearer \*\*\*") as raised:
        endpoint.ask(EASY, stream=stream)
    assert "weak-secret" not in raised.value.response.text
    assert endpoint.backends["strong"].asked  # it refused, too
    assert endpoint.metrics()['mofme_requests_total{outcome="refused"}'] == 1


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("status", [400, 413, 422])
def test_what_one_backend_refuses_another_may_answer(start, stream, status) -> None:
    endpoint = start({"weak": FakeBackend(status=status), "strong": FakeBackend()})
    raw = endpoint.ask_raw(EASY, stream=stream)
    assert raw.headers["x-mofme-model"] == "strong"
    if stream:
        with raw.parse() as answer:
            list(answer)
    assert endpoint.metrics()["mofme_fallbacks_total"] == 1 and not errors(endpoint)


def test_a_refusal_is_passed_on_only_if_all_refuse(start) -> None:
    endpoint = start({"weak": FakeBackend(status=400), "strong": FakeBackend(status=500)})
    with pytest.raises(openai.InternalServerError, match="strong: status_500; weak: refused_400"):
        endpoint.ask(EASY)


class BehindProxy(FakeBackend):
    """Refuses by a page of its proxy, or answers without end."""

    async def _answer(self, request):
        self.asked[(await request.json())["messages"][-1]["content"]] += 1
        if self.status != 200:
            return Response("<html>Request Entity Too Large</html>", self.status)
        return Response(b" " * 2_000, media_type="application/json")


def test_a_refusal_that_is_no_json_is_the_clients_all_the_same(start) -> None:
    endpoint = start({"weak": BehindProxy(status=413)})
    with pytest.raises(openai.APIStatusError, match="weak refused the query with status 413") as raised:
        endpoint.ask(EASY)
    assert raised.value.status_code == 413
    assert not errors(endpoint)


class Answering(FakeBackend):
    """Gives this content, whatever it is asked."""

    def __init__(self, content: bytes, status: int = 200, kind: str = "application/json", **settings: str) -> None:
        super().__init__(status=status, **settings)
        self.content, self.kind = content, kind

    async def _answer(self, request):
        self.asked[(await request.json())["messages"][-1]["content"]] += 1
        return Response(self.content, self.status, media_type=self.kind)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"error": "no tools here"}', "no tools here"),
        (b'{"object": "error", "message": "too long", "code": 40303}', "too long"),
        (b'{"detail": "no JSON mode"}', "no JSON mode"),
        (b'{"detail": [{"loc": ["body", "n"], "msg": "bad"}]}', '[{"loc": ["body", "n"], "msg": "bad"}]'),
        (b'[{"error": {"message": "no pictures", "status": "INVALID_ARGUMENT"}}]', "no pictures"),
        (b'"no"', "weak refused the query with status 422"),
        (b"", "weak refused the query with status 422"),
    ],
)
def test_refusals_of_any_shape_reach_the_client_in_openais(start, content, message) -> None:
    endpoint = start({"weak": Answering(content, 422)})
    with pytest.raises(openai.UnprocessableEntityError) as raised:
        endpoint.ask(EASY)
    assert raised.value.response.json()["error"]["message"] == message
    assert not errors(endpoint)


def test_a_kind_of_content_that_one_backend_does_not_know_is_no_fault_of_it(start) -> None:
    endpoint = start({"weak": FakeBackend(status=415), "strong": FakeBackend()})
    assert endpoint.ask_raw(EASY).headers["x-mofme-model"] == "strong" and not errors(endpoint)


def test_where_some_refuse_and_others_are_rate_limited_it_is_worth_another_try(start) -> None:
    endpoint = start({"weak": FakeBackend(status=413), "strong": FakeBackend(status=429, retry_after="7")})
    with pytest.raises(openai.RateLimitError, match="strong: rate_limited; weak: refused_413") as raised:
        endpoint.ask(EASY)
    assert raised.value.response.headers["retry-after"] == "7"


@pytest.mark.parametrize(
    "content", [b'{"choices": []}', b'{"choices": null, "error": {"message": "overloaded"}}', b"[1]"]
)
def test_an_answer_that_holds_none_goes_on_to_the_next(start, content) -> None:
    endpoint = start({"weak": Answering(content), "strong": FakeBackend()})
    assert endpoint.ask_raw(EASY).headers["x-mofme-model"] == "strong"


def test_numbers_that_json_does_not_have_become_null(start) -> None:
    endpoint = start({"weak": Answering(b'{"choices": [{"message": {}, "logprobs": [NaN, -Infinity, 1]}]}')})
    assert '"logprobs": [null, null, 1]' in endpoint.ask_raw(EASY).text


SAID = b'data: {"choices": [{"delta": {"content": "one"}, "finish_reason": "stop"}]}\n\n'
ALIVE = b': still here\n\ndata: {"choices": [], "prompt_filter_results": []}\n\n'
FAILED = b'data: {"error": {"message": "overloaded"}}\n\n'


@pytest.mark.parametrize(
    "content", [ALIVE + FAILED, ALIVE, b"data: [DONE]\n\n", b'event: error\ndata: {"message": "overloaded"}\n\n']
)
def test_a_stream_that_fails_before_its_answer_begins_goes_on_to_the_next(start, content) -> None:
    endpoint = start({"weak": Answering(content, kind="text/event-stream"), "strong": FakeBackend()})
    with endpoint.ask("one two", stream=True) as stream:
        assert "".join(chunk.choices[0].delta.content or "" for chunk in stream) == "one two"


def test_signs_of_life_before_an_answer_are_passed_on(start) -> None:
    endpoint = start({"weak": Answering(ALIVE + SAID, kind="Text/Event-Stream"), "strong": FakeBackend()})
    raw = endpoint.client.chat.completions.with_raw_response.create(
        model="auto", messages=[{"role": "user", "content": EASY}], stream=True
    )
    assert raw.headers["x-mofme-model"] == "weak" and raw.http_response.read() == ALIVE + SAID


def test_an_answer_without_end_is_not_read_to_the_end(start, monkeypatch) -> None:
    monkeypatch.setattr(forwarding, "LARGEST_ANSWER", 1_000)
    endpoint = start({"weak": BehindProxy(), "strong": FakeBackend()})
    assert endpoint.ask_raw(EASY).headers["x-mofme-model"] == "strong"
    assert errors(endpoint) == {'mofme_backend_errors_total{model="weak",kind="too_large"}': 1}


class Indiscreet(FakeBackend):
    """Its stream ends with an error that repeats the key."""

    async def _events(self, body, text):
        yield b'data: {"choices": [{"delta": {"content": "one"}}]}\n\n'
        key = self.headers[-1]["authorization"]
        yield b'data: {"error": {"message": "no, %s"}}\n\n' % key.encode()


def test_an_error_inside_a_stream_is_passed_on_without_the_key(start, monkeypatch) -> None:
    monkeypatch.setenv("WEAK_KEY", "weak-secret")
    endpoint = start({"weak": Indiscreet()}, {"weak": {"key_env": "WEAK_KEY"}})
    with pytest.raises(openai.APIError, match=r"no, Bearer \*\*\*"), endpoint.ask(EASY, stream=True) as stream:
        list(stream)


def test_fallbacks_are_tried_in_their_order_then_the_rest(start) -> None:
    backends = {name: FakeBackend(status=500) for name in ("weak", "strong", "huge")} | {"spare": FakeBackend()}
    endpoint = start(backends, fallbacks=["huge", "spare"])
    assert endpoint.ask_raw(EASY).headers["x-mofme-model"] == "spare"
    assert [sum(fake.asked.values()) for fake in backends.values()] == [1, 0, 1, 1]


def test_a_named_model_that_fails_is_not_replaced(start) -> None:
    endpoint = start({"weak": FakeBackend(status=500), "strong": FakeBackend()})
    with pytest.raises(openai.InternalServerError, match="weak: status_500"):
        endpoint.ask(EASY, model="weak")
    assert not endpoint.backends["strong"].asked


def test_a_backend_that_recovers_is_asked_again(start, monkeypatch) -> None:
    monkeypatch.setattr(forwarding, "COOL_DOWN", 0.05)
    endpoint = start({"weak": FakeBackend(status=500), "strong": FakeBackend()})
    assert endpoint.ask_raw(EASY).headers["x-mofme-model"] == "strong"
    endpoint.backends["weak"].status = 200
    time.sleep(0.1)
    assert endpoint.ask_raw(EASY).headers["x-mofme-model"] == "weak"


def test_a_stream_that_breaks_off_ends_with_an_error_and_is_not_repeated(start) -> None:
    endpoint = start({"weak": FakeBackend(break_after=3), "strong": FakeBackend()})
    said = []
    with pytest.raises(openai.APIError, match="broke off"), endpoint.ask("one two three", stream=True) as stream:
        for chunk in stream:
            said.append(chunk.choices[0].delta.content)
    assert said == ["", "one", " two"]
    assert not endpoint.backends["strong"].asked
    metrics = endpoint.metrics()
    assert metrics['mofme_requests_total{outcome="broken"}'] == 1
    assert metrics['mofme_answers_total{model="weak"}'] == 0


def test_a_stream_that_breaks_before_its_first_event_goes_on_to_the_next(start) -> None:
    endpoint = start({"weak": FakeBackend(break_after=0), "strong": FakeBackend()})
    with endpoint.ask("one two", stream=True) as stream:
        assert "".join(chunk.choices[0].delta.content or "" for chunk in stream) == "one two"


def test_a_stream_that_halts_ends_with_an_error(start) -> None:
    backends = {"weak": FakeBackend(pause=60), "strong": FakeBackend()}
    endpoint = start(backends, {"weak": {"timeout": 3}})  # enough for the first event on a busy machine
    with pytest.raises(openai.APIError, match="broke off"), endpoint.ask("one two", stream=True) as stream:
        list(stream)


def test_no_request_is_longer_than_the_limit(start) -> None:
    with pytest.raises(openai.InternalServerError) as raised:
        start({"weak": FakeBackend(seconds=60)}, limits={"seconds": 0.5}).ask(EASY)
    assert raised.value.status_code == 504
    endpoint = start({"weak": FakeBackend(pause=60)}, limits={"seconds": 3})
    with pytest.raises(openai.APIError, match="took too long"), endpoint.ask(EASY, stream=True) as stream:
        list(stream)


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_goes_away_stops_the_backend(start, stream) -> None:
    weak = FakeBackend(seconds=0 if stream else 60, pause=0.02)
    endpoint = start({"weak": weak, "strong": FakeBackend()})
    if stream:
        with endpoint.ask("word " * 1000, stream=True) as answer:
            next(iter(answer))
    else:
        with pytest.raises(openai.APITimeoutError):
            endpoint.ask(EASY, timeout=0.5)
    deadline = time.monotonic() + 60
    while not (left := endpoint.metrics()['mofme_requests_total{outcome="left"}']) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert left == 1 and endpoint.metrics()["mofme_in_flight"] == 0
    while stream and not weak.left and time.monotonic() < deadline:
        time.sleep(0.01)
    assert weak.left == stream


def test_a_client_that_does_not_read_is_given_up() -> None:
    async def send_to_nobody(_: object) -> None:
        await asyncio.Event().wait()

    limited = SimpleNamespace(config=SimpleNamespace(limits=SimpleNamespace(seconds=0.05)))
    send_in_time = ChatEndpoint._in_time(limited, send_to_nobody)
    with ThreadPoolExecutor(1) as thread, pytest.raises(ClientDisconnect):
        thread.submit(asyncio.run, send_in_time({"type": "http.response.body"})).result(timeout=60)


def test_too_many_at_once_are_sent_away(start) -> None:
    endpoint = start({"weak": FakeBackend(held=True)}, limits={"concurrency": 1})
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(endpoint.ask, EASY)
        while not endpoint.backends["weak"].asked:
            time.sleep(0.005)
        with pytest.raises(openai.InternalServerError, match="too many"):
            endpoint.ask(EASY)
        endpoint.backends["weak"].held = False
        assert first.result().choices[0].message.content == EASY


def test_a_backend_gets_no_more_at_once_than_it_takes(start) -> None:
    weak = FakeBackend(seconds=0.05)
    endpoint = start({"weak": weak, "strong": FakeBackend()}, {"weak": {"max_concurrent": 1}})
    with ThreadPoolExecutor(3) as pool:
        waiting = [pool.submit(endpoint.ask, f"easy {number}") for number in range(3)]
        assert [each.result().choices[0].message.content for each in waiting] == ["easy 0", "easy 1", "easy 2"]
    assert weak.busiest == 1


def test_a_small_storm_loses_nothing() -> None:
    # In a thread of its own: the browser of other tests keeps a loop running in this one.
    with ThreadPoolExecutor(1) as thread:
        storm = thread.submit(measure_storm, 8, 40, DrawingRouter()).result()
    assert (storm.lost, storm.duplicated) == (0, 0)
    assert storm.fallbacks > 0
    assert len(storm.latencies) == 40


def test_overhead_is_of_every_request() -> None:
    overhead = measure_overhead(3, DrawingRouter())
    assert len(overhead.direct) == len(overhead.through) == 3
    assert (overhead.cpu_through > 0).all()


def test_the_result_says_what_was_measured() -> None:
    direct, through = np.full(20, 0.001), np.full(20, 0.004)
    storm = Storm(50, 500, 1, 2, 30, 10.0, np.full(500, 0.2))
    result = as_result({"here": Overhead(direct, through, direct, through)}, {"here": storm}, "command")
    assert "Of requests of 50 clients at once, 500 here, 1 were lost and 2 doubled" in result.verdict
    alone, many = result.rows
    assert alone.figures["added by the endpoint, ms"].value == 3.0
    assert many.figures["requests per second"].value == 50.0


def test_a_client_that_leaves_lets_the_next_one_find_out(start, monkeypatch) -> None:
    monkeypatch.setattr(forwarding, "COOL_DOWN", 0.05)
    endpoint = start({"weak": FakeBackend(status=500), "strong": FakeBackend()})
    assert endpoint.ask_raw(EASY).headers["x-mofme-model"] == "strong"
    weak = endpoint.backends["weak"]
    weak.status, weak.seconds = 200, 60
    time.sleep(0.1)
    with pytest.raises(openai.APITimeoutError):
        endpoint.ask(EASY, timeout=0.5)
    deadline = time.monotonic() + 60
    while not endpoint.metrics()['mofme_requests_total{outcome="left"}'] and time.monotonic() < deadline:
        time.sleep(0.01)
    weak.seconds = 0
    assert endpoint.ask_raw(EASY).headers["x-mofme-model"] == "weak"


def test_nobody_waits_behind_all_others_for_a_backend_that_hangs(start) -> None:
    backends = {"weak": FakeBackend(seconds=60), "strong": FakeBackend()}
    endpoint = start(backends, {"weak": {"max_concurrent": 1, "timeout": 1}})
    began = time.monotonic()
    with ThreadPoolExecutor(12) as pool:
        list(pool.map(lambda number: endpoint.ask(f"easy {number}"), range(12)))
    assert time.monotonic() - began < 8  # 12 s one after the other; 2 s where each waits no longer than a timeout
