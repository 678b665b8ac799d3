"""The endpoint as the real OpenAI client sees it, with fake backends on this machine, and what it refuses at once."""

import gzip
import json
import logging
from http.client import HTTPConnection
from urllib.parse import urlsplit

import openai
import pytest

from tests.papers.carrot.serving.fake_backend import FakeBackend

HARD, EASY = "a hard question", "an easy question"


def test_a_prompt_goes_to_the_model_that_the_router_chooses(start) -> None:
    endpoint = start()
    for text, name in ((HARD, "strong"), (EASY, "weak")):
        raw = endpoint.ask_raw(text)
        assert raw.headers["x-mofme-model"] == name
        assert raw.headers["x-mofme-cache"] == "off"
        answer = raw.parse()
        assert answer.choices[0].message.content == text
        assert answer.model == f"vendor/{name}"
        assert answer.mofme["model"] == name
    assert endpoint.backends["strong"].asked == {HARD: 1}
    assert endpoint.backends["weak"].asked == {EASY: 1}


def test_a_model_may_be_named_and_the_routing_model_has_several_names(start) -> None:
    endpoint = start()
    assert endpoint.model_for(HARD, model="weak") == "weak"
    assert endpoint.router.prompts == []
    for name in ("auto", "mofme-router", ""):
        assert endpoint.model_for(HARD, model=name) == "strong"
    for number, name in enumerate(("gpt-7", "vendor/weak", "Weak"), start=1):
        with pytest.raises(openai.NotFoundError, match="there is no model") as raised:
            endpoint.ask(EASY, model=name)
        assert (raised.value.code, raised.value.type) == ("model_not_found", "invalid_request_error")
        assert endpoint.metrics()['mofme_requests_total{outcome="refused"}'] == number
    assert EASY not in endpoint.backends["weak"].asked


def test_models_are_listed(start) -> None:
    client = start().client
    assert [model.id for model in client.models.list()] == ["auto", "weak", "strong"]
    assert client.models.retrieve("strong").id == "strong"
    assert client.models.retrieve("auto").owned_by == "mofme"
    with pytest.raises(openai.NotFoundError, match="there is no model 'other/one'") as raised:
        client.models.retrieve("other/one")
    assert raised.value.code == "model_not_found"


def test_paths_that_are_not_served_are_told_in_the_same_shape(start) -> None:
    client = start().client
    with pytest.raises(openai.NotFoundError, match="is not served here") as raised:
        client.post("/embeddings", body={}, cast_to=object)
    assert (raised.value.code, raised.value.type) == ("not_found", "invalid_request_error")
    with pytest.raises(openai.APIStatusError, match="is not served here") as raised:
        client.get("/chat/completions", cast_to=object)
    assert (raised.value.status_code, raised.value.code) == (405, "not_allowed")


PICTURE = {"type": "image_url", "image_url": {"url": "data:image/jpeg;base64," + "A" * 12_000_000}}


def test_a_phone_photo_goes_to_a_backend_that_takes_pictures(start) -> None:
    endpoint = start(options={"weak": {"pictures": False}})
    for content in ([{"type": "text", "text": EASY}, PICTURE], [PICTURE]):
        messages = [{"role": "user", "content": content}, {"role": "user", "content": "easy"}]
        assert endpoint.model_for("", messages=messages) == "strong"
    assert not endpoint.backends["weak"].asked
    assert endpoint.model_for(EASY) == "weak"
    with pytest.raises(openai.BadRequestError, match="no backend takes it: weak") as raised:
        endpoint.ask("", model="weak", messages=messages)
    assert raised.value.code == "does_not_fit" and "weak takes text only" in str(raised.value)


