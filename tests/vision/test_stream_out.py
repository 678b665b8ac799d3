"""What a stream shows: to viewers in browsers, in a folder, and at an RTSP server."""

import contextlib
import re
import socket
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
import torch

from mofme.errors import PictureError
from mofme.vision import stream as streams
from mofme.vision.picture.decode import Picture
from mofme.vision.picture.file import read_picture
from mofme.vision.picture.mend import CUT
from mofme.vision.stream import RestoredShot, Shot, find_source, reading, restore_stream
from mofme.vision.stream_out import VIEWERS, open_output
from tests.films import inverted


def shot(level: float, file: str = "") -> RestoredShot:
    image = torch.full((3, 24, 32), level)
    picture = Picture(image, format="jpeg")
    return RestoredShot(Shot(lambda: picture, 0.0, file), picture, inverted(1 - image), 1, 1, 0)


def test_a_folder_keeps_the_newest_and_touches_no_others(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "a.jpg").write_text("mine")
    with open_output(str(out), 2) as (place, write):
        for level in (0.2, 0.5, 0.8):
            write(shot(level, "a.jpg"))
        assert place.endswith("keeps the 2 newest")
    assert (out / "a.jpg").read_text() == "mine"
    levels = {path.name: read_picture(path).rgb.mean().item() for path in out.glob("a-*.jpg")}
    assert levels == {"a-3.jpg": pytest.approx(0.5, abs=0.01), "a-4.jpg": pytest.approx(0.8, abs=0.01)}
    with open_output(str(out), 9) as (_, write):
        write(shot(0.5))
    assert [path.name for path in out.iterdir() if re.fullmatch(r"\d{8}-\d{6}-\d{6}\.jpg", path.name)]
    with open_output(str(tmp_path / "all"), None) as (place, write):
        for level in (0.2, 0.5, 0.8):
            write(shot(level, "a.jpg"))
        assert place.endswith("keeps all")
    assert len(list((tmp_path / "all").iterdir())) == 3
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(OSError, match="is no folder"), open_output(str(tmp_path / "file"), 1):
        pass


def test_what_was_made_of_half_a_file_gives_way_to_the_whole(tmp_path: Path) -> None:
    half = replace(shot(0.2, "a.jpg"), picture=Picture(torch.full((3, 24, 32), 0.2), format="jpeg", notes=(CUT,)))
    with open_output(str(tmp_path), None) as (_, write):
        for one in (half, half, shot(0.5, "a.jpg"), shot(0.8, "a.jpg")):
            write(one)
    levels = {path.name: read_picture(path).rgb.mean().item() for path in tmp_path.iterdir()}
    assert levels == {"a.jpg": pytest.approx(0.5, abs=0.01), "a-2.jpg": pytest.approx(0.8, abs=0.01)}


def test_several_viewers_see_the_newest_and_a_stalled_one_stops_nobody() -> None:
    with open_output("http://127.0.0.1:0", 1) as (place, write):
        host, port = "127.0.0.1", int(place.rpartition(":")[2])
        assert "<img" in httpx.get(f"{place}/").text
        assert "<img" in httpx.get(f"{place}/?new=1").text
        assert httpx.get(f"{place}/secret").status_code == httpx.get(f"{place}/secret?/").status_code == 404
        assert httpx.get(f"{place}/stream.mjpg", headers={"Host": "evil.example"}).status_code == 421
        with contextlib.ExitStack() as stack:
            viewers = [stack.enter_context(socket.create_connection((host, port))) for _ in range(VIEWERS)]
            for viewer in viewers:
                viewer.sendall(b"GET /stream.mjpg HTTP/1.0\r\nHost: localhost\r\n\r\n")
            write(shot(0.1))
            heads = [viewer.recv(4096) for viewer in viewers]
            assert all(b"multipart/x-mixed-replace" in head for head in heads)
            assert httpx.get(f"{place}/stream.mjpg").status_code == 503
            for number in range(300):  # the sockets of viewers who take nothing fill up
                write(shot(number / 300))
            start = time.monotonic()
            write(shot(0.75))
            assert time.monotonic() - start < 0.5
        stop = threading.Event()

        def more() -> None:
            while not stop.wait(0.02):
                write(shot(0.75))

        feeding = threading.Thread(target=more, daemon=True)
        feeding.start()
        found = None
        while found is None:  # until it is seen that those went away
            source = find_source(f"{place}/stream.mjpg?new=1")
            with contextlib.suppress(PictureError), reading(source, print) as latest:
                found = latest.after(0)
        stop.set()
        feeding.join()
        assert found[1].picture().rgb.mean().item() == pytest.approx(0.75, abs=0.02)
        with pytest.raises(PictureError, match="cannot be listened on"), open_output(place, 1):
            pass
    with pytest.raises(PictureError, match="this machine only"), open_output("http://u:secret@0.0.0.0:1", 1) as _:
        pass


