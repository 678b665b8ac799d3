"""The app as a service: what it tells of itself, how it turns away what is too much, behind a proxy, and its end."""

import json
import shutil
import signal
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

import httpx
import pytest
from gradio_client import Client, handle_file
from PIL import Image
from prometheus_client.parser import text_string_to_metric_families
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.routing import Route

from mofme.errors import Cancelled, ModelError
from mofme.papers.carrot.serving import load_test
from mofme.ui import service
from mofme.ui.limits import Limits
from mofme.ui.load_test import free_port, running
from mofme.ui.memory import Memory
from mofme.ui.runs import Job

Proxy = Callable[[str, Path], AbstractContextManager[str]]


def metrics(app: httpx.Client) -> dict[tuple[str, ...], float]:
    """Values by name and labels, which the parser sorts by their names."""
    text = app.get("metrics").raise_for_status().text
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    return {(sample.name, *(sample.labels[name] for name in sorted(sample.labels))): sample.value for sample in samples}


def test_health_readiness_and_metrics_are_told(url: str, photo: Path) -> None:
    with httpx.Client(base_url=url, timeout=90) as app:
        assert app.get("health").json() == {"status": "ok"}
        ready = app.get("ready")
        assert (ready.status_code, ready.json()) == (200, {"status": "ready"})
        done = ("mofme_work_seconds_count", "done", "restore")
        before = metrics(app).get(done, 0)
        client = Client(url, verbose=False)
        client.predict(handle_file(photo), api_name="/restore")
        client.close()
        after = metrics(app)
    assert after[done] == before + 1
    assert after["mofme_requests_total", "/health", "200"] >= 1
    assert after["mofme_requests_total", "/gradio_api/upload", "200"] >= 1
    assert (after["mofme_in_work",], after["mofme_waiting",]) == (0, 0)
    assert after["process_resident_memory_bytes",] > 1e7
    # Neither names nor places of pictures: each would be a line of its own, and none of the reader's business.
    assert not [key for key in after if "my photo" in "".join(key)]


@pytest.mark.parametrize(("path", "back"), [("restores", "./"), ("lab/restore", "../")])
def test_an_address_that_leads_nowhere_shows_browsers_the_way_back(url: str, path: str, back: str) -> None:
    page = httpx.get(url + path, headers={"accept": "text/html,*/*"})
    assert page.status_code == 404 and f"<a href='{back}'>Open the app</a>" in page.text
    assert httpx.get(url + path).json() == {"detail": "Not Found"}


def test_a_page_is_found_with_a_slash_at_the_end_of_its_address_too(url: str) -> None:
    answer = httpx.get(url + "evaluate/?model=small")
    assert answer.is_redirect and answer.headers["location"] == "../evaluate?model=small"
    assert httpx.get(url + "evaluate/", follow_redirects=True).url == url + "evaluate"


def damaged() -> None:
    raise ModelError("small: model.safetensors is damaged")


@pytest.mark.parametrize(
    ("load", "waiting", "limit", "status", "reason"),
    [
        (str, 0, 1e18, 200, "ready"),
        (str, 20, 1e18, 503, "queue is full: 20"),
        (damaged, 0, 1e18, 503, "small: model.safetensors is damaged"),
        (str, 0, 1e6, 503, "memory"),
    ],
)
def test_what_is_not_ready_says_why(
    load: Callable[[], object], waiting: int, limit: float, status: int, reason: str
) -> None:
    memory = Memory()
    memory.limit = limit
    *_, ready, metrics = service.routes(load, lambda: waiting, Limits(waiting=20), memory)
    answer = ready.endpoint()  # type: ignore[attr-defined]
    assert answer.status_code == status and reason in answer.body.decode()
    told = metrics.endpoint(asked()).body.decode()  # type: ignore[attr-defined]
    assert f"mofme_memory_limit_bytes {limit:.0e}" in told and f"mofme_waiting {waiting:.1f}" in told


