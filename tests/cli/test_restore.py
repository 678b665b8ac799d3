import csv
import json
import os
import re
import signal
import subprocess
import sys
import time

import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from mofme.cli.app import app
from mofme.errors import ModelError
from mofme.vision.restorer import Restoration, Restorer
from mofme.vision.video_file import read_video
from tests.films import film

ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}


class Inverter:
    def __init__(self):
        self.settings = []

    def __call__(self, image, *, strength=1.0, ensemble=False, tile=None, steady=None, on_progress=None):
        self.settings.append((strength, ensemble, tile))
        if on_progress:
            on_progress(0.5)
        weather = dict.fromkeys(("rain", "snow", "raindrop"), 0.0) | {"haze": 0.75}
        return Restoration(1 - image, weather, torch.zeros(1, 1), (), 0.0)


@pytest.fixture
def restorer(monkeypatch):
    fake = Inverter()
    fake.loaded = []
    monkeypatch.setattr(Restorer, "from_pretrained", lambda *names: fake.loaded.append(names) or fake)
    return fake


def run(*arguments):
    return CliRunner().invoke(app, ["restore", *map(str, arguments)])


def picture(path, colour=(10, 20, 30), mode="RGB"):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, (6, 4), colour).save(path)
    return path


def test_a_folder_with_a_broken_picture(tmp_path, restorer):
    picture(tmp_path / "in/a.png")
    picture(tmp_path / "in/sub/b.png")
    (tmp_path / "in/c [red].png").write_bytes(b"broken")
    result = run(tmp_path / "in", tmp_path / "out")
    assert result.exit_code == 1
    assert "c [red].png" in result.stderr and "2 restored, 1 failed, 0 skipped" in result.stderr
    assert result.stdout == ""
    assert sorted(path.name for path in (tmp_path / "out").rglob("*.png")) == ["a.png", "b.png"]
    with (tmp_path / "out/report.csv").open(encoding="utf-8", newline="") as file:
        rows = {row["file"]: row for row in csv.DictReader(file)}
    assert set(rows) == {"a.png", "c [red].png", "sub/b.png"}
    assert rows["a.png"]["size"] == "6x4" and rows["a.png"]["weather"] == "haze"


def test_json_is_one_document_on_stdout(tmp_path, restorer):
    picture(tmp_path / "in/a.png")
    picture(tmp_path / "in/b.png")
    picture(tmp_path / "out/b.png")
    result = run(tmp_path / "in", tmp_path / "out", "--json")
    assert result.exit_code == 0
    document = json.loads(result.stdout)
    assert [document[name] for name in ("restored", "failed", "skipped", "interrupted")] == [1, 0, 1, False]
    told = [(file["file"], file["weather"], file["skipped"]) for file in document["files"]]
    assert told == [("a.png", "haze", False), ("b.png", "", True)]


def test_the_options_reach_the_restorer(tmp_path, restorer):
    picture(tmp_path / "in/a.png")
    options = "--model base --device cpu --tile 256 --runtime openvino --strength 0.5 --ensemble --format jpg"
    assert run(tmp_path / "in", tmp_path / "out", *options.split()).exit_code == 0
    assert restorer.loaded == [("base", "cpu", "openvino")] and restorer.settings == [(0.5, True, 256)]
    with Image.open(tmp_path / "out/a.jpg") as image:
        assert image.format == "JPEG"


@pytest.mark.parametrize(
    ("output", "options", "expected", "kind"),
    [
        ("deep/new.webp", [], "deep/new.webp", "WEBP"),
        ("folder", [], "folder/a.tif", "TIFF"),
        ("new/out", [], "new/out/a.tif", "TIFF"),
        ("folder", ["--format", "png"], "folder/a.png", "PNG"),
        ("folder", ["--format", "tiff"], "folder/a.tif", "TIFF"),
        ("new", ["--format", "jpg"], "new", "JPEG"),
    ],
)
def test_one_picture(tmp_path, restorer, output, options, expected, kind):
    (tmp_path / "folder").mkdir()
    result = run(picture(tmp_path / "a.tif"), tmp_path / output, *options)
    assert result.exit_code == 0, result.stderr
    with Image.open(tmp_path / expected) as image:
        assert image.format == kind
    assert not list(tmp_path.rglob("report.csv"))


def test_one_mislabelled_picture_keeps_its_format_under_its_suffix(tmp_path, restorer):
    Image.new("RGBA", (3, 3)).save(tmp_path / "a.jpg", format="PNG")
    assert run(tmp_path / "a.jpg", tmp_path / "b.jpg").exit_code == 0
    with Image.open(tmp_path / "b.jpg") as image:
        assert image.format == "PNG"