def test_what_is_beyond_a_context_goes_to_a_longer_one(start) -> None:
    endpoint = start(options={"weak": {"context": 1000}})
    # Four characters are counted as a token: 4,000 leave no room for an answer.
    assert endpoint.model_for("x" * 3900) == "weak"
    assert endpoint.model_for("x" * 4000) == "strong"
    assert endpoint.model_for("x" * 40, max_tokens=991) == "strong"
    assert endpoint.model_for("x" * 40, max_completion_tokens=990) == "weak"
    with pytest.raises(openai.BadRequestError, match=r"weak takes 1000 tokens, .* this needs about 1001") as raised:
        endpoint.ask("x" * 4000, model="weak")
    assert raised.value.code == "context_length_exceeded"


def test_streams_arrive_piece_by_piece_with_the_counts_that_were_asked_for(start) -> None:
    endpoint = start({"weak": FakeBackend(pause=0.02), "strong": FakeBackend()})
    with endpoint.ask("one two three", stream=True) as stream:
        chunks = list(stream)
    assert [c.choices[0].delta.content for c in chunks] == ["", "one", " two", " three", None]
    assert chunks[-1].choices[0].finish_reason == "stop"
    assert all(chunk.usage is None for chunk in chunks)  # not asked for, so only we have seen it
    with endpoint.ask("one two", stream=True, stream_options={"include_usage": True}) as stream:
        last = list(stream)[-1]
    assert last.choices == [] and last.usage.completion_tokens == 2
    endpoint.backends["weak"].pause = 60  # the first piece does not wait for the last
    with endpoint.ask("one two three", stream=True) as stream:
        next(iter(stream))
        assert endpoint.metrics()["mofme_in_flight"] == 1


def test_a_backend_that_refuses_stream_options_gets_none(start) -> None:
    endpoint = start(options={"weak": {"stream_usage": False}})
    assert endpoint.model_for("easy", stream=True, stream_options={"include_usage": True}) == "weak"
    assert "stream_options" not in endpoint.backends["weak"].bodies[0]


def test_backends_get_what_the_client_sent_and_no_more(start, monkeypatch) -> None:
    monkeypatch.setenv("WEAK_KEY", "weak-secret")
    endpoint = start(options={"weak": {"key_env": "WEAK_KEY"}})
    tools = [{"type": "function", "function": {"name": "f", "parameters": {}}}]
    endpoint.ask(EASY, temperature=0.3, tools=tools, extra_body={"top_k": 5}, extra_headers={"x-private": "mine"})
    [body], [headers] = endpoint.backends["weak"].bodies, endpoint.backends["weak"].headers
    asked = {"messages": [{"role": "user", "content": EASY}], "temperature": 0.3, "tools": tools, "top_k": 5}
    assert body == {**asked, "model": "vendor/weak"}
    assert headers["authorization"] == "Bearer weak-secret"
    assert set(headers) <= {
        *("host", "accept", "accept-encoding", "connection", "user-agent"),
        *("authorization", "content-type", "content-length"),
    }
    assert "client-secret" not in str(headers)


def test_the_last_user_message_is_routed_on_and_of_a_long_one_both_ends(start) -> None:
    endpoint = start()
    picture = {"type": "image_url", "image_url": {"url": "data:,"}}
    parts = [{"type": "text", "text": "now"}, picture, {"type": "text", "text": "then"}]
    said = {"system": "system", "user": "before", "assistant": "answer"}
    messages = [{"role": role, "content": content} for role, content in said.items()]
    endpoint.ask("", messages=[*messages, {"role": "user", "content": parts}, messages[-1]])
    endpoint.ask("begin " + "x" * 50_000 + " end")
    first, long = endpoint.router.prompts
    assert first == "now\nthen"
    assert len(long) < 10_000 and long.startswith("begin") and long.endswith("end")


def test_a_router_that_fails_costs_no_answer(start) -> None:
    endpoint = start()
    assert endpoint.model_for("stumble") == "strong"  # the dearest
    assert endpoint.metrics()["mofme_routing_errors_total"] == 1


