"""The app as a service: what it tells of itself, how it turns away what is too much, and how it ends."""

import json
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from gradio_client import Client, handle_file
from PIL import Image
from prometheus_client.parser import text_string_to_metric_families

from mofme.errors import ModelError
from mofme.ui import service
from mofme.ui.limits import Limits
from tests.browser import free_port, running


def metrics(address: str) -> dict[tuple[str, ...], float]:
    """Values by name and labels, which the parser sorts by their names."""
    text = httpx.get(f"{address}metrics", timeout=90).text
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    return {(sample.name, *(sample.labels[name] for name in sorted(sample.labels))): sample.value for sample in samples}


def test_health_readiness_and_metrics_are_told(url: str, photo: Path) -> None:
    assert httpx.get(f"{url}health").json() == {"status": "ok"}
    ready = httpx.get(f"{url}ready", timeout=90)
    assert (ready.status_code, ready.json()) == (200, {"status": "ready"})
    done = ("mofme_work_seconds_count", "done", "restore")
    before = metrics(url).get(done, 0)
    client = Client(url, verbose=False)
    client.predict(handle_file(photo), api_name="/restore")
    client.close()
    after = metrics(url)
    assert after[done] == before + 1
    assert after["mofme_requests_total", "/health", "200"] >= 1
    assert after["mofme_requests_total", "/gradio_api/upload", "200"] >= 1
    assert (after["mofme_in_work",], after["mofme_waiting",]) == (0, 0)
    assert after["process_resident_memory_bytes",] > 1e7
    # Neither names nor places of pictures: each would be a line of its own, and none of the reader's business.
    assert not [key for key in after if "my photo" in "".join(key)]


@pytest.mark.parametrize(("waiting", "reason"), [(0, "ready"), (20, "queue is full: 20")])
def test_a_full_queue_is_not_ready(waiting: int, reason: str) -> None:
    *_, ready, _ = service.routes(lambda: None, lambda: waiting, Limits(waiting=20))
    answer = ready.endpoint()  # type: ignore[attr-defined]
    assert answer.status_code == (503 if waiting else 200)
    assert reason in answer.body.decode()


def test_damaged_weights_are_not_ready() -> None:
    def load() -> None:
        raise ModelError("small: model.safetensors is damaged")

    *_, ready, _ = service.routes(load, lambda: 0, Limits())
    answer = ready.endpoint()  # type: ignore[attr-defined]
    assert (answer.status_code, json.loads(answer.body)["reason"]) == (503, "small: model.safetensors is damaged")


def start(address: str, photo: Path) -> Any:
    return Client(address, verbose=False).submit(handle_file(photo), ensemble=True, api_name="/restore")


def test_sigterm_finishes_the_work_tells_others_and_ends_well(tmp_path: Path) -> None:
    large = tmp_path / "a secret place.png"
    Image.effect_noise((400, 400), 60).convert("RGB").save(large)
    port = free_port()
    address = f"http://127.0.0.1:{port}/"
    command = [sys.executable, "-m", "mofme", "app", "--port", str(port), "--log-format", "json"]
    with running(command, f"{address}health", stderr=subprocess.PIPE) as app:
        assert app.stderr
        lines: list[str] = []
        reading = threading.Thread(target=lines.extend, args=(app.stderr,))
        reading.start()
        job = start(address, large)
        while not metrics(address)["mofme_in_work",]:
            time.sleep(0.05)
        app.send_signal(signal.SIGTERM)
        while httpx.get(f"{address}ready").status_code == 200:
            time.sleep(0.01)
        refused = httpx.post(f"{address}gradio_api/call/restore", json={"data": []})
        assert (refused.status_code, "being stopped" in refused.text) == (503, True)
        _, report = job.result(timeout=90)
        assert report["width"] == 400
        assert app.wait(timeout=60) == 0
        reading.join(timeout=10)
        app.stderr.close()
    told = [json.loads(line) for line in lines if line.startswith("{")]
    requests = [line for line in told if line["event"] == "request"]
    uploads = [(line["method"], line["status"]) for line in requests if line["route"] == "/gradio_api/upload"]
    assert uploads == [("POST", 200)]
    assert [(line["work"], line["outcome"]) for line in told if line["event"] == "work"] == [("restore", "done")]
    assert not [line for line in lines if "secret" in line]