def test_an_existing_output_needs_overwrite_and_no_picture_replaces_itself(tmp_path, restorer):
    source, other = picture(tmp_path / "in/a.png"), picture(tmp_path / "b.png", (0, 0, 0))
    before = other.read_bytes()
    result = run(source, other)
    assert result.exit_code == 2 and "--overwrite" in result.stderr and other.read_bytes() == before
    assert run(source, other, "--overwrite").exit_code == 0
    with Image.open(other) as image:
        assert image.getpixel((0, 0)) == (245, 235, 225)
    for target in (source, source.parent):
        result = run(source, target, "--overwrite")
        assert result.exit_code == 2 and "would replace" in result.stderr
    result = run(source.parent, source.parent, "--overwrite")
    assert result.exit_code == 2 and "another folder" in result.stderr


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (["restore", "", "out"], "INPUT"),
        (["stream", ""], "SOURCE"),
        (["stream", "0", "--out", ""], "--out"),
        (["restore", "a.png", ""], "OUTPUT"),
        (["restore", "a.png", "b.png", "--references", ""], "--references"),
        (["synthesize", "a.png", "", "--weather", "rain"], "out"),
        (["evaluate", "restoration", "a.png", "--out", ""], "--out"),
        (["evaluate", "restoration", "a.png", ""], "evaluate restoration"),
    ],
)
def test_an_empty_name_is_not_this_folder(tmp_path, monkeypatch, restorer, words, name):
    monkeypatch.chdir(tmp_path)
    picture(tmp_path / "a.png")
    result = CliRunner().invoke(app, words)
    said = " ".join(result.stderr.replace("│", " ").split())
    assert result.exit_code == 2 and "write . for the folder you are in" in said and name in said
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"] and restorer.loaded == []


