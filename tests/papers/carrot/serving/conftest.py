from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any
from urllib.request import urlopen

import numpy as np
import openai
import pytest

from mofme.papers.carrot.serving.config import ServingConfig
from mofme.papers.carrot.serving.endpoint import create_app
from mofme.papers.carrot.serving.load_test import Served
from mofme.papers.carrot.trained_router import Routed
from tests.papers.carrot.serving.fake_backend import FakeBackend


class WordRouter:
    """Prompts with "hard" in them go to `strong`, all others to `weak`; `huge` is never worth it."""

    models = ("weak", "strong", "huge")

    def __init__(self) -> None:
        self.prompts: list[str] = []

    def route(self, prompt: str, **rule: float) -> Routed:
        self.prompts.append(prompt)
        if "stumble" in prompt:
            raise RuntimeError("the router stumbled")
        hard = "hard" in prompt
        quality = np.array([0.2 if hard else 0.9, 0.9, 0.9])
        cost = np.array([1e-5, 1e-4, 1e-3])
        return Routed("strong" if hard else "weak", self.models, quality, cost, (), quality)


@dataclass
class Endpoint:
    """The endpoint under test, its fake backends, and a real client of it."""

    url: str
    router: WordRouter
    backends: dict[str, FakeBackend]
    machines: dict[str, Served]
    client: openai.OpenAI

    def ask_raw(self, text: str, **settings: Any) -> Any:
        settings = {"model": "auto", "messages": [{"role": "user", "content": text}], **settings}
        return self.client.chat.completions.with_raw_response.create(**settings)

    def ask(self, text: str, **settings: Any) -> Any:
        return self.ask_raw(text, **settings).parse()

    def model_for(self, text: str, **settings: Any) -> str:
        """Who answered, once all of the answer has come."""
        raw = self.ask_raw(text, **settings)
        raw.http_response.read()
        return str(raw.headers["x-mofme-model"])

    def said(self, text: str, **settings: Any) -> str:
        """What a stream says."""
        with self.ask(text, stream=True, **settings) as stream:
            return "".join(chunk.choices[0].delta.content or "" for chunk in stream)

    def metrics(self) -> dict[str, float]:
        with urlopen(f"{self.url}/metrics") as page:
            lines = page.read().decode().splitlines()
        return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines if not line.startswith("#")}


Start = Callable[..., Endpoint]


@pytest.fixture(scope="session")
def client() -> Iterator[openai.OpenAI]:
    """One for all tests: to make one takes longer than most of them."""
    with openai.OpenAI(base_url="http://127.0.0.1", api_key="client-secret", max_retries=0, timeout=120) as client:
        yield client


@pytest.fixture(scope="session")
def stopping() -> Iterator[ThreadPoolExecutor]:
    """Where servers stop, as each takes a moment that no test need wait for."""
    with ThreadPoolExecutor() as pool:
        yield pool


@pytest.fixture
def start(client: openai.OpenAI, stopping: ThreadPoolExecutor) -> Iterator[Start]:
    """Starts an endpoint: `backends` by name, `options` of each by name, and the rest of its settings."""
    running: list[Served] = []

    def begin(
        backends: dict[str, FakeBackend] | None = None,
        options: dict[str, dict[str, Any]] | None = None,
        embed: Callable[[str], np.ndarray] | None = None,
        **settings: Any,
    ) -> Endpoint:
        backends = backends or {"weak": FakeBackend(), "strong": FakeBackend()}
        machines = {name: Served(fake.app).__enter__() for name, fake in backends.items()}
        running.extend(machines.values())
        prices = {"weak": (1, 2), "strong": (10, 20)}  # dollars per million tokens
        listed = [
            {"name": name, "base_url": f"{machine.url}/v1", "model": f"vendor/{name}"}
            | dict(zip(("price_in", "price_out"), prices.get(name, (0, 0)), strict=True))
            | (options or {}).get(name, {})
            for name, machine in machines.items()
        ]
        config = ServingConfig.model_validate({"backends": listed, "rule": {"cost_weight": 0.5}, **settings})
        router = WordRouter()
        served = Served(create_app(config, router, embed)).__enter__()
        running.append(served)
        return Endpoint(served.url, router, backends, machines, client.with_options(base_url=f"{served.url}/v1"))

    yield begin
    for server in running:
        stopping.submit(server.stop)
