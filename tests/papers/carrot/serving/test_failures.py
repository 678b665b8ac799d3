"""Backends that are dead, slow, rate-limited, wrong, or break off; clients that go away; the load test."""

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import openai
import pytest
from starlette.requests import ClientDisconnect
from starlette.responses import Response

from mofme.measure.result import Figure
from mofme.papers.carrot.serving import forwarding
from mofme.papers.carrot.serving.endpoint import ChatEndpoint
from mofme.papers.carrot.serving.load_test import (
    ADDED,
    ADDED_CPU,
    DrawingRouter,
    as_result,
    measure_overhead,
    measure_storm,
)
from tests.papers.carrot.serving.fake_backend import FakeBackend

EASY = "an easy question"


def errors(endpoint) -> dict[str, float]:
    metrics = endpoint.metrics()
    return {name: value for name, value in metrics.items() if name.startswith("mofme_backend_errors_total")}


def wait_until(counts, name) -> None:
    deadline = time.monotonic() + 60
    while not counts()[name] and time.monotonic() < deadline:
        time.sleep(0.01)
    assert counts()[name] == 1


@pytest.mark.parametrize("stream", [False, True])
def test_a_dead_backend_is_passed_over(start, stream) -> None:
    endpoint = start()
    endpoint.machines["weak"].stop()
    assert endpoint.model_for(EASY, stream=stream) == "strong"
    assert "unreachable" in str(errors(endpoint))
    assert endpoint.metrics()["mofme_fallbacks_total"] == 1


def test_a_slow_backend_is_passed_over_and_rests(start, monkeypatch) -> None:
    monkeypatch.setattr(forwarding, "COOL_DOWN", 60.0)
    endpoint = start({"weak": FakeBackend(seconds=60), "strong": FakeBackend()}, {"weak": {"timeout": 0.1}})
    assert [endpoint.model_for(EASY) for _ in range(2)] == ["strong", "strong"]
    assert errors(endpoint) == {'mofme_backend_errors_total{model="weak",kind="timeout"}': 1}  # not asked again


@pytest.mark.parametrize(("wait", "model", "asked"), [("0.05", "weak", 2), ("30", "strong", 1)])
def test_a_rate_limit_is_waited_for_if_it_is_of_a_moment(start, wait, model, asked) -> None:
    endpoint = start({"weak": FakeBackend(status=429, retry_after=wait, limited=1), "strong": FakeBackend()})
    assert endpoint.model_for(EASY) == model
    assert endpoint.backends["weak"].asked[EASY] == asked


@pytest.mark.parametrize(
    ("weak", "words"),
    [
        ({"status": 429, "retry_after": "30"}, "rate_limited"),
        ({"status": 413}, "strong: rate_limited; weak: refused_413"),  # worth another try
    ],
)
def test_where_all_are_rate_limited_or_refuse_the_client_learns_for_how_long(start, weak, words) -> None:
    endpoint = start({"weak": FakeBackend(**weak), "strong": FakeBackend(status=429, retry_after="20")})
    with pytest.raises(openai.RateLimitError, match=words) as raised:
        endpoint.ask(EASY)
    assert raised.value.response.headers["retry-after"] == "20"
    assert endpoint.metrics()['mofme_requests_total{outcome="failed"}'] == 1


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("status", [301, 401, 503, 400, 413, 415, 422])
def test_what_one_backend_fails_at_or_refuses_another_may_answer(start, stream, status) -> None:
    endpoint = start({"weak": FakeBackend(status=status), "strong": FakeBackend()})
    assert endpoint.model_for(EASY, stream=stream) == "strong"
    assert endpoint.metrics()["mofme_fallbacks_total"] == 1
    assert bool(errors(endpoint)) == (status in (301, 401, 503))  # a refusal is no fault of it


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
    backends["strong"].status = 500  # and where one did not refuse, no refusal is passed on
    with pytest.raises(openai.InternalServerError, match="strong: status_500; weak: refused_400"):
        endpoint.ask(EASY)


