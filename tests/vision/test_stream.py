"""Streams over real sockets and folders: the newest frame wins, what goes away comes back, and it ends as it should."""

import contextlib
import io
import os
import re
import shlex
import signal
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from mofme.errors import PictureError, PictureTooLargeError
from mofme.vision import stream as streams
from mofme.vision.picture.file import read_picture
from mofme.vision.restorer import Restoration
from mofme.vision.stream import Latest, RestoredShot, find_source, reading, restore_stream
from mofme.vision.stream_out import open_output
from tests.films import film, inverted

README = Path(__file__).parents[2] / "README.md"
GREY = 40


def jpeg(level: int, size: tuple[int, int] = (32, 24)) -> bytes:
    file = io.BytesIO()
    Image.new("L", size, level).convert("RGB").save(file, "jpeg", quality=95)
    return file.getvalue()


class Camera:
    """An MJPEG server: a frame every `every` seconds, each a little brighter; it hangs up after `frames`."""

    def __init__(self, every: float = 0.02, frames: int = 10**6, size: tuple[int, int] = (32, 24)) -> None:
        self.visits = self.sent = 0
        camera = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if self.path.startswith("/moved"):
                    self.send_response(302)
                    self.send_header("Location", f"{camera.address}/video")
                    return self.end_headers()
                camera.visits += 1
                self.send_response(200)
                self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
                self.end_headers()
                with contextlib.suppress(OSError):
                    for _ in range(frames):
                        camera.sent += 1
                        data = jpeg(GREY + camera.sent % 100, size)
                        self.wfile.write(b"--frame\r\nContent-Type: image/jpeg\r\n")
                        self.wfile.write(b"Content-Length: %d\r\n\r\n" % len(data) + data + b"\r\n")
                        time.sleep(every)
                return None

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server.server_port}"
        self.start()

    def start(self) -> None:
        self.server.daemon_threads, self.server.block_on_close = True, False
        threading.Thread(target=self.server.serve_forever, args=[0.02], daemon=True).start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()

    def open_again(self) -> None:
        self.server = ThreadingHTTPServer(self.server.server_address, self.server.RequestHandlerClass)
        self.start()


@pytest.fixture
def camera() -> Iterator[Callable[..., Camera]]:
    with contextlib.ExitStack() as stack:

        def start(**how: Any) -> Camera:
            served = Camera(**how)
            stack.callback(served.close)
            return served

        yield start


def follow(
    address: str, wanted: int, restorer: Callable[..., Restoration] = inverted, **how: Any
) -> list[RestoredShot]:
    said: list[str] = how.pop("said", [])
    with reading(find_source(address), said.append) as latest:
        return list(islice(restore_stream(restorer, latest, tell=said.append, **how), wanted))


def test_a_slow_restorer_gets_the_newest_frame_and_latency_is_bounded(camera: Callable[..., Camera]) -> None:
    served, latencies, behind = camera(every=0.02), [], []

    def slow(image: torch.Tensor, **settings: Any) -> Restoration:
        time.sleep(0.12)
        return inverted(image)

    with reading(find_source(served.address), print) as latest:
        for done in restore_stream(slow, latest, tell=print):
            latencies.append(time.monotonic() - done.shot.came)
            behind.append((served.sent - round(done.picture.rgb.mean().item() * 255) + GREY) % 100)
            if done.restored == 7:
                break
    # 50 frames a second and 8 restored: of 7 x 0.12 s x 50 frames those that came meanwhile are skipped.
    assert done.skipped > 15 and done.came == done.restored + done.skipped
    # One frame's time, not ten, nor does it lag behind what is on the way; a busy machine may stall now and then.
    assert statistics.median(latencies[1:]) < 0.4, latencies
    assert statistics.median(behind[1:]) < 25, behind


def test_frames_are_restored_and_made_smaller_and_the_brightness_is_steady(camera: Callable[..., Camera]) -> None:
    given = []

    def restorer(image: torch.Tensor, **settings: Any) -> Restoration:
        given.append((tuple(image.shape), settings))
        return inverted(image)

    served = camera(size=(64, 48))
    first, *_ = follow(served.address, 2, restorer, side=32, strength=0.5)
    assert (first.restoration.image + first.picture.rgb).allclose(torch.ones(3, 24, 32))
    assert [shape for shape, _ in given] == [(3, 24, 32)] * 2
    assert given[0][1]["strength"] == 0.5 and given[0][1]["steady"] is given[1][1]["steady"] is not None


def test_a_source_that_drops_is_tried_again_after_pauses_that_grow(
    camera: Callable[..., Camera], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "FIRST_PAUSE", 0.02)
    served, said = camera(frames=5), list[str]()
    assert len(follow(served.address, 12, said=said)) == 12
    assert served.visits >= 3
    assert re.fullmatch(rf"{served.address}: .*; trying again in 0\.02 s", said[0])

    said.clear()
    with reading(find_source(served.address), said.append) as latest:
        assert latest.after(0)
        served.close()
        limit = time.monotonic() + 20
        while not (said and said[-1].endswith("in 0.16 s")) and time.monotonic() < limit:
            time.sleep(0.01)
        assert [float(line.split()[-2]) for line in said[-4:]] == [0.02, 0.04, 0.08, 0.16]
        number = latest.number
        served.open_again()
        assert latest.after(number)


