"""Videos: what a player needs must survive, what is broken or hostile must not do harm, and nothing may flicker."""

import re
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from torch import Tensor

from mofme.errors import PictureError, PictureTooLargeError
from mofme.vision.batch import restore_file, restore_tree
from mofme.vision.report import plan_tree
from mofme.vision.restorer import Restoration
from mofme.vision.video import read_ahead, restore_video
from mofme.vision.video_file import Frame, read_video
from mofme.vision.video_segments import Checkpoint
from mofme.vision.video_writer import VideoWriter, write_video
from tests.films import copied, each_once, film, frames_in, images


def as_it_is(image: Tensor, **_: object) -> Restoration:
    return Restoration(image, {"rain": 0.9, "haze": 0.1}, torch.full((6, 8), 0.25), (), 0.0)


def restored(source: Path, output: Path) -> Path:
    for _ in restore_video(as_it_is, source, output):
        pass
    return output


def psnr(one: Tensor, other: Tensor) -> float:
    return float(-10 * torch.log10((one - other).square().mean()))


def test_uneven_times_and_metadata_stay(tmp_path):
    times = [0, 1, 5, 6, 7, 20, 21, 22]
    plain = film(tmp_path / "plain.mkv", times=times)
    source = copied(plain, tmp_path / "a.mkv", lambda to, _: to.metadata.update(title="Søndre gate i regn"))
    output = restored(source, tmp_path / "b.mkv")
    assert [round(frame.time * 10) for frame in frames_in(output)] == times
    with av.open(output) as container:
        assert container.metadata["title"] == "Søndre gate i regn"


@pytest.mark.parametrize("suffix", [".mov", ".mp4", ".mkv"])
def test_what_a_phone_says_of_place_time_and_device_stays(tmp_path, suffix):
    words = {
        "com.apple.quicktime.location.ISO6709": "+48.1370+011.5750/",
        "com.apple.quicktime.creationdate": "2026-05-05T10:00:00+0200",
        "com.android.version": "17",
        "make": "Apple",
        "title": "Rain",
    }
    plain = film(tmp_path / "plain.mov", frames=2)
    options = {"movflags": "use_metadata_tags"}
    source = copied(plain, tmp_path / "a.mov", lambda to, _: to.metadata.update(words), **options)
    with av.open(restored(source, tmp_path / f"b{suffix}")) as container:
        kept = {key.lower(): value for key, value in container.metadata.items()}
    assert {key.lower(): value for key, value in words.items()}.items() <= kept.items()


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv", ".webm"])
def test_frames_survive_and_the_last_is_shown_as_long_as_it_was(tmp_path, suffix):
    """As those of a screen that was recorded, which come when something moves."""

    def lasting(packet: av.Packet) -> av.Packet:
        packet.duration = 3000 if packet.pts == 900 else 1  # milliseconds
        return packet

    even = film(tmp_path / "even.mkv", frames=4, times=[0, 1, 5, 9])
    source = copied(even, tmp_path / "a.mkv", change=lasting)
    output = restored(source, tmp_path / f"b{suffix}")
    # A wrong matrix or range would move the red square or the ramp by several per cent: below 30 dB.
    assert psnr(images(source), images(output)) > 35
    with av.open(output) as container:
        last = max((packet for packet in container.demux() if packet.size), key=lambda packet: packet.pts)
        assert [round(float(one * last.time_base), 2) for one in (last.pts, last.duration)] == [0.9, 3.0]
        if suffix in (".mkv", ".webm"):
            assert round(container.duration / av.time_base, 1) == 3.9