@pytest.mark.parametrize(
    ("status", "words"),
    [(401, "it wants a key: set key_env"), (404, "check its base_url and model"), (308, "check its")],
)
def test_what_is_wrong_with_a_backends_settings_is_said(start, status, words) -> None:
    with pytest.raises(openai.InternalServerError, match=f"weak: status_{status}, {words}"):
        start({"weak": FakeBackend(status=status)}).ask(EASY)


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
        (b"<html>Unprocessable</html>", "weak refused the query with status 422"),
        (b"", "weak refused the query with status 422"),
    ],
)
def test_refusals_of_any_shape_reach_the_client_in_openais(start, content, message) -> None:
    endpoint = start({"weak": Answering(content, 422)})
    with pytest.raises(openai.UnprocessableEntityError) as raised:
        endpoint.ask(EASY)
    assert raised.value.response.json()["error"]["message"] == message
    assert not errors(endpoint)


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b'{"choices": []}', "broken"),
        (b'{"choices": null, "error": {"message": "overloaded"}}', "broken"),
        (b'{"choices": [{"message": {"content": ""}, "finish_reason": "error"}]}', "error"),
        (b"[1]", "broken"),
        (b" " * 2_000, "too_large"),
    ],
)
def test_an_answer_that_holds_none_or_has_no_end_goes_on_to_the_next(start, monkeypatch, content, kind) -> None:
    monkeypatch.setattr(forwarding, "LARGEST_ANSWER", 1_000)
    endpoint = start({"weak": Answering(content), "strong": FakeBackend()})
    assert endpoint.model_for(EASY) == "strong"
    assert errors(endpoint) == {f'mofme_backend_errors_total{{model="weak",kind="{kind}"}}': 1}


def test_numbers_that_json_does_not_have_become_null(start) -> None:
    endpoint = start({"weak": Answering(b'{"choices": [{"message": {}, "logprobs": [NaN, -Infinity, 1]}]}')})
    assert '"logprobs": [null, null, 1]' in endpoint.ask_raw(EASY).text


ROLE = b'data: {"choices": [{"delta": {"role": "assistant", "content": ""}, "finish_reason": null}]}\n\n'
SAID = b'data: {"choices": [{"delta": {"content": "one"}, "finish_reason": "stop"}]}\n\n'
ALIVE = b': still here\n\ndata: {"choices": [], "prompt_filter_results": []}\n\n'
FAILED = b'data: {"error": {"message": "overloaded"}}\n\n'


@pytest.mark.parametrize(
    "content",
    [
        ALIVE + FAILED,
        ALIVE,
        b"data: [DONE]\n\n",
        b'event: error\ndata: {"message": "overloaded"}\n\n',
        ROLE + FAILED,
        ROLE,
    ],
)
def test_a_stream_that_fails_before_its_answer_begins_goes_on_to_the_next(start, content) -> None:
    endpoint = start({"weak": Answering(content, kind="text/event-stream"), "strong": FakeBackend()})
    assert endpoint.said("one two") == "one two"


def test_signs_of_life_before_an_answer_are_passed_on(start) -> None:
    endpoint = start({"weak": Answering(ALIVE + SAID, kind="Text/Event-Stream"), "strong": FakeBackend()})
    raw = endpoint.ask_raw(EASY, stream=True)
    assert raw.headers["x-mofme-model"] == "weak" and raw.http_response.read() == ALIVE + SAID


class Indiscreet(FakeBackend):
    """Its stream ends with an error that repeats the key."""

    async def _events(self, body, text):
        yield b'data: {"choices": [{"delta": {"content": "one"}}]}\n\n'
        key = self.headers[-1]["authorization"]
        yield b'data: {"error": {"message": "no, %s"}}\n\n' % key.encode()


def test_an_error_inside_a_stream_is_passed_on_without_the_key(start, monkeypatch) -> None:
    monkeypatch.setenv("WEAK_KEY", "weak-secret")
    endpoint = start({"weak": Indiscreet()}, {"weak": {"key_env": "WEAK_KEY"}})
    with pytest.raises(openai.APIError, match=r"no, Bearer \*\*\*"):
        endpoint.said(EASY)