def test_an_address_is_shown_without_its_secrets(capfd: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    for scheme in ("http", "rtsp"):
        with pytest.raises(PictureError) as refused:
            follow(f"{scheme}://me:secret@127.0.0.1:{port}/video?token=secret", 1)
        assert str(refused.value).startswith(f"{scheme}://127.0.0.1:{port}/video: no video can be read from there")
        assert refused.value.__cause__ is None
    with pytest.raises(PictureError, match=re.escape("ftp://host/: streams come from")):
        find_source("ftp://me:secret@host/")
    with pytest.raises(PictureError, match="no video can be read"):
        follow("http://[me:secret", 1)
    assert "secret" not in "".join(capfd.readouterr())


def test_an_address_leads_to_no_other_and_a_playlist_is_none(camera: Callable[..., Camera], tmp_path: Path) -> None:
    served = camera()
    with pytest.raises(PictureError):
        follow(f"{served.address}/moved", 1)
    playlist = tmp_path / "list.m3u8"
    playlist.write_text(f"#EXTM3U\n#EXTINF:1,\n{served.address}/video\n#EXT-X-ENDLIST\n")
    with pytest.raises(PictureError):
        follow(str(playlist), 1)
    assert served.visits == 0


@pytest.mark.parametrize("length", [b"", b"Content-Length: 2000000000\r\n"])
def test_a_picture_without_an_end_is_given_up(monkeypatch: pytest.MonkeyPatch, length: bytes) -> None:
    monkeypatch.setattr(streams, "_SILENCE", 0.5)
    head = b"--frame\r\nContent-Type: image/jpeg\r\n"

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
            self.end_headers()
            for level in range(40, 60):  # without lengths
                self.wfile.write(head + b"\r\n" + jpeg(level) + b"\r\n")
            self.wfile.write(head + length + b"\r\n")
            with contextlib.suppress(OSError):
                while True:
                    self.wfile.write(b"x" * 1000)
                    time.sleep(0.02)

        def log_message(self, *_: object) -> None:
            pass

    said: list[str] = []
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads, server.block_on_close = True, False
        threading.Thread(target=server.serve_forever, args=[0.02], daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}/"
        with reading(find_source(address), said.append) as latest:
            assert latest.after(0)
            limit = time.monotonic() + 30
            while not said and time.monotonic() < limit:
                time.sleep(0.02)
        server.shutdown()
    assert said[0] == f"{address}: for a while no whole picture came; trying again in 1 s"


def test_frames_that_are_too_large_end_it(camera: Callable[..., Camera]) -> None:
    source = find_source(camera().address, max_megapixels=0.0001)
    with reading(source, print) as latest, pytest.raises(PictureTooLargeError, match="32 x 24"):
        latest.after(0)


def test_a_video_is_shown_at_its_pace_and_ends(tmp_path: Path) -> None:
    start = time.monotonic()
    found = follow(str(film(tmp_path / "film.mp4", frames=5)), 99)
    assert time.monotonic() - start > 0.4  # the last of 5 frames at 10 a second
    assert found[-1].came == 5 and found[-1].restored >= 3
    with pytest.raises(PictureError, match="such file or folder"):
        find_source(str(tmp_path / "nowhere"))
    (tmp_path / "text.mp4").write_text("no video")
    with pytest.raises(PictureError, match=r"text\.mp4"):
        follow(str(tmp_path / "text.mp4"), 1)


def test_a_video_whose_clock_jumps_goes_on_at_once(tmp_path: Path) -> None:
    path = film(tmp_path / "a.mkv", frames=6, times=[0, 1, 2, 36_000, 36_001, 36_002])
    begun = time.monotonic()
    with reading(find_source(str(path)), print) as latest:
        while latest.number < 6 and time.monotonic() < begun + 10:
            time.sleep(0.02)
        assert latest.number == 6
    assert time.monotonic() - begun >= 0.4  # at the pace of its frames


def test_a_camera_by_its_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened, path = cv2.VideoCapture, str(film(tmp_path / "film.avi", frames=3, codec="mpeg4"))
    monkeypatch.setattr(cv2, "VideoCapture", lambda index: opened(path if index == 3 else str(tmp_path)))
    (first,) = follow("3", 1)
    red, green, _ = first.picture.rgb[:, 16, 8]
    assert red > 2 * green  # the red square of the first frames
    with pytest.raises(PictureError, match="camera 4: there is no such camera"):
        follow("4", 1)


def test_a_watched_folder_gives_what_is_new_and_whole(tmp_path: Path) -> None:
    watched, said, found = tmp_path / "in", list[str](), list[RestoredShot]()
    watched.mkdir()
    (watched / "self.png").symlink_to("self.png")
    Image.new("RGB", (8, 6), (1, 2, 3)).save(watched / "old.png")
    os.utime(watched / "old.png", (1, 1))
    Image.new("RGB", (8, 6), (9, 9, 9)).save(watched / "newer.png")
    whole = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)).save(whole, "png")

    def write() -> None:
        (watched / "broken.jpg").write_bytes(b"no picture")
        with (watched / "slow.png").open("wb", buffering=0) as file:
            for part in range(0, len(whole.getvalue()), 2000):
                file.write(whole.getvalue()[part : part + 2000])
                time.sleep(0.04)

    writer = threading.Thread(target=write)
    with reading(find_source(str(watched)), said.append) as latest:
        for done in restore_stream(inverted, latest, tell=said.append):
            found.append(done)
            if len(found) == 2:
                break
            writer.start()  # what is being written is waited for, what is broken is left out
    writer.join()
    assert [one.shot.file for one in found] == ["newer.png", "slow.png"]
    assert [one.shot.made for one in found] == [(watched / one.shot.file).stat().st_mtime_ns for one in found]
    with open_output(str(tmp_path / "out"), None) as (_, write_to):
        write_to(found[0])
    assert (tmp_path / "out/newer.png").stat().st_mtime_ns == found[0].shot.made
    assert found[1].picture.rgb.shape == (3, 64, 64) and not found[1].picture.notes
    assert found[1].failed == 1 and "broken.jpg" in said[0]


