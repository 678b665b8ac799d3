import csv
import io
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from gradio.utils import get_upload_folder
from PIL import Image

from mofme.errors import Cancelled, MofmeError
from mofme.measure.result import load_result
from mofme.ui.limits import Limits
from mofme.ui.models import Engine
from mofme.ui.runs import Job
from mofme.ui.tabs.evaluate import Case, Measuring, _words, measure
from mofme.vision.label_sets import load_label_set
from mofme.vision.picture.file import read_picture
from mofme.vision.segmenter import Segmenter


def picture(path: Path, level: int = 100, size: tuple[int, int] = (48, 32)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (level,) * 3).save(path)
    return path


def zipped(path: Path, folder: Path, inside: str = "") -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.rglob("*")):
            archive.write(file, f"{inside}{file.relative_to(folder)}")
    return path


def run(
    engine: Engine, degraded: Sequence[Path], clean: Sequence[Path] = (), limits: Limits | None = None
) -> Measuring:
    *_, last = measure(engine, Job(60), degraded, clean, "small", "camvid", limits or Limits())
    return last


@pytest.fixture
def two(tmp_path: Path) -> list[Path]:
    return [picture(tmp_path / f"{name}.png") for name in "ab"]


def test_loose_files_are_matched_by_name_and_measured(engine: Engine, tmp_path: Path) -> None:
    # An untrained net leaves pictures as they are: 20 levels off before and after, 20 log10(255 / 20) = 22.11 dB.
    degraded = [picture(tmp_path / "in" / name, 120) for name in ("a.png", "b_rain.png", "c.png")]
    clean = [picture(tmp_path / "gt" / name, 100) for name in ("b_clean.png", "a.jpg")]
    state = run(engine, degraded, clean)
    assert [(case.name, round(case.before, 1)) for case in state.cases["pairs"]] == [
        ("a.png", 22.1),
        ("b_rain.png", 22.1),
    ]
    assert "target/ has no picture of this name" in state.errors["c.png"]
    assert (state.done, state.total) == (3, 3)
    assert state.result is not None and state.result.verdict
    assert len(state.plots()) == 2


def test_what_is_measured_when_the_time_is_up_comes_back_and_cancelling_stops(
    engine: Engine, two: list[Path], tmp_path: Path
) -> None:
    job, degraded = Job(60), [picture(tmp_path / "in" / path.name, 120) for path in two]
    states = measure(engine, job, degraded, two, "small", "camvid", Limits())
    next(states), next(states)
    job._deadline = 0.0
    *_, last = states
    assert list(last.errors) == ["b.png"]
    assert "longer than the limit of 60 s" in last.errors["b.png"]
    assert last.result is not None and last.archive is not None
    job = Job(60)
    states = measure(engine, job, degraded, two, "small", "camvid", Limits())
    next(states)
    job.cancel()
    with pytest.raises(Cancelled):
        list(states)
    assert torch.is_inference_mode_enabled() is False