@each_once(
    "source, sound, heard, suffix",
    [("a.mp4", "aac", "aac"), ("a.mkv", "pcm_u8", "aac"), ("a.mp4", None, None)],  # copied, not held by MP4, none
    [".mp4", ".webm"],
)
def test_the_sound_goes_along(tmp_path, source, sound, heard, suffix):
    place = restored(film(tmp_path / source, frames=20, sound=sound), tmp_path / f"b{suffix}")
    heard = "opus" if suffix == ".webm" else heard
    with av.open(place) as container:
        assert [stream.codec_context.name for stream in container.streams.audio] == ([heard] if heard else [])
        if not heard:
            return
        samples = np.concatenate([frame.to_ndarray()[0] for frame in container.decode(audio=0)]).astype(float)
        rate = container.streams.audio[0].rate
    # 2 s of 440 Hz: encoders add a fraction of a frame of silence at either end.
    assert len(samples) / rate == pytest.approx(2, abs=0.1)
    spectrum = np.abs(np.fft.rfft(samples))
    assert np.fft.rfftfreq(len(samples), 1 / rate)[spectrum.argmax()] == pytest.approx(440, abs=2)


def test_a_turned_video_comes_out_upright(tmp_path):
    upright = images(film(tmp_path / "upright.mp4"))
    turned = film(tmp_path / "turned.mp4", turned=90)
    seen = images(turned)
    # A display turned by 90 degrees counter-clockwise shows the walking square going up.
    torch.testing.assert_close(seen, torch.rot90(upright, 1, dims=(-2, -1)), atol=0.02, rtol=0)
    output = restored(turned, tmp_path / "b.mp4")
    assert frames_in(output)[0].rotation == 0
    assert psnr(images(output), seen) > 35


def test_enough_ends_it_with_a_shorter_video(tmp_path):
    asked: Iterator[bool] = iter([False, False, True])
    source = film(tmp_path / "a.mp4", sound="aac")
    told = list(restore_video(as_it_is, str(source), str(tmp_path / "b.mp4"), enough=lambda: next(asked)))
    assert len(told) == len(images(tmp_path / "b.mp4")) == 3
    with av.open(tmp_path / "b.mp4") as container:
        assert container.duration / av.time_base < 0.5  # the sound ends with the pictures


def test_stopped_half_way_or_failing_it_leaves_nothing(tmp_path):
    def fails_late(image: Tensor, **_: object) -> Restoration:
        if next(numbers) == 3:
            raise RuntimeError("out of memory")
        return as_it_is(image)

    source, threads, numbers = film(tmp_path / "a.mp4"), threading.active_count(), iter(range(8))
    work = restore_video(as_it_is, source, tmp_path / "b.mp4")
    next(work)
    work.close()
    with pytest.raises(RuntimeError, match="out of memory"):
        list(restore_video(fails_late, source, tmp_path / "c.mp4"))
    assert [path.name for path in tmp_path.iterdir()] == ["a.mp4"]
    assert threading.active_count() == threads


def test_frames_are_read_one_ahead_and_written_one_behind(tmp_path, monkeypatch):
    restoring = [threading.Event() for _ in range(9)]
    numbers, written = iter(range(8)), []

    def write(self: VideoWriter, image: Tensor, frame: Frame, checkpoint: Checkpoint) -> None:
        assert len(written) == 7 or restoring[len(written) + 1].wait(30)
        written.append(frame.pts)
        original(self, image, frame, checkpoint)

    def watching(image: Tensor, **_: object) -> Restoration:
        number = next(numbers)
        restoring[number].set()
        assert len(written) >= number - 1
        return as_it_is(image)

    original = VideoWriter.write
    monkeypatch.setattr(VideoWriter, "write", write)
    told = list(restore_video(watching, film(tmp_path / "a.mp4"), tmp_path / "b.mp4"))
    assert len(told) == len(images(tmp_path / "b.mp4")) == 8 and written == sorted(written)


def test_what_is_made_ahead_comes_in_order_and_fails_in_its_place():
    made, got = [], []

    def items() -> Iterator[int]:
        for number in range(1, 4):
            made.append(number)
            yield number
        raise OSError("no more")

    with pytest.raises(OSError, match="no more"):
        for number in read_ahead(items()):
            assert len(made) <= number + 1
            got.append(number)
    assert got == [1, 2, 3]


