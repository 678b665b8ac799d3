"""A video that was stopped, however, goes on where it was, and becomes the same file as without the stop."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from torch import Tensor
from typer.testing import CliRunner

from mofme.cli.app import app
from mofme.errors import PictureError
from mofme.vision import video_writer
from mofme.vision.batch import BatchSettings, restore_file
from mofme.vision.restorer import Restoration, Restorer, TemporalSmoother
from mofme.vision.video import restore_video
from mofme.vision.video_segments import Checkpoint, Segment, Segments
from mofme.vision.video_writer import decoding_times
from tests.films import as_it_is, each_once, film, frames_in
from tests.vision.tiny_models import save_two_models

SEGMENT = 6  # frames, instead of many
FRAMES = 2 * SEGMENT + 4


@pytest.fixture(autouse=True)
def short_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(video_writer, "SEGMENT_FRAMES", SEGMENT)


class Restores:
    """Darkens by a mean over the frames so far, and counts them."""

    def __init__(self, version: str = "one", amount: float = 0.9) -> None:
        self.version, self.amount, self.count = version, amount, 0

    def __call__(self, image: Tensor, *, steady: TemporalSmoother, strength: float = 1, **_: object) -> Restoration:
        steady.see(image[:, ::8, ::8])
        light = steady.mean("light", image.mean()) * self.amount * strength
        self.count += 1
        weather = "rain" if image[0, 12, 30] > 0.7 else "haze"
        return Restoration(image * light, {weather: 0.9}, torch.full((2, 2), float(image.mean())), (), 0.0)


def work_until(stop: int, source: Path, output: Path, restores: Callable[..., Restoration]) -> None:
    frames = restore_video(restores, source, output)
    for frame in frames:
        if frame.number == stop:
            break
    frames.close()


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    times = [number if number < 7 else 2 * number for number in range(FRAMES)]  # and a gap between two segments
    return film(tmp_path_factory.mktemp("film") / "a.mp4", FRAMES, (80, 32), times=times, sound="aac")


@each_once("stop, suffix", [(SEGMENT + 3,), (3,), (SEGMENT,), (FRAMES,)], [".mp4", ".mkv", ".mov", ".webm"])
def test_it_goes_on_and_becomes_the_same(tmp_path, source, stop, suffix):
    undisturbed, stopped = tmp_path / f"undisturbed{suffix}", tmp_path / f"stopped{suffix}"
    expected = restore_file(Restores(), source, undisturbed)
    work_until(stop, source, stopped, Restores())
    assert not stopped.exists()
    again = Restores()
    report = restore_file(again, source, stopped)
    # What is lost is the segment that was being worked on, and the last frames of the one before if it was not written.
    assert again.count <= FRAMES - (max(stop - 2, 0) // SEGMENT) * SEGMENT
    with av.open(undisturbed) as one, av.open(stopped) as other:
        packets = [[(p.pts, p.dts, bytes(p)) for p in each.demux()] for each in (one, other)]
    assert packets[0] == packets[1]
    assert (report.weather, report.width, report.note) == (expected.weather, expected.width, expected.note)
    assert report.uncertainty == pytest.approx(expected.uncertainty)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([undisturbed.name, stopped.name])


def test_by_another_runtime_it_becomes_the_same_as_well(tmp_path, source):
    model = str(save_two_models(tmp_path / "models")[1])
    undisturbed, stopped = tmp_path / "undisturbed.mp4", tmp_path / "stopped.mp4"
    restorer = Restorer.from_pretrained(model, "cpu", "openvino")
    assert restore_file(restorer, source, undisturbed).error == ""
    work_until(SEGMENT + 3, source, stopped, restorer)
    assert list((tmp_path / ".stopped.mp4.mofme-segments").glob("*.safetensors"))
    assert restore_file(Restorer.from_pretrained(model, "cpu", "openvino"), source, stopped).error == ""
    assert stopped.read_bytes() == undisturbed.read_bytes()


@pytest.mark.parametrize(
    ("changed", "restores", "settings"),
    [
        ("the model", Restores("another", 0.5), {}),
        ("a setting", Restores(), {"strength": 0.5}),
        ("the source", Restores(), {}),
    ],
)
def test_what_was_made_of_something_else_is_not_taken_up(tmp_path, source, changed, restores, settings):
    own = tmp_path / "a.mp4"
    own.write_bytes(source.read_bytes())
    work_until(FRAMES, own, tmp_path / "b.mp4", Restores())
    if changed == "the source":
        os.utime(own, ns=(0, 0))
    restores.count = 0
    assert restore_file(restores, own, tmp_path / "b.mp4", BatchSettings(**settings)).error == ""
    assert restores.count == FRAMES


def test_two_runs_at_once_keep_out_of_each_others_way(tmp_path, source):
    frames = restore_video(Restores(), source, tmp_path / "b.mp4")
    for _ in range(SEGMENT + 3):
        next(frames)
    for second in (Restores(), Restores("another")):
        report = restore_file(second, source, tmp_path / "b.mp4")
        assert "another run is restoring this video" in report.error and second.count == 0
    for _ in frames:
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["b.mp4"]


def test_a_damaged_segment_is_made_again(tmp_path, source):
    work_until(FRAMES, source, tmp_path / "b.mp4", Restores())
    _, second = sorted((tmp_path / ".b.mp4.mofme-segments").glob("*.safetensors"))
    second.write_bytes(second.read_bytes()[:100])
    again = Restores()
    assert restore_file(again, source, tmp_path / "b.mp4").error == ""
    assert again.count == FRAMES - SEGMENT


def test_where_the_model_does_not_say_which_it_is_nothing_is_kept(tmp_path, source):
    work_until(SEGMENT + 3, source, tmp_path / "b.mp4", as_it_is)
    assert not list(tmp_path.iterdir())


def test_the_command_goes_on_after_it_was_stopped(tmp_path):
    source, output = film(tmp_path / "a.mp4", FRAMES, (80, 32)), tmp_path / "b.mp4"
    code = (
        "import signal, sys\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # in the background a shell has it ignored
        "from mofme.vision import video_writer\n"
        f"video_writer.SEGMENT_FRAMES = {SEGMENT}\n"
        "from mofme.cli.app import app\n"
        "app(sys.argv[1:])"
    )
    words = ["restore", str(source), str(output), "--device", "cpu", "--runtime", "torch"]
    running = subprocess.Popen([sys.executable, "-c", code, *words], stderr=subprocess.PIPE, text=True)
    segments, until = tmp_path / ".b.mp4.mofme-segments", time.monotonic() + 120
    while not list(segments.glob("*.safetensors")) and running.poll() is None and time.monotonic() < until:
        time.sleep(0.002)
    running.send_signal(signal.SIGINT)
    _, told = running.communicate(timeout=60)
    assert running.returncode == 130 and not output.exists() and list(segments.glob("*.safetensors"))
    assert "start again to go on" in told
    assert CliRunner().invoke(app, words).exit_code == 0
    assert len(frames_in(output)) == FRAMES
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.mp4", "b.mp4"]


def test_times_of_decoding_by_hand():
    # Shown in the order 0 1 2 3, decoded as 0 3 1 2: one is always decoded two places after where it would be shown at
    # once (1 stands third), so decoding begins one step early.
    assert decoding_times([0, 30, 10, 20], 10) == [-10, 0, 10, 20]
    assert decoding_times([0, 10, 20], 10) == [0, 10, 20]
    assert decoding_times([], 10) == []


@pytest.mark.skipif(os.name == "nt", reason="names there may be longer than paths")
def test_a_name_as_long_as_may_be(tmp_path):
    output = tmp_path / ("x" * 251 + ".mp4")
    assert restore_file(as_it_is, film(tmp_path / "a.mp4"), output).error == ""
    assert {path.name for path in tmp_path.iterdir()} == {"a.mp4", output.name}


def test_what_another_run_began_meanwhile_stays(tmp_path, monkeypatch):
    identity, output = {"source": "one"}, tmp_path / "b.mp4"
    first = Segments(output, identity)
    first.clear()  # its film is whole
    second = Segments(output, identity)
    second.add(Segment(b"?", np.array([[1, 0, 0, 1]]), Checkpoint()))
    first.close()
    second.close()
    again = Segments(output, identity)
    again.close()
    assert again.checkpoint is not None

    third = Segments(tmp_path / "c.mp4", None)
    remove = shutil.rmtree

    def meanwhile(folder, **how):
        with pytest.raises(PictureError, match="another run"):
            Segments(tmp_path / "c.mp4", identity)
        remove(folder, **how)

    monkeypatch.setattr(shutil, "rmtree", meanwhile)
    third.close()
    assert not third.folder.exists()