def test_cost_is_counted_and_compared_with_the_best(start) -> None:
    endpoint = start()
    # 10 tokens in and 3 out: weak 10 * 1 + 3 * 2 = 16 millionths of a dollar, strong 10 * 10 + 3 * 20 = 160.
    assert float(endpoint.ask_raw("one two three").headers["x-mofme-cost"]) == pytest.approx(16e-6)
    assert float(endpoint.ask_raw("a hard one").headers["x-mofme-cost"]) == pytest.approx(160e-6)
    endpoint.said("four five six")
    endpoint.ask("a hard one", model="weak")  # by name: nothing was saved by routing
    metrics = endpoint.metrics()
    assert metrics['mofme_cost_dollars_total{model="weak"}'] == pytest.approx(48e-6)
    assert metrics['mofme_cost_dollars_total{model="strong"}'] == pytest.approx(160e-6)
    assert metrics["mofme_saved_dollars"] == pytest.approx(2 * 144e-6)
    assert metrics['mofme_share{model="weak"}'] == 0.75
    assert metrics["mofme_routing_seconds_count"] == 3
    assert metrics['mofme_requests_total{outcome="answered"}'] == 4


def test_tokens_are_estimated_where_a_backend_does_not_count(start) -> None:
    endpoint = start({"weak": FakeBackend(without_usage=True)})
    # 40 characters each way are 10 tokens: 10 * 1 + 10 * 2 millionths of a dollar.
    assert float(endpoint.ask_raw("x" * 40).headers["x-mofme-cost"]) == pytest.approx(30e-6)
    endpoint.said("y" * 40)
    assert endpoint.metrics()['mofme_cost_dollars_total{model="weak"}'] == pytest.approx(60e-6)


GOOD = {"messages": [{"role": "user", "content": "hello"}]}
JSON = {"content-type": "application/json"}


def post(
    url: str, body: bytes, headers: dict[str, str] = JSON, method: str = "POST", path: str = "/v1/chat/completions"
) -> tuple[int, dict[str, object]]:
    parts = urlsplit(url)
    connection = HTTPConnection(str(parts.hostname), parts.port)
    try:
        connection.request(method, path, body, headers)
        response = connection.getresponse()
        text = response.read()
        return response.status, json.loads(text) if text.startswith(b"{") else {}
    finally:
        connection.close()


@pytest.fixture
def endpoint(start):
    return start(limits={"body_bytes": 2000})


@pytest.mark.parametrize(
    ("code", "bodies"),
    [
        ("invalid_json", [b"", b"{", b"[]", b"\xff\xfe", b"[" * 1900, b'{"messages": [{}], "temperature": NaN}']),
        ("invalid_messages", [b"{}", *(b'{"messages": %s}' % each for each in (b"[]", b'"hello"', b'["hello"]'))]),
        ("invalid_model", [b'{"messages": [{}], "model": 0}', b'{"messages": [{}], "model": ["weak"]}']),
        ("invalid_stream", [b'{"messages": [{}], "stream": "yes"}']),
        ("invalid_stream_options", [b'{"messages": [{}], "stream_options": 1}']),
    ],
)
def test_bodies_that_no_backend_could_answer(endpoint, code, bodies) -> None:
    for body in bodies:
        status, answer = post(endpoint.url, body)
        assert (status, answer["error"]["code"]) == (400, code)
    assert not endpoint.backends["weak"].asked
    assert endpoint.metrics()['mofme_requests_total{outcome="refused"}'] == len(bodies)


def test_what_json_may_hold_is_no_reason_to_fail_and_what_not_is_told(endpoint) -> None:
    status, answer = post(endpoint.url, b'{"messages": [{"role": "user", "content": "\\ud800 hello"}]}')
    assert (status, answer["choices"][0]["message"]["content"]) == (200, "? hello")
    _, answer = post(endpoint.url, b'{"messages": [{"role": "user", "content": "x"}],}')
    assert "line 1 column 4" in answer["error"]["message"]


def test_a_body_above_the_limit(start) -> None:
    endpoint = start(limits={"body_bytes": 2_000_000})
    # Three times the limit, too: who is cut off while sending sees no answer.
    status, answer = post(endpoint.url, json.dumps({**GOOD, "more": "x" * 6_000_000}).encode())
    assert (status, answer["error"]["code"], answer["error"]["type"]) == (413, "too_large", "invalid_request_error")
    assert "above 2 MB" in answer["error"]["message"]


