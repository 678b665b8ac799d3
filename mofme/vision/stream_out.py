"""Where restored streams go: to browsers on this machine, to an RTSP server, or as files into a folder."""

import os
import select
import socket
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from fractions import Fraction
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import BoundedSemaphore, Thread
from typing import Any
from urllib.parse import urlsplit

import av
from av.video.stream import VideoStream

from mofme.errors import PictureError
from mofme.files import check_can_hold
from mofme.vision.picture.decode import Picture
from mofme.vision.picture.encode import encode
from mofme.vision.picture.file import write_picture
from mofme.vision.picture.mend import CUT
from mofme.vision.stream import Latest, RestoredShot, without_secrets

HERE = ("127.0.0.1", "localhost", "::1")
VIEWERS = 16  # at a time
_BOUNDARY = "mofme"
_STALLED = 10.0  # seconds after which a viewer that takes nothing is let go
_CLOCK = Fraction(1, 90_000)
_PAGE = b"""<!doctype html><title>Restored</title><style>body{margin:0;background:#111}
img{width:100vw;height:100vh;object-fit:contain}</style><img src="stream.mjpg" alt="The restored stream">"""
Output = Callable[[RestoredShot], None]


@contextmanager
def open_output(text: str, keep: int | None) -> Iterator[tuple[str, Output]]:
    """What to call the place `text`, and what writes a shot there: http://, on this machine; rtsp://; or a folder.

    A folder keeps the `keep` newest files of those written, with None all. Raises PictureError or OSError if it cannot
    be used.
    """
    with ExitStack() as stack:
        match text.partition("://")[0].lower() if "://" in text else "":
            case "http":
                yield stack.enter_context(_served(text))
            case "rtsp" | "rtsps":
                yield without_secrets(text), stack.enter_context(_published(text))
            case "":
                check_can_hold(Path(text) / "picture.jpg")
                yield f"{text}, which keeps {f'the {keep:,} newest' if keep else 'all'}", _Folder(Path(text), keep)
            case _:
                raise PictureError(f"{without_secrets(text)}: give http://, rtsp:// or a folder.")


class _Folder:
    """Files with name and time that they have in a watched folder, or named by the time; those of others are not
    touched.
    """

    def __init__(self, folder: Path, keep: int | None) -> None:
        self._folder, self._keep, self._written = folder, keep, deque[Path]()
        self._unfinished: dict[str, Path] = {}  # by name, what was made of a file before its end was there

    def __call__(self, done: RestoredShot) -> None:
        name = done.shot.file or f"{datetime.now(UTC):%Y%m%d-%H%M%S-%f}.jpg"
        path, number = self._folder / name, 1
        before = self._unfinished.pop(name, None)
        while before is None and path.exists():
            number += 1
            path = self._folder / f"{Path(name).stem}-{number}{Path(name).suffix}"
        path = before or path
        write_picture(path, done.restoration.image, done.picture, done.picture.format)
        if (made := done.shot.made) is not None:
            os.utime(path, ns=(made, made))
        if done.shot.file and any(note.startswith(CUT) for note in done.picture.notes):
            self._unfinished[name] = path
        if before is None:
            self._written.append(path)
        if self._keep and len(self._written) > self._keep:
            self._written.popleft().unlink(missing_ok=True)