def asked(*auth: str) -> Request:
    header = httpx.BasicAuth(*auth)._auth_header if auth else ""
    return Request({"type": "http", "headers": [(b"authorization", header.encode())] if auth else []})


def test_metrics_are_behind_the_apps_password_where_it_has_one() -> None:
    *_, metrics = service.routes(str, lambda: 0, Limits(), Memory(), ("ann", "söcret"))

    def status(*auth: str) -> int:
        return metrics.endpoint(asked(*auth)).status_code  # type: ignore[attr-defined]

    assert [status(), status("ann", "wrong"), status("bob", "söcret"), status("ann", "söcret")] == [401, 401, 401, 200]


def test_work_that_a_shutdown_stops_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "FETCH_SECONDS", 0)
    job, begun = Job(60), threading.Event()

    def work_on() -> None:
        with service.at_work("restore", job):
            begun.set()
            while True:
                job.check()
                time.sleep(0.01)

    with ThreadPoolExecutor(1) as thread:
        working = thread.submit(work_on)
        assert begun.wait(30)
        try:
            service.finish_work(0.1)
        finally:
            service.closing.clear()
        with pytest.raises(Cancelled, match="the app is being stopped"):
            working.result()


# What only measuring and training need.
HEAVY = {"lpips", "torchvision", "scipy.stats", "sklearn", "transformers", "mujoco", "matplotlib"}


@dataclass
class Served:
    """The app as people serve it: below a path, by TLS, with a password; and the file of what it says."""

    process: subprocess.Popen[str]
    address: str
    said: Path
    certificate: Path

    def lines(self) -> list[str]:
        return self.said.read_text(encoding="utf-8").splitlines()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    if shutil.which("openssl") is None:
        pytest.skip("openssl makes the certificate")
    folder, port = tmp_path_factory.mktemp("served"), free_port()
    said, certificate, key = (folder / name for name in ("said.txt", "server.pem", "server.key"))
    made = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost"
    of = ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run([*made.split(), *of], check=True, capture_output=True)
    options = f"--port {port} --root-path /mofme --auth ann:secret --log-format json"
    command = [sys.executable, "-X", "importtime", "-m", "mofme", "app", *options.split()]
    command += ["--certificate", str(certificate), "--key", str(key)]
    address = f"https://127.0.0.1:{port}/"
    with said.open("w") as file, running(command, f"{address}health", stderr=file) as process:
        yield Served(process, address, said, certificate)


def test_tls_and_a_password(served: Served) -> None:
    with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
        httpx.get(f"{served.address}health")
    with known(served) as app:
        statuses = [app.get(path).status_code for path in ("health", "ready", "metrics", "gradio_api/info")]
        assert statuses == [200, 200, 401, 401]
        assert "mofme_waiting 0.0" in app.get("metrics", auth=("ann", "secret")).text


def known(served: Served) -> httpx.Client:
    trusting = ssl.create_default_context(cafile=served.certificate)
    return httpx.Client(base_url=served.address, verify=trusting, timeout=90)


@contextmanager
def nginx(app: str, folder: Path) -> Iterator[str]:
    """With the configuration that is shipped."""
    if shutil.which("nginx") is None or sys.platform == "win32":
        pytest.skip("no nginx is installed: apt-get install nginx-light")
    port, shipped = free_port(), Path(__file__).parents[2] / "deploy" / "nginx.conf"
    (folder / "mofme.conf").write_text(shipped.read_text().replace("http://127.0.0.1:7860/", app))
    names = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    places = "".join(f"{name}_temp_path {folder / name}; " for name in names)
    server = f"server {{ listen 127.0.0.1:{port}; include {folder / 'mofme.conf'}; }}"
    (folder / "nginx.conf").write_text(
        f"pid {folder / 'pid'}; error_log stderr; events {{}} http {{ access_log off; {places} {server} }}"
    )
    url = f"http://127.0.0.1:{port}/mofme/"
    with running(["nginx", "-g", "daemon off;", "-c", str(folder / "nginx.conf")], url):
        assert httpx.get(f"{url}metrics").status_code == 403
        yield url


