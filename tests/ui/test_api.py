"""The endpoints as programs call them, through a real server."""

import http.client
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from PIL import ExifTags, Image

from mofme.ui.window import EXPERIMENTS


@pytest.fixture(scope="module")
def client(url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    client = Client(url, verbose=False, download_files=tmp_path_factory.mktemp("downloads"))
    yield client
    client.close()


def test_restore_returns_the_file_in_its_format_and_a_report_and_takes_every_option(
    client: Client, photo: Path
) -> None:
    restored, report = client.predict(handle_file(photo), api_name="/restore")
    with Image.open(restored) as image:
        assert (image.format, image.size) == ("JPEG", (64, 96))
        assert image.getexif()[ExifTags.Base.Make] == "A camera"
    assert (report["width"], report["height"]) == (64, 96)
    assert set(report["probabilities"]) == {"rain", "snow", "raindrop", "haze"}
    restored, _ = client.predict(
        handle_file(photo), model="small", strength=0, ensemble=True, tile=256, api_name="/restore"
    )
    assert Path(restored).suffix == ".jpg"


def test_what_cannot_be_restored_is_answered_in_words(client: Client, photo: Path, tmp_path: Path) -> None:
    for name in ("leer.png", "weiß wie Schnee.jpg", "no suffix"):
        (tmp_path / name).write_bytes(b"this is no picture")
        with pytest.raises(AppError, match="picture"):
            client.predict(handle_file(tmp_path / name), api_name="/restore")
    Image.new("RGB", (400, 300)).save(tmp_path / "large.png")
    # A visitor of a hosted app has no command line.
    with pytest.raises(AppError, match=r"over the limit of 0\.1: make it smaller[^-]*$"):
        client.predict(handle_file(tmp_path / "large.png"), api_name="/restore")
    with pytest.raises(AppError, match="Choose a photo"):
        client.predict(None, api_name="/restore")
    for changes in ({"model": "../../etc"}, {"strength": 7}, {"tile": 3}):
        with pytest.raises(AppError):
            client.predict(handle_file(photo), **changes, api_name="/restore")


def call(url: str, payload: dict[str, object], endpoint: str = "restore") -> str:
    """Call an endpoint with a made-up file, as a hostile program would, and return the stream of answers."""
    file = {"meta": {"_type": "gradio.FileData"}, **payload}
    data = {
        "restore": [file, "small", 1, False, 0, False],
        "batch": [[file], "small", 1, False, 0],
        "evaluate": [[file], [file], "small", "camvid"],
        "video": [file, "small", 1, False, 0],
    }[endpoint]
    started = httpx.post(f"{url}gradio_api/call/{endpoint}", json={"data": data}, timeout=90)
    if started.status_code != 200:
        return started.text
    return httpx.get(f"{url}gradio_api/call/{endpoint}/{started.json()['event_id']}", timeout=90).text


@pytest.mark.parametrize("endpoint", ["restore", "batch", "evaluate", "video"])
def test_files_that_were_not_uploaded_are_never_read(url: str, endpoint: str) -> None:
    for path in ("/etc/hostname", "http://127.0.0.1:9/a.png", ""):
        answer = call(url, {"path": path}, endpoint)
        assert "event: error" in answer and "event: complete" not in answer


@pytest.mark.parametrize("endpoint", ["restore", "batch"])
def test_the_same_call_with_an_upload_is_answered(url: str, photo: Path, endpoint: str) -> None:
    """Or the test above would pass whatever else is wrong with its call."""
    sent = httpx.post(f"{url}gradio_api/upload", files={"files": ("a.jpg", photo.read_bytes())}, timeout=90)
    assert "event: complete" in call(url, {"path": sent.json()[0]}, endpoint)


def test_uploads_beyond_the_limit_and_files_of_the_server_are_refused(url: str) -> None:
    answer = httpx.post(f"{url}gradio_api/upload", files={"files": ("big.png", b"0" * 1_100_000)}, timeout=90)
    assert answer.status_code == 413 and "exceeded" in answer.text
    for path in ("/etc/hostname", "app.py", "mofme/ui/window.py"):
        assert httpx.get(f"{url}gradio_api/file={path}", timeout=90).status_code in (403, 404)


def test_the_plots_of_shipped_results_are_served_and_not_inside_the_page(url: str) -> None:
    page = "".join(httpx.get(f"{url}{experiment.address}").text for experiment in EXPERIMENTS)
    plots = set(re.findall(r"plots/[\w-]+\.png", page))
    assert len(plots) >= 5 and "base64," not in page
    for plot in plots:
        answer = httpx.get(f"{url}{plot}")
        assert (answer.status_code, answer.headers["content-type"]) == (200, "image/png")
    server = httpx.URL(url)
    for path in ("/plots/../../README.md", "/plots/%2e%2e/%2e%2e/README.md", "/plots/..%2f..%2fREADME.md"):
        connection = http.client.HTTPConnection(server.host, server.port, timeout=90)  # httpx would take the dots out
        connection.request("GET", path)
        assert connection.getresponse().status == 404, path
        connection.close()


def test_batch_returns_a_zip_the_report_and_its_rows(client: Client, photo: Path, broken: Path, tmp_path: Path) -> None:
    trip = tmp_path / "trip.zip"
    with zipfile.ZipFile(trip, "w") as archive:
        archive.write(photo, "day 1/ä.jpg")
    files = [handle_file(path) for path in (photo, broken, trip)]
    archive_path, report, rows = client.predict(files, api_name="/batch")
    with zipfile.ZipFile(archive_path) as archive:
        assert set(archive.namelist()) == {"my photo.jpg", "trip/day 1/ä.jpg", "report.csv"}
    assert Path(report).read_text(encoding="utf-8").startswith("file,")
    assert {row["file"] for row in rows if row["error"]} == {"broken.jpg"}


def test_evaluate_returns_a_report_the_result_and_errors(client: Client, tmp_path: Path) -> None:
    pairs = tmp_path / "my pairs.zip"
    with zipfile.ZipFile(pairs, "w") as archive:
        for part, level in (("input", 120), ("target", 100)):
            Image.new("RGB", (48, 32), (level,) * 3).save(tmp_path / "a.png")
            archive.write(tmp_path / "a.png", f"top/{part}/a.png")
        archive.writestr("top/input/b.png", b"no picture")
    report, answer = client.predict([handle_file(pairs)], None, api_name="/evaluate")
    with zipfile.ZipFile(report) as archive:
        assert {"restoration.csv", "restoration.json", "plot-1.svg", "plot-2.svg"} < set(archive.namelist())
    assert answer["result"]["room"] == "restoration"
    assert list(answer["errors"]) == ["b.png"]