class _Viewer(BaseHTTPRequestHandler):
    """One request for the page or for the pictures."""

    protocol_version = "HTTP/1.0"
    timeout = _STALLED

    def __init__(self, latest: Latest[bytes], free: BoundedSemaphore, *arguments: Any) -> None:
        self._latest, self._free = latest, free
        super().__init__(*arguments)

    def do_GET(self) -> None:  # the library's name
        # Another name for this machine would be a foreign page's, which could then read the pictures.
        if _host_of(f"//{self.headers.get('Host', '')}") not in HERE:
            self.send_error(421, "Open it as http://127.0.0.1 or localhost")
        elif (path := self.path.partition("?")[0]) == "/":  # browsers add what makes an address look new
            self._begin("text/html; charset=utf-8")
            self.wfile.write(_PAGE)
        elif path != "/stream.mjpg":
            self.send_error(404, "Only / and /stream.mjpg are here")
        elif not self._free.acquire(blocking=False):
            self.send_error(503, f"{VIEWERS} are watching already: close another tab")
        else:
            try:
                with suppress(OSError):  # the viewer goes away
                    self._stream()
            finally:
                self._free.release()

    def _stream(self) -> None:
        self._begin(f"multipart/x-mixed-replace; boundary={_BOUNDARY}")
        number = 0
        while (found := self._latest.after(number, self._is_there)) is not None:
            number, jpeg = found
            head = f"--{_BOUNDARY}\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n"
            self.wfile.write(head.encode() + jpeg + b"\r\n")

    def _is_there(self) -> bool:
        """Whether the viewer is: who goes away sends an end."""
        ready, _, _ = select.select([self.connection], [], [], 0)
        return not ready or bool(self.connection.recv(1, socket.MSG_PEEK))

    def _begin(self, kind: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Cache-Control", "no-store")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Requests are not logged: they would break the line of progress."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, request: object, client_address: object) -> None:
        """A viewer that went away is no error of ours."""


def _host_of(address: str) -> str | None:
    try:
        return urlsplit(address).hostname
    except ValueError:
        return None


@contextmanager
def _served(address: str) -> Iterator[tuple[str, Output]]:
    host = _host_of(address)
    if host not in HERE:
        why = "pictures are shown on this machine only, as http://127.0.0.1:8090"
        others = "for others, put a server that asks for a password in front of it."
        raise PictureError(f"{without_secrets(address)}: {why}; {others}")
    latest = Latest[bytes]()
    viewer = partial(_Viewer, latest, BoundedSemaphore(VIEWERS))
    try:
        port = urlsplit(address).port
        server = _Server(("127.0.0.1", 8090 if port is None else port), viewer)
    except ValueError as error:
        raise PictureError(f"{without_secrets(address)}: a port is a number up to 65535.") from error
    except OSError as error:
        raise PictureError(f"{without_secrets(address)}: cannot be listened on ({error.strerror}).") from error

    def show(done: RestoredShot) -> None:
        image = done.restoration.image
        latest.put(encode(image, Picture(image, done.picture.alpha), "jpeg"))

    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", show
    finally:
        latest.end()
        server.shutdown()
        server.server_close()


@contextmanager
def _published(address: str) -> Iterator[Output]:
    """What sends H.264 to an RTSP server that takes streams, which is connected to when the first picture is there."""
    opened: list[tuple[av.container.OutputContainer, VideoStream, float]] = []

    def send(done: RestoredShot) -> None:
        pixels = done.restoration.image.clamp(0, 1).mul(255).round().byte().permute(1, 2, 0).contiguous().numpy()
        try:
            if not opened:
                how = {"rtsp_transport": "tcp"}
                container = av.open(address, "w", format="rtsp", options=how, timeout=(_STALLED, _STALLED))
                video = container.add_stream("libx264", 30, {"preset": "veryfast", "tune": "zerolatency"})
                video.height, video.width = (side + side % 2 for side in pixels.shape[:2])
                video.pix_fmt, video.codec_context.time_base = "yuv420p", _CLOCK
                opened.append((container, video, time.monotonic()))
            container, video, start = opened[0]
            frame = av.VideoFrame.from_ndarray(pixels, "rgb24").reformat(video.width, video.height, "yuv420p")
            frame.pts, frame.time_base = round((time.monotonic() - start) / _CLOCK), _CLOCK
            container.mux(video.encode(frame))
        except (av.FFmpegError, OSError) as error:
            name = without_secrets(address)
            raise PictureError(f"{name}: no RTSP server takes a stream there ({error.strerror}).") from None

    try:
        yield send
    finally:
        for container, _, _ in opened:
            with suppress(av.FFmpegError, OSError):  # the server went away first
                container.close()