@pytest.mark.parametrize(
    "event",
    [
        b'data: {"object": "error", "message": "engine died", "code": 500}\n\n',
        b'event: error\ndata: {"message": "engine died"}\n\n',
        b'data: {"choices": [{"finish_reason": "error", "delta": {}}], "error": {"message": "engine died"}}\n\n',
        b'data: {"choices": [{"finish_reason": "error", "delta": {}}], "detail": "engine died"}\n\n',
    ],
)
def test_an_error_inside_a_stream_of_any_shape_reaches_the_client_and_is_not_kept(start, event) -> None:
    said = b'data: {"choices": [{"delta": {"content": "one"}}]}\n\n'
    weak = Answering(said + event + b"data: [DONE]\n\n", kind="text/event-stream")
    endpoint = start({"weak": weak}, cache={"enabled": True})
    for _ in range(2):
        with pytest.raises(openai.APIError, match="engine died"):
            endpoint.said(EASY)
    assert weak.asked[EASY] == 2
    assert endpoint.metrics()['mofme_requests_total{outcome="broken"}'] == 2


def test_who_runs_it_reads_on_the_console_what_fails_once_a_minute(start, monkeypatch, caplog) -> None:
    monkeypatch.setenv("WEAK_KEY", "weak-secret")
    endpoint = start({"weak": FakeBackend(status=401), "strong": FakeBackend()}, {"weak": {"key_env": "WEAK_KEY"}})
    monkeypatch.setattr(forwarding, "COOL_DOWN", 0.0)
    for _ in range(3):
        endpoint.ask(EASY)
    endpoint.backends["strong"].break_after = 3
    with pytest.raises(openai.APIError):
        endpoint.said("one hard stumble", model="strong")
    endpoint.ask("stumble")
    assert [record.getMessage() for record in caplog.records if record.name == forwarding.log.name] == [
        "weak: status_401, check its key in WEAK_KEY: strong is asked instead",
        "strong: its stream broke off: no other is asked, and the client knows",
        "the router failed on a prompt (RuntimeError): strong is asked",
    ]
    assert endpoint.backends["weak"].asked[EASY] == 3  # each time, but told once
    monkeypatch.setattr(forwarding, "QUIET", 0.0)
    endpoint.backends["strong"].status = 500
    with pytest.raises(openai.InternalServerError):
        endpoint.ask(EASY)
    assert caplog.records[-1].getMessage() == "strong: status_500: no other is left to ask"
    assert "weak-secret" not in caplog.text and EASY not in caplog.text


def test_fallbacks_are_tried_in_their_order_then_the_rest(start) -> None:
    backends = {name: FakeBackend(status=500) for name in ("weak", "strong", "huge")} | {"spare": FakeBackend()}
    endpoint = start(backends, fallbacks=["huge", "spare"])
    assert endpoint.model_for(EASY) == "spare"
    assert [sum(fake.asked.values()) for fake in backends.values()] == [1, 0, 1, 1]


def test_a_named_model_that_fails_is_not_replaced(start) -> None:
    endpoint = start({"weak": FakeBackend(status=500), "strong": FakeBackend()})
    with pytest.raises(openai.InternalServerError, match="weak: status_500"):
        endpoint.ask(EASY, model="weak")
    assert not endpoint.backends["strong"].asked


def test_a_backend_that_recovers_is_asked_again_also_if_the_first_client_leaves(start, monkeypatch) -> None:
    monkeypatch.setattr(forwarding, "COOL_DOWN", 0.05)
    endpoint = start({"weak": FakeBackend(status=500), "strong": FakeBackend()})
    weak = endpoint.backends["weak"]
    assert endpoint.model_for(EASY) == "strong"
    weak.status, weak.held = 200, True
    time.sleep(0.1)
    with pytest.raises(openai.APITimeoutError):
        endpoint.ask(EASY, timeout=0.3)
    wait_until(endpoint.metrics, 'mofme_requests_total{outcome="left"}')  # the next one finds out
    weak.held = False
    assert endpoint.model_for(EASY) == "weak"


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
    for events in (0, 1):  # the first has a role only
        fake = FakeBackend(break_after=events)
        assert start({"weak": fake, "strong": FakeBackend()}).said("one two") == "one two"