# Keeps what is published to it and gives it to who asks, again and again; the first one it leaves half-way. Prints its
# port, and what it was asked. A process of its own: PyAV keeps Python's lock while it connects.
RTSP_SERVER = r"""
import itertools, socket, struct, time
listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)
described, packets = "", []
for visit in itertools.count():
    connection, _ = listener.accept()
    file, asked = connection.makefile("rb"), []
    try:
        while "PLAY" not in asked and (first := file.read(1)):
            if first == b"$":  # a packet amid the requests: channel, length, data
                channel, data = file.read(1), file.read(int.from_bytes(file.read(2), "big"))
                packets += [data] * (channel == b"\0")
                continue
            lines = [(first + file.readline()).decode().strip()]
            while line := file.readline().decode().strip():
                lines.append(line)
            fields = dict(line.split(": ", 1) for line in lines[1:])
            asked.append(lines[0].split()[0])
            described = file.read(int(fields.get("Content-Length", 0))).decode() or described
            answer = f"RTSP/1.0 200 OK\r\nCSeq: {fields['CSeq']}\r\nSession: 1\r\n"
            if "Transport" in fields:
                answer += f"Transport: {fields['Transport']}\r\n"
            if asked[-1] == "DESCRIBE":
                answer += f"Content-Type: application/sdp\r\nContent-Length: {len(described)}\r\n\r\n{described}"
            connection.sendall((answer + "\r\n" * (asked[-1] != "DESCRIBE")).encode())
    except OSError:  # it hung up before the last answer
        pass
    print(*[word for word in asked if word != "OPTIONS"], len({data[4:8] for data in packets}), flush=True)
    try:
        for sent in range(40 if visit == 1 else 10**6) if "PLAY" in asked else ():
            data, turn = packets[sent % len(packets)], sent // len(packets)
            (when,) = struct.unpack_from(">I", data, 4)
            data = data[:2] + struct.pack(">HI", sent % 65536, (when + turn * 90_000) % 2**32) + data[8:]
            connection.sendall(b"$\0" + struct.pack(">H", len(data)) + data)
            time.sleep(0.01)
    except OSError:
        pass
    file.close()
    connection.close()
"""


def test_rtsp_out_and_in_also_when_the_camera_hung_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "FIRST_PAUSE", 0.05)
    said, seen = list[str](), list[float]()
    with subprocess.Popen([sys.executable, "-c", RTSP_SERVER], stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout
        address = f"rtsp://me:secret@127.0.0.1:{int(server.stdout.readline())}/clear"
        try:
            with open_output(address, 1) as (_, write):
                for _ in range(10):
                    write(shot(0.5))
            with reading(find_source(address), said.append) as latest:
                for done in restore_stream(inverted, latest, tell=said.append):
                    seen.append(done.picture.rgb.mean().item())
                    if said and len(seen) > 20:
                        break
        finally:
            server.kill()
        assert server.stdout.read() == "ANNOUNCE SETUP RECORD TEARDOWN 10\n" + 2 * "DESCRIBE SETUP PLAY 10\n"
    assert seen == [pytest.approx(0.5, abs=0.02)] * len(seen)
    assert "trying again" in said[0]
    with (
        pytest.raises(PictureError, match="no RTSP server") as refused,
        open_output(address, 1) as (_, write),
    ):
        write(shot(0.5))
    assert "secret" not in "".join([*said, str(refused.value)])


def test_viewers_who_leave_while_nothing_comes_leave_their_places(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "_AWAKE", 0.1)
    with open_output("http://127.0.0.1:0", 1) as (place, _):
        port = int(place.rpartition(":")[2])
        for _ in range(VIEWERS):
            with socket.create_connection(("127.0.0.1", port)) as viewer:
                viewer.sendall(b"GET /stream.mjpg HTTP/1.0\r\nHost: localhost\r\n\r\n")
                assert b"multipart" in viewer.recv(4096)
        for _ in range(100):
            with httpx.stream("GET", f"{place}/stream.mjpg") as answer:
                if answer.status_code == 200:
                    return
            time.sleep(0.05)
        pytest.fail("all places stay taken")