@contextmanager
def plain_proxy(app: str, folder: Path) -> Iterator[str]:
    """Passes on what comes as it comes, without `/mofme`, and tells where it stands."""

    async def pass_on(request: Request) -> StreamingResponse:
        told = {"x-forwarded-host": request.headers["host"], "x-forwarded-proto": "http", "x-forwarded-for": "::1"}
        client = httpx.AsyncClient(base_url=app, timeout=90, verify=False)
        url = httpx.URL(path=f"/{request.path_params['path']}", query=request.url.query.encode())
        asked = client.build_request(request.method, url, headers={**request.headers, **told}, content=request.stream())
        answer = await client.send(asked, stream=True)
        headers = {name: value for name, value in answer.headers.items() if name != "transfer-encoding"}
        return StreamingResponse(
            answer.aiter_raw(), answer.status_code, headers, background=BackgroundTask(client.aclose)
        )

    with load_test.Served(Starlette(routes=[Route("/mofme/{path:path}", pass_on, methods=["GET", "POST"])])) as proxy:
        yield f"{proxy.url}/mofme/"


@pytest.mark.parametrize("proxy", [nginx, plain_proxy])
def test_a_sub_path_behind_a_proxy_takes_uploads_and_gives_downloads(
    proxy: Proxy, served: Served, tmp_path: Path, photo: Path
) -> None:
    with proxy(served.address, tmp_path) as url:
        assert httpx.get(f"{url}health").json() == {"status": "ok"}
        assert url.removesuffix("/") in httpx.get(url, timeout=90).text
        client = Client(url, auth=("ann", "secret"), verbose=False, download_files=tmp_path)
        restored, _ = client.predict(handle_file(photo), api_name="/restore")
        client.close()
        with Image.open(restored) as image:
            assert image.size == (64, 96)


def test_sigterm_finishes_the_work_tells_others_and_ends_well(served: Served, tmp_path: Path) -> None:
    large, before = tmp_path / "a secret place.png", len(served.lines())
    Image.effect_noise((400, 400), 60).convert("RGB").save(large)
    login = ("ann", "secret")
    client = Client(served.address, auth=login, ssl_verify=False, verbose=False, download_files=tmp_path)
    job = client.submit(handle_file(large), ensemble=True, api_name="/restore")
    with known(served) as app:
        app.post("login", data={"username": login[0], "password": login[1]}).raise_for_status()
        app.auth = login  # of the metrics
        while not metrics(app)["mofme_in_work",]:
            assert not job.done(), "it was restored before it was seen: a larger picture is needed"
            time.sleep(0.02)
        served.process.send_signal(signal.SIGTERM)
        while app.get("ready").status_code == 200:
            time.sleep(0.01)
        refused = app.post("gradio_api/call/restore", json={"data": []})
        assert (refused.status_code, "being stopped" in refused.text) == (503, True)
    _, report = job.result(timeout=90)
    assert report["width"] == 400
    assert served.process.wait(timeout=60) == 0
    lines = served.lines()
    told = [json.loads(line) for line in lines[before:] if line.startswith("{")]
    requests = [line for line in told if line["event"] == "request"]
    uploads = [(line["method"], line["status"]) for line in requests if line["route"] == "/gradio_api/upload"]
    assert uploads == [("POST", 200)]
    assert [(line["work"], line["outcome"]) for line in told if line["event"] == "work"] == [("restore", "done")]
    to_start = takewhile(lambda line: not line.startswith("{"), lines)  # it began to answer
    imports = {line.rpartition("|")[2].strip() for line in to_start if line.startswith("import time:")}
    assert "gradio" in imports and not imports & HEAVY
    assert not [line for line in lines if "secret" in line and not line.startswith("import time:")]