def test_a_watched_folder_that_comes_back_gives_only_what_is_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one on a share that drops."""
    monkeypatch.setattr(streams, "FIRST_PAUSE", 0.05)
    watched, said, names = tmp_path / "in", list[str](), list[str]()
    watched.mkdir()
    (watched / "a.jpg").write_bytes(jpeg(GREY))
    with reading(find_source(str(watched)), said.append) as latest:
        for done in restore_stream(inverted, latest, tell=said.append):
            names.append(done.shot.file)
            if len(names) == 2:
                break
            watched.rename(tmp_path / "away")
            while not said:
                time.sleep(0.02)
            (tmp_path / "away/b.jpg").write_bytes(jpeg(GREY))
            os.utime(tmp_path / "away/b.jpg", (1, 1))
            (tmp_path / "away").rename(watched)
    assert names == ["a.jpg", "b.jpg"]


def test_latest_wakes_and_ends() -> None:
    latest = Latest[int]()
    latest.put(1)
    latest.put(2, count=3)
    assert latest.after(0) == (4, 2)
    threading.Timer(0.05, latest.put, [3]).start()
    assert latest.after(4) == (5, 3)
    threading.Timer(0.05, latest.end).start()
    assert latest.after(5) is None
    latest.end(ValueError("late"))
    with pytest.raises(ValueError, match="late"):
        latest.after(5)


def test_the_readme_watches_a_folder_until_ctrl_c(tmp_path: Path) -> None:
    lines = re.findall(r"^python -m mofme (stream .*?)(?:\s+#.*)?$", README.read_text(encoding="utf-8"), re.MULTILINE)
    (line,) = [line for line in lines if "incoming/" in line]
    (tmp_path / "incoming").mkdir()
    Image.new("RGB", (48, 32), (90, 100, 110)).save(tmp_path / "incoming/a.jpg")
    own = {"PYTHONPATH": os.pathsep.join(sys.path), "PYTHONUNBUFFERED": "1", "MOFME_CACHE": str(tmp_path / "cache")}
    heeding = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"  # a shell may have it ignored
    run = f"{heeding}\nfrom mofme.cli.app import app\napp()"
    command = [sys.executable, "-c", run, *shlex.split(line), "--runtime", "torch"]  # auto measures for a while first
    done, limit = tmp_path / "clear/a.jpg", time.monotonic() + 60
    how: dict[str, Any] = {"cwd": tmp_path, "env": os.environ | own, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, **how) as running:
        while not done.exists() and running.poll() is None and time.monotonic() < limit:
            time.sleep(0.05)
        running.send_signal(signal.SIGINT)
        try:
            _, said = running.communicate(timeout=60)
        finally:
            running.kill()  # or what does not end keeps the test from ending
    assert running.returncode == 130, said
    assert read_picture(done).rgb.shape == (3, 32, 48)
    told = r"1 frames in, 1 restored, 0 skipped, latency [\d.]+ s, [\d.]+ s at most\ncancelled\n$"
    assert said.startswith("waiting for the first picture of incoming")
    assert re.search(told, said) and "Traceback" not in said, said


def test_pages_that_a_stream_leaves_out_are_told(tmp_path: Path) -> None:
    pages = [Image.new("RGB", (8, 6), (level, 0, 0)) for level in (10, 20, 30)]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])
    said: list[str] = []
    follow(str(tmp_path), 1, said=said)
    assert said == ["a.tif: 1 of 3 pages restored, the others are left out"]