def test_no_other_limit_holds_than_that_of_the_app(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(read_picture, "__defaults__", (0.000_001,))
    degraded, clean = picture(tmp_path / "in" / "a.png", 120), picture(tmp_path / "gt" / "a.png", 100)
    assert not run(engine, [degraded], [clean]).errors


@pytest.mark.parametrize("inside", ["", "a/b/"])
def test_a_zip_of_pairs_gives_a_report(engine: Engine, tmp_path: Path, inside: str) -> None:
    for part, level in (("input", 120), ("target", 100)):
        picture(tmp_path / "p" / part / "ä.png", level)
    (tmp_path / "p" / "input" / "bad.png").write_bytes(b"no picture")
    picture(tmp_path / "p" / "target" / "bad.png")
    state = run(engine, [zipped(tmp_path / "pairs.zip", tmp_path / "p", inside)])
    assert list(state.errors) == ["bad.png"]
    assert str(get_upload_folder()) not in state.errors["bad.png"] and _words(state).count("bad.png") == 1
    assert state.archive is not None
    with zipfile.ZipFile(state.archive) as report:
        names = report.namelist()
        rows = list(csv.DictReader(io.StringIO(report.read("restoration.csv").decode())))
        report.extract("restoration.json", tmp_path)
    assert [row["name"] for row in rows] == ["bad.png", "ä.png"]
    assert not any(str(get_upload_folder()) in row["error"] for row in rows)
    assert {"plot-1.svg", "plot-2.svg", "restoration.json"} < set(names)
    assert sum(name.endswith(".jpg") for name in names) == 1
    assert state.result is not None
    assert load_result("restoration", tmp_path).rows == state.result.rows


def bright_or_dark() -> Segmenter:
    """Sees class 0 where a picture is bright, else class 1."""
    return Segmenter("two", load_label_set("camvid"), lambda image: (image.mean(1) < 0.5).long())


def test_labelled_frames_are_segmented_in_every_weather(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mofme.ui.tabs.evaluate.load_segmenter", bright_or_dark)
    frame = np.zeros((48, 64, 3), np.uint8)
    frame[:, :32] = 255
    (tmp_path / "p" / "images").mkdir(parents=True)
    (tmp_path / "p" / "labels").mkdir()
    Image.fromarray(frame).save(tmp_path / "p" / "images" / "1.png")
    Image.fromarray((frame[..., 0] == 0).astype(np.uint8)).save(tmp_path / "p" / "labels" / "1.png")
    picture(tmp_path / "p" / "images" / "0.png", size=(64, 48))
    Image.new("L", (64, 48), 255).save(tmp_path / "p" / "labels" / "0.png")
    picture(tmp_path / "p" / "images" / "large.png", size=(600, 400))
    picture(tmp_path / "p" / "labels" / "large.png", size=(600, 400))
    state = run(engine, [zipped(tmp_path / "frames.zip", tmp_path / "p", "top/")], limits=Limits(megapixels=0.1))
    assert (state.done, state.score) == (3, "mIoU")
    assert not any("0.png" in case.name for cases in state.cases.values() for case in cases)  # there is nothing to see
    assert set(state.cases) == {"rain", "snow", "raindrop", "haze"}
    assert all(0 <= case.before <= 100 for cases in state.cases.values() for case in cases)
    assert "0.1" in state.errors["large.png"]
    assert state.result is not None and state.result.room == "segmentation"
    assert state.archive is not None
    with zipfile.ZipFile(state.archive) as report:
        assert {"segmentation.csv", "segmentation.json"} < set(report.namelist())


def test_worst_and_best_pictures_are_told_apart() -> None:
    gains = {"a": -3.0, "b": 0.0, "c": 1.0, "d": 2.0, "e": 8.0}
    state = Measuring(5, "PSNR", "dB")
    state.cases = {"set": [Case(name, 20, 20 + gain, Path(f"{name}.jpg")) for name, gain in gains.items()]}
    assert state.worst() == [("a.jpg", "a · -3.0 dB"), ("b.jpg", "b · +0.0 dB"), ("c.jpg", "c · +1.0 dB")]
    assert state.best() == [("e.jpg", "e · +8.0 dB"), ("d.jpg", "d · +2.0 dB")]
    state.cases = {"set": state.cases["set"][:1]}
    assert (len(state.worst()), state.best()) == (1, [])


def test_uploads_that_cannot_be_meant_are_explained(engine: Engine, tmp_path: Path, two: list[Path]) -> None:
    picture(tmp_path / "p" / "1.png")
    pairs, trap = (zipped(tmp_path / f"{name}.zip", tmp_path / "p", "../" * (name == "trap")) for name in ("x", "trap"))
    for degraded, clean in (([], []), (two, []), ([], two), ([pairs, *two], []), ([pairs], two), ([pairs], [])):
        with pytest.raises(MofmeError, match=r"input/ and target/"):
            run(engine, degraded, clean)
    with pytest.raises(MofmeError, match=r"trap\.zip"):
        run(engine, [trap])
    with pytest.raises(MofmeError, match="2 pairs are more than the limit of 1"):
        run(engine, two, two, Limits(batch_pictures=1))
