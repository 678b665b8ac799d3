import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from mofme.cli.app import app
from mofme.core.weights import ModelCard, save_model
from mofme.measure.result import load_result
from mofme.vision.nets.segmentation import SegmentationNet


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Three frames of 48 x 32 pixels with CamVid's labels, and a segmenter that was never trained."""
    random = np.random.default_rng(0)
    for part in ("frames", "labels"):
        (tmp_path / part).mkdir()
    for name in "abc":
        frame = random.integers(0, 256, (4, 6, 3), dtype=np.uint8)
        Image.fromarray(frame).resize((48, 32)).save(tmp_path / f"frames/{name}.png")
        labels = random.integers(0, 12, (4, 6), dtype=np.uint8)
        Image.fromarray(labels).resize((48, 32), Image.Resampling.NEAREST).save(tmp_path / f"labels/{name}.png")
    torch.manual_seed(0)
    card = ModelCard("own", "segmentation", {"classes": 11}, "none", {"label_set": "camvid"})
    save_model(tmp_path / "own", card, SegmentationNet(11).state_dict())
    return tmp_path


def run(data: Path, *words: object) -> tuple[int, str, str]:
    arguments = ["evaluate", "segmentation", data / "frames", data / "labels", "--segmenter", data / "own", *words]
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    return result.exit_code, result.stdout, result.stderr


def test_from_frames_to_files(data: Path) -> None:
    out = data / "out"
    weathers = ("--weather", "haze", "--weather", "rain")
    options = ("--label-set", "camvid", *weathers, "--seed", 7, "--model", "small")
    code, printed, _ = run(data, *options, "--out", out, "--pictures", 1, "--json")
    assert code == 0
    result = load_result("segmentation", out)
    assert json.loads(printed)["verdict"] == result.verdict
    assert result.seeds == [7]
    assert result.command == (
        f"python -m mofme evaluate segmentation {data.name}/frames {data.name}/labels --segmenter own "
        "--label-set camvid --weather haze --weather rain --seed 7 --model small --pictures 1"
    )
    rows = [row for row in result.rows if row.table == "mIoU, %"]
    assert [row.name for row in rows][:2] == ["haze", "rain"]
    assert all({"clean", "degraded", "restored"} <= set(row.figures) for row in rows[:2])
    with (out / "segmentation.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert [(line["frame"], line["weather"]) for line in lines[:3]] == [
        ("a.png", "haze"),
        ("a.png", "rain"),
        ("b.png", "haze"),
    ]
    assert sorted(path.name for path in (out / "pictures").iterdir()) == ["a_haze.png", "a_rain.png"]
    with Image.open(out / "pictures/a_haze.png") as sheet:
        assert sheet.size == (3 * 48, 2 * 32)


def test_degraded_frames_from_a_folder(data: Path) -> None:
    fog = data / "fog"
    fog.mkdir()
    for name in "ab":
        Image.new("RGB", (48, 32), "white").save(fog / f"{name}.jpg")
    code, printed, errors = run(data, "--degraded", fog)
    assert code == 1  # c is missing
    assert "fog" in printed
    assert "fog: no picture is called c" in errors
    assert run(data, "--degraded", fog, "--limit", 2)[0] == 0


def test_what_cannot_begin(data: Path) -> None:
    code, _, errors = run(data, "--label-set", "nosuch")
    assert code == 2
    assert "no label set is called 'nosuch'" in errors
    code, _, errors = run(data, "--weather", "hail")
    assert code == 2
    assert "hail" in errors
    assert run(data, "--pictures", 2)[0] == 2
    assert run(data, "--segmenter", "nosuch")[0] == 2
    # Every frame fails: nothing is measured.
    for path in (data / "frames").iterdir():
        path.write_bytes(b"no picture")
    assert run(data)[0] == 2
