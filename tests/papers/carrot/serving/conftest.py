from collections.abc import Callable, Iterator, Sequence
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
from tests.papers.carrot.serving.fake_backend import FakeBackend


@dataclass
class Expectation:
    """What a router says of one prompt."""

    model: str
    models: Sequence[str]
    quality_M: np.ndarray
    cost_M: np.ndarray


class WordRouter:
    """Prompts with "hard" in them go to `strong`, all others to `weak`; `huge` is never worth it."""

    models = ("weak", "strong", "huge")

    def __init__(self) -> None:
        self.prompts: list[str] = []

    def route(self, prompt: str, **rule: float) -> Expectation:
        self.prompts.append(prompt)
        if "stumble" in prompt:
            raise RuntimeError("the router stumbled")
        hard = "hard" in prompt
        quality = np.array([0.2 if hard else 0.9, 0.9, 0.9])
        return Expectation("strong" if hard else "weak", self.models, quality, np.array([1e-5, 1e-4, 1e-3]))


@dataclass
class Endpoint:
    """The endpoint under test, its fake backends, and a real client of it."""

    url: str
    router: WordRouter
    backends: dict[str, FakeBackend]
    machines: dict[str, Served]
    client: openai.OpenAI

    def ask(self, text: str, **settings: Any) -> Any:
        settings = {"model": "auto", **settings}
        return self.client.chat.completions.create(messages=[{"role": "user", "content": text}], **settings)

    def ask_raw(self, text: str, **settings: Any) -> Any:
        settings = {"model": "auto", **settings}
        messages: Any = [{"role": "user", "content": text}]
        return self.client.chat.completions.with_raw_response.create(messages=messages, **settings)

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
            {
                "name": name,
                "base_url": f"{machine.url}/v1",
                "model": f"vendor/{name}",
                "price_in": prices.get(name, (0, 0))[0],
                "price_out": prices.get(name, (0, 0))[1],
                "timeout": 120,
                **(options or {}).get(name, {}),
            }
            for name, machine in machines.items()
        ]
        config = ServingConfig.model_validate({"backends": listed, "rule": {"cost_weight": 0.5}, **settings})
        router = WordRouter()
        served = Served(create_app(config, router, embed)).__enter__()
        running.append(served)
        ours = client.with_options(base_url=f"{served.url}/v1")
        return Endpoint(served.url, router, backends, machines, ours)

    yield begin
    for server in running:
        stopping.submit(server.stop)
