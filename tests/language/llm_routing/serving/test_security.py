"""What the endpoint refuses before any backend is asked."""

import json
import logging
from http.client import HTTPConnection
from urllib.parse import urlsplit

import openai
import pytest

from mofme.language.llm_routing.serving.load_test import FakeBackend

GOOD = {"messages": [{"role": "user", "content": "hello"}]}
JSON = {"content-type": "application/json"}


def post(url: str, body: bytes, headers: dict[str, str] = JSON) -> tuple[int, dict[str, object]]:
    parts = urlsplit(url)
    connection = HTTPConnection(str(parts.hostname), parts.port)
    try:
        connection.request("POST", "/v1/chat/completions", body, headers)
        response = connection.getresponse()
        text = response.read()
        return response.status, json.loads(text) if text.startswith(b"{") else {}
    finally:
        connection.close()


@pytest.fixture
def endpoint(start):
    return start(limits={"body_bytes": 2000})


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "invalid_json"),
        (b"{", "invalid_json"),
        (b"[]", "invalid_json"),
        (b"\xff\xfe", "invalid_json"),
        (b"[" * 1900, "invalid_json"),
        (b'{"messages": [{"role": "user", "content": "x"}], "temperature": NaN}', "invalid_json"),
        (b"{}", "invalid_messages"),
        (b'{"messages": []}', "invalid_messages"),
        (b'{"messages": "hello"}', "invalid_messages"),
        (b'{"messages": ["hello"]}', "invalid_messages"),
        (b'{"messages": [{}], "stream": "yes"}', "invalid_stream"),
        (b'{"messages": [{}], "stream_options": 1}', "invalid_stream_options"),
    ],
)
def test_bodies_that_no_backend_could_answer(endpoint, body, code) -> None:
    status, answer = post(endpoint.url, body)
    assert (status, answer["error"]["code"]) == (400, code)
    assert not endpoint.backends["weak"].asked
    assert endpoint.metrics()['mofme_requests_total{outcome="refused"}'] == 1


def test_half_a_surrogate_pair_is_no_reason_to_fail(endpoint) -> None:
    status, answer = post(endpoint.url, b'{"messages": [{"role": "user", "content": "\\ud800 hello"}]}')
    assert status == 200
    assert answer["choices"][0]["message"]["content"] == "? hello"


def test_a_body_above_the_limit(endpoint) -> None:
    status, answer = post(endpoint.url, json.dumps({**GOOD, "more": "x" * 3000}).encode())
    assert (status, answer["error"]["code"]) == (413, "too_large")


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", ""])
def test_what_any_web_page_could_send_is_refused(endpoint, kind) -> None:
    status, _ = post(endpoint.url, json.dumps(GOOD).encode(), {"content-type": kind})
    assert status == 415


def test_a_web_page_cannot_reach_it_by_a_name_of_its_own(endpoint) -> None:
    status, _ = post(endpoint.url, json.dumps(GOOD).encode(), {**JSON, "host": "evil.example"})
    assert status == 400
    assert not endpoint.backends["weak"].asked


def test_the_address_it_listens_on_is_its_own_name(start) -> None:
    endpoint = start(host="127.0.0.2")
    status, _ = post(endpoint.url, json.dumps(GOOD).encode(), {**JSON, "host": "127.0.0.2:8100"})
    assert status == 200


def test_with_a_token_only_who_has_it_gets_in(start, monkeypatch) -> None:
    monkeypatch.setenv("MOFME_TOKEN", "the-token")
    endpoint = start(token_env="MOFME_TOKEN")
    with pytest.raises(openai.AuthenticationError):
        endpoint.ask("hello")
    with pytest.raises(openai.AuthenticationError):
        endpoint.client.models.list()
    inside = endpoint.client.with_options(api_key="the-token")
    assert inside.chat.completions.create(model="auto", messages=GOOD["messages"]).choices
    assert "the-token" not in str(endpoint.backends["weak"].headers)


def test_health_needs_no_token(start, monkeypatch) -> None:
    monkeypatch.setenv("MOFME_TOKEN", "the-token")
    parts = urlsplit(start(token_env="MOFME_TOKEN").url)
    connection = HTTPConnection(str(parts.hostname), parts.port)
    connection.request("GET", "/health")
    assert json.loads(connection.getresponse().read()) == {"status": "ok"}
    connection.close()


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