def test_links_that_lead_to_themselves(tmp_path, restorer):
    for name in ("in/self.png", "out/a.png", "out/sub", "one.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).symlink_to((tmp_path / name).name)
    result = run(tmp_path / "one.png", tmp_path / "b.png")
    assert result.exit_code == 2 and "not exist" in result.stderr
    source = picture(tmp_path / "in/a.png")
    picture(tmp_path / "in/sub/b.png")
    result = run(tmp_path / "in", tmp_path / "out")
    assert "1 restored, 1 failed" in result.stderr and "sub is no folder" in result.stderr
    assert "links and pipes without a file (self.png)" in result.stderr
    assert not (tmp_path / "out/a.png").is_symlink() and source.is_file()


@pytest.mark.parametrize(
    "options", [["--strength", "1.5"], ["--strength", "-0.1"], ["--tile", "1"], ["--format", "gif"], ["--nonsense"]]
)
def test_usage_errors_exit_with_2_before_a_model_is_loaded(tmp_path, restorer, options):
    picture(tmp_path / "in/a.png")
    for source, target in ((tmp_path / "in", tmp_path / "out"), (tmp_path / "in/a.png", tmp_path / "out.png")):
        assert run(source, target, *options).exit_code == 2
    assert restorer.loaded == [] and not (tmp_path / "out").exists()
    for source in ("in", "in/a.png"):  # what may be chosen is named as it is typed
        result = run(tmp_path / source, tmp_path / "out.png", "--format", "gif")
        assert "choose one of jpg, jpeg, jpe, jfif, png," in result.stderr
    result = run(tmp_path / "in/a.png", tmp_path / "out.xyz")
    assert result.exit_code == 2 and "no format" in result.stderr
    (tmp_path / "empty").mkdir()
    result = run(tmp_path / "empty", tmp_path / "out")
    assert result.exit_code == 2 and "no pictures or videos found" in result.stderr


def test_a_video(tmp_path, restorer):
    source = film(tmp_path / "a.mp4")
    result = run(source, tmp_path / "b.mkv", "--json")
    assert result.exit_code == 0
    (report,) = json.loads(result.stdout)["files"]
    assert (report["width"], report["height"], report["weather"]) == (64, 48, "haze")
    with read_video(tmp_path / "b.mkv") as video:
        inverted = next(iter(video)).image
    # The ramp from 40 to 200 is at 40 + 160 * 60 / 63 = 192 there.
    assert inverted[:, 40, 60].mean().item() == pytest.approx(1 - 192 / 255, abs=0.02)
    assert run(source, tmp_path / "b.mkv").exit_code == 2
    again = run(source, tmp_path / "b.mkv", "--overwrite")
    assert again.exit_code == 0 and "1 restored" in again.stderr
    assert run(source, tmp_path / "folder").exit_code == 0 and (tmp_path / "folder/a.mp4").is_file()
    itself = run(source, source, "--overwrite")
    assert itself.exit_code == 2 and "would replace the original" in itself.stderr
    source = film(tmp_path / "a.avi", codec="mpeg4")  # which is only read
    assert run(source, tmp_path / "out").exit_code == 0
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["a.mp4"]
    result = run(source, tmp_path / "b.avi")
    assert result.exit_code == 2 and "no video has this suffix; end the name in .mp4" in result.stderr


@pytest.mark.parametrize("error", [ModelError("no model is called 'x'"), RuntimeError("no such device")])
def test_a_model_or_device_that_cannot_be_used(tmp_path, monkeypatch, error):
    def fail(*names):
        raise error

    monkeypatch.setattr(Restorer, "from_pretrained", fail)
    result = run(picture(tmp_path / "a.png"), tmp_path / "b.png", "--model", "x")
    assert result.exit_code == 2 and str(error) in result.stderr


INTERRUPTED = """
import signal, sys, time, torch
signal.signal(signal.SIGINT, signal.default_int_handler)  # what a shell starts in the background ignores it
from mofme.vision.restorer import Restoration, Restorer
from mofme.cli.app import app

class Slow:
    done = 0
    def __call__(self, image, **settings):
        self.done += 1
        time.sleep(0 if self.done < 4 else 300)  # until it is interrupted
        return Restoration(image, dict(rain=0.0), torch.zeros(1, 1), (), 0.2)

Restorer.from_pretrained = lambda *names: Slow()
app(["restore", *sys.argv[1:]])
"""


@pytest.mark.skipif(os.name == "nt", reason="Ctrl-C is sent differently")
def test_ctrl_c_keeps_what_is_done_and_the_next_run_goes_on(tmp_path, restorer):
    for number in range(20):
        picture(tmp_path / f"in/{number:02}.png")
    command = [sys.executable, "-c", INTERRUPTED, str(tmp_path / "in"), str(tmp_path / "out"), "--json"]
    with subprocess.Popen(
        command, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        deadline = time.monotonic() + 300
        while not (tmp_path / "out/02.png").exists():
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=200)
    assert process.returncode == 130 and "interrupted" in stderr and "Traceback" not in stderr
    document = json.loads(stdout)
    finished = sorted((tmp_path / "out").glob("*.png"))
    assert document["interrupted"] and 3 <= len(finished) < 20
    assert len((tmp_path / "out/report.csv").read_text().splitlines()) == 1 + document["restored"]
    assert not list((tmp_path / "out").glob(".*"))

    assert run(tmp_path / "in", tmp_path / "out").exit_code == 0
    assert len(restorer.settings) == 20 - len(finished)


def test_a_foreign_report_file_is_told_before_the_work(tmp_path, restorer):
    picture(tmp_path / "in/a.png")
    (tmp_path / "out").mkdir()
    (tmp_path / "out/report.csv").write_text("quarter,sales\n1,2\n")
    result = run(tmp_path / "in", tmp_path / "out")
    assert result.exit_code == 2 and "report.csv: is no report" in " ".join(result.stderr.split())
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["report.csv"]
    assert (tmp_path / "out/report.csv").read_text() == "quarter,sales\n1,2\n"


def test_outputs_of_other_settings_are_named(tmp_path, restorer):
    for number in range(7):
        picture(tmp_path / f"in/{number}.png")
    assert run(tmp_path / "in", tmp_path / "out").exit_code == 0
    result = run(tmp_path / "in", tmp_path / "out", "--strength", "0.5")
    said = " ".join(result.stderr.split())
    assert result.exit_code == 0 and "7 skipped" in said
    assert "note: made with other settings (Inverter, strength 1); --overwrite makes it anew: 0.png, 1.png" in said
    assert "4.png and 2 more" in said


@pytest.mark.skipif(os.name == "nt", reason="no such names")
def test_names_are_printed_without_their_codes_and_once(tmp_path, restorer):
    (tmp_path / "in").mkdir()
    (tmp_path / "in/\x1b[2Jx [red].jpg").write_bytes(b"broken")
    (tmp_path / "out").mkdir()
    (tmp_path / f"out/.mofme-999999999-{'a' * 32}.part").touch()
    result = run(tmp_path / "in", tmp_path / "out")
    assert result.exit_code == 1 and "\x1b[2J" not in result.stderr
    assert result.stderr.count("x [red].jpg") == 1
    assert "\x1b[2J" not in run(tmp_path / "not there\x1b[2J.jpg", tmp_path / "out").stderr
    assert not list((tmp_path / "out").glob(".*"))


@pytest.mark.skipif(os.name == "nt", reason="drives have letters")
def test_a_file_address_is_a_path(tmp_path, restorer):
    picture(tmp_path / "my photos/a.png")
    os.utime(tmp_path / "my photos/a.png", (1e9, 1e9))
    result = run(f"file://{tmp_path}/my%20photos", f"file://{tmp_path}/out")
    assert result.exit_code == 0, result.stderr
    assert (tmp_path / "out/a.png").stat().st_mtime == 1e9 and (tmp_path / "out/report.csv").is_file()


@pytest.mark.parametrize("words", [("--workers", 8), ("--address", "auto"), ("--gpus-per-worker", 0.5)])
def test_options_of_a_cluster_need_one(tmp_path, restorer, words):
    picture(tmp_path / "in/a.png")
    result = run(tmp_path / "in", tmp_path / "out", *words)
    assert result.exit_code == 2 and "engine ray" in re.sub(r"\W+", " ", result.stderr) and not restorer.loaded