@pytest.mark.parametrize(
    "content",
    [
        "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\n{0}\n#EXT-X-ENDLIST\n",
        "ffconcat version 1.0\nfile {0}\n",
        "no video at all",
        "",
    ],
)
def test_no_video_is_said_so_and_a_playlist_opens_no_other_file(tmp_path, content):
    hostile = tmp_path / "a.mp4"
    hostile.write_text(content.format(film(tmp_path / "secret.mp4")))
    why = "" if content else " (it is empty)"
    with pytest.raises(PictureError, match=re.escape(f"{hostile}: cannot be read as a video{why}")):
        restored(hostile, tmp_path / "b.mp4")
    assert not (tmp_path / "b.mp4").exists()


def test_what_cannot_be_begun_is_said(tmp_path):
    source = film(tmp_path / "a.mp4")
    with pytest.raises(PictureError, match=r"no video is written with this suffix; choose one of \.mp4"):
        restored(source, tmp_path / "b.avi")
    with pytest.raises(PictureTooLargeError, match=r"64 x 48 pixels are more than the limit of 0\.003 megapixels"):
        list(restore_video(as_it_is, source, tmp_path / "b.mp4", max_megapixels=0.003))
    with av.open(tmp_path / "none.mkv", "w") as container:
        stream = container.add_stream("libx264", 10)
        stream.width, stream.height = 64, 48
        container.start_encoding()
    with pytest.raises(PictureError, match="cannot be read as a video"):
        restored(tmp_path / "none.mkv", tmp_path / "b.mp4")


# The second is found after the last frame that can be read.
@pytest.mark.parametrize(("broken", "readable"), [(5, 7), (6, 6)])
def test_damaged_parts_are_told_and_the_rest_is_restored(tmp_path, broken, readable):
    numbers = iter(range(8))

    def damaged(packet: av.Packet) -> av.Packet:
        if next(numbers) != broken:
            return packet
        junk = av.Packet(b"\0\0\1\0")
        junk.pts, junk.dts, junk.time_base = packet.pts, packet.dts, packet.time_base
        return junk

    source = copied(film(tmp_path / "whole.mkv", codec="mpeg4"), tmp_path / "a.mkv", change=damaged)
    report = restore_file(as_it_is, source, tmp_path / "b.mkv")
    assert report.error == f"{source}: 1 of its parts could not be read and is missing in the result."
    assert len(images(tmp_path / "b.mkv")) == readable


def test_a_folder_may_hold_both(tmp_path):
    source, target = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    film(source / "regn ø.mp4")
    film(source / "old.avi", codec="mpeg4")
    (source / "broken.mov").write_bytes(b"nothing")
    shares: list[float] = []
    reports = list(restore_tree(as_it_is, source, target, on_progress=lambda path, done: shares.append(done)))
    assert [report.output for report in reports] == ["broken.mov", "old.mp4", "regn ø.mp4"]
    assert [bool(report.error) for report in reports] == [True, False, False]
    whole = reports[-1]
    assert (whole.file, whole.width, whole.height, whole.weather) == ("regn ø.mp4", 64, 48, "rain")
    assert whole.uncertainty == pytest.approx(0.25)
    assert shares[-8:] == [number / 8 for number in range(1, 9)]
    again = list(restore_tree(as_it_is, source, target))
    assert [report.skipped for report in again] == [False, True, True]


def test_videos_that_would_meet_get_names_of_their_own(tmp_path):
    for name in ("a.avi", "a.mp4", "a.wmv"):
        (tmp_path / name).touch()
    names = [output.name for _, output in plan_tree(tmp_path, tmp_path / "out", "png")]
    assert names == ["a.avi.mp4", "a.mp4", "a.wmv.mp4"]


def test_frames_without_times_come_at_the_rate_of_the_video(tmp_path):
    with read_video(film(tmp_path / "a.mp4")) as video, write_video(tmp_path / "b.mp4", video) as writer:
        for frame in video:
            writer.write(frame.image, replace(frame, pts=None))
        writer.finish(whole=True)
    assert np.diff([frame.time for frame in frames_in(tmp_path / "b.mp4")]) == pytest.approx([0.1] * 7)