def test_what_any_web_page_could_send_is_refused(endpoint) -> None:
    body = json.dumps(GOOD).encode()
    for kind in ("text/plain", "application/x-www-form-urlencoded", ""):
        assert post(endpoint.url, body, {"content-type": kind})[0] == 415
    status, answer = post(endpoint.url, body, {**JSON, "host": "evil.example:8100"})
    assert (status, answer["error"]["code"]) == (400, "invalid_host")
    assert "'evil.example:8100' is no name of this machine: ask localhost" in answer["error"]["message"]
    assert not endpoint.backends["weak"].asked


@pytest.mark.parametrize("coding", ["gzip", "GZIP", "br", "identity, gzip"])
def test_a_packed_body_is_refused_in_words(endpoint, coding) -> None:
    body = json.dumps(GOOD).encode()
    status, answer = post(endpoint.url, gzip.compress(body), {**JSON, "content-encoding": coding})
    assert (status, answer["error"]["code"]) == (415, "unsupported_media_type")
    assert f"packed ({coding.lower()}): send it as it is" in answer["error"]["message"]
    assert post(endpoint.url, body, {**JSON, "content-encoding": "identity"})[0] == 200


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        ({"budget": 1e-6}, "no model is expected to cost as little: the cheapest is chosen"),  # it costs 1e-5
        ({"quality": 0.95}, "no model is expected to be as good: the best is chosen"),
        ({"budget": 1e-5}, None),
        ({"quality": 0.9}, None),
        ({"cost_weight": 1}, None),
    ],
)
def test_a_bound_that_no_model_keeps_is_told_in_a_header(start, rule, words) -> None:
    endpoint = start(rule=rule)
    for stream in (False, True):
        assert endpoint.ask_raw(EASY, stream=stream).headers.get("x-mofme-bound") == words
    assert "x-mofme-bound" not in endpoint.ask_raw(EASY, model="weak").headers


def test_the_address_it_listens_on_is_its_own_name(start) -> None:
    endpoint = start(host="127.0.0.2")
    assert post(endpoint.url, json.dumps(GOOD).encode(), {**JSON, "host": "127.0.0.2:8100"})[0] == 200


def test_with_a_token_only_who_has_it_gets_in(start, monkeypatch) -> None:
    monkeypatch.setenv("MOFME_TOKEN", "the-token")
    endpoint = start(token_env="MOFME_TOKEN")
    for without in (lambda: endpoint.ask("hello"), endpoint.client.models.list):
        with pytest.raises(openai.AuthenticationError):
            without()
    assert post(endpoint.url, json.dumps(GOOD).encode(), {**JSON, "host": "x/health?"})[0] == 401
    inside = endpoint.client.with_options(api_key="the-token")
    assert inside.chat.completions.create(model="auto", messages=GOOD["messages"]).choices
    assert "the-token" not in str(endpoint.backends["weak"].headers)
    assert post(endpoint.url, b"", {}, "GET", "/health") == (200, {"status": "ok"})


class CookieBackend(FakeBackend):
    async def _answer(self, request):
        response = await super()._answer(request)
        response.set_cookie("session", "of-weak")
        return response


def test_no_backend_gets_the_cookies_of_another(start) -> None:
    endpoint = start({"weak": CookieBackend(), "strong": FakeBackend()})
    for text in ("easy", "hard", "easy"):
        endpoint.ask(text)
    assert "of-weak" not in str([fake.headers for fake in endpoint.backends.values()])


def test_keys_and_prompts_are_not_logged(start, monkeypatch, caplog) -> None:
    monkeypatch.setenv("WEAK_KEY", "weak-secret")
    endpoint = start(options={"weak": {"key_env": "WEAK_KEY"}})
    with caplog.at_level(logging.INFO):
        post(endpoint.url, json.dumps(GOOD).encode())
    assert "weak-secret" not in caplog.text and "hello" not in caplog.text