class Halting(FakeBackend):
    """Says that it is there, and no more."""

    async def _events(self, body, text):
        yield ROLE
        await asyncio.sleep(60)


def test_a_backend_that_halts_before_its_first_word_is_passed_over(start) -> None:
    endpoint = start({"weak": Halting(), "strong": FakeBackend()}, {"weak": {"timeout": 0.3}})
    assert endpoint.said("one two") == "one two"


def test_a_stream_that_halts_ends_with_an_error(start) -> None:
    seconds = 3  # enough for the first event on a busy machine
    late = {
        "broke off": start({"weak": FakeBackend(pause=60)}, {"weak": {"timeout": seconds}}),
        "took too long": start({"weak": FakeBackend(pause=60)}, limits={"seconds": seconds}),
    }
    with ThreadPoolExecutor(2) as pool:
        for words, said in [(words, pool.submit(endpoint.said, "one two")) for words, endpoint in late.items()]:
            with pytest.raises(openai.APIError, match=words):
                said.result()


def test_no_request_is_longer_than_the_limit(start) -> None:
    with pytest.raises(openai.InternalServerError) as raised:
        start({"weak": FakeBackend(seconds=60)}, limits={"seconds": 0.3}).ask(EASY)
    assert raised.value.status_code == 504


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_goes_away_stops_the_backend(start, stream) -> None:
    weak = FakeBackend(seconds=0 if stream else 60, pause=0.02)
    endpoint = start({"weak": weak, "strong": FakeBackend()})
    if stream:
        with endpoint.ask("word " * 1000, stream=True) as answer:
            next(iter(answer))
    else:
        with pytest.raises(openai.APITimeoutError):
            endpoint.ask(EASY, timeout=0.3)
    wait_until(endpoint.metrics, 'mofme_requests_total{outcome="left"}')
    assert endpoint.metrics()["mofme_in_flight"] == 0
    if stream:
        wait_until(lambda: {"left": weak.left}, "left")


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
    asked = ["easy 0", "easy 1", "easy 2"]
    with ThreadPoolExecutor(3) as pool:
        assert [answer.choices[0].message.content for answer in pool.map(endpoint.ask, asked)] == asked
    assert weak.busiest == 1


def test_a_small_storm_loses_nothing() -> None:
    # In a thread of its own: the browser of other tests keeps a loop running in this one.
    with ThreadPoolExecutor(1) as thread:
        storm = thread.submit(measure_storm, 6, 24, DrawingRouter()).result()
    assert [storm[what].value for what in ("requests", "lost", "doubled")] == [24, 0, 0]
    assert storm["answered by the other backend"].value > 0
    slow = SimpleNamespace(route=lambda prompt, **dial: time.sleep(0.05))
    overhead = measure_overhead(3, DrawingRouter(timed=slow))
    assert overhead[ADDED].value > 50  # ms that the router takes
    assert all(overhead[name].value > 0 for name in ("backend alone, ms", ADDED_CPU))
    told = {ADDED: Figure(3.0), ADDED_CPU: Figure(1.0)}
    result = as_result({"here": told}, {"here": {**storm, "lost": Figure(1)}}, 6, "")
    assert "Of requests of 6 clients at once, 24 here, 1 were lost and 0 doubled" in result.verdict
    assert "the endpoint added 3.0 ms here (1.0 of CPU) to a request" in result.verdict


def test_nobody_waits_behind_all_others_for_a_backend_that_hangs(start) -> None:
    backends = {"weak": FakeBackend(seconds=60), "strong": FakeBackend()}
    endpoint = start(backends, {"weak": {"max_concurrent": 1, "timeout": 0.5}})
    with ThreadPoolExecutor(12) as pool:
        list(pool.map(endpoint.ask, [f"easy {number}" for number in range(12)]))
    # Some wait for their place and some for the answer, none for both of all others.
    assert set(errors(endpoint)) == {
        f'mofme_backend_errors_total{{model="weak",kind="{k}"}}' for k in ("busy", "timeout")
    }
