import csv
import json
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import jaccard_score
from torch import Tensor
from typer.testing import CliRunner

from mofme.cli.app import app
from mofme.core.weights import ModelCard, save_model
from mofme.errors import MofmeError, PictureError
from mofme.measure.result import Figure, load_result
from mofme.vision import segmentation_eval
from mofme.vision.datasets import taken_from
from mofme.vision.label_sets import IGNORE, LabelSet, available_label_sets, find_labelled, load_label_set
from mofme.vision.segmentation_eval import ALL, TABLE, WON_BACK, FrameReport, as_result, confusion, iou, mean_iou
from mofme.vision.segmenter import SegmentationNet, Segmenter

TWO = LabelSet("two", "Two", ("dark", "red"), ((0, 0, 0), (255, 0, 0)), ((0,), (1, 2)), ignore=(9,))
BOTH = torch.tensor([True, True])


def test_iou_by_hand() -> None:
    labels = torch.tensor([[0, 0, 1], [1, IGNORE, IGNORE]])
    predicted = torch.tensor([[0, 1, 1], [1, 0, 2]])
    matrix = confusion(predicted, labels, 3)
    assert matrix.tolist() == [[1, 1, 0, 0], [0, 2, 0, 0], [0, 0, 0, 0]]
    # Class 0: 1 hit, 1 missed, none too many. Class 1: 2 hits, none missed, 1 too many. Class 2 does not occur.
    assert iou(matrix).tolist() == pytest.approx([1 / 2, 2 / 3, float("nan")], nan_ok=True)
    assert mean_iou(matrix) == pytest.approx((1 / 2 + 2 / 3) / 2)
    assert mean_iou(matrix, torch.tensor([False, True, True])) == pytest.approx(2 / 3)
    # A class that does not occur counts only as an error of others.
    labels = torch.tensor([[0, 0, 0, 0]])
    assert mean_iou(confusion(torch.tensor([[0, 0, 1, 2]]), labels, 2)) == 0.5  # 1 is absent, 2 is none of the classes
    assert np.isnan(mean_iou(confusion(labels, torch.full((1, 4), IGNORE), 2)))


def test_iou_as_scikit_learn_has_it() -> None:
    labels, predicted = torch.randint(0, 4, (2, 20, 20), generator=torch.Generator().manual_seed(0))
    expected = jaccard_score(labels.flatten(), predicted.flatten(), labels=range(4), average=None)
    assert iou(confusion(predicted, labels, 4)).tolist() == pytest.approx(expected.tolist())


def test_built_in_label_sets() -> None:
    for loaded in map(load_label_set, available_label_sets()):
        values = [value for group in loaded.values for value in group] + list(loaded.ignore)
        assert len(set(values)) == len(values) and set(values) <= set(range(256))
        assert len(set(loaded.classes)) == len(loaded.classes)
        assert all(0 <= part <= 255 for colour in loaded.colours for part in colour)
        for key, names in loaded.onto.items():
            assert set(names) <= set(loaded.classes)
            assert set(names.values()) <= set(load_label_set(key).classes)
            loaded.mapped_onto(load_label_set(key))


def test_a_class_without_counterpart_is_none_of_the_classes_and_not_counted() -> None:
    voc, camvid = load_label_set("voc"), load_label_set("camvid")
    place = voc.mapped_onto(camvid)
    assert place[voc.classes.index("sheep")] == 11
    counted = segmentation_eval.counted_classes(Segmenter("voc", voc, lambda image: image), camvid)
    found = [name for name, yes in zip(camvid.classes, counted, strict=True) if yes]
    assert found == ["car", "pedestrian", "bicyclist"]
    with pytest.raises(MofmeError, match="no class of Two has a counterpart in CamVid"):
        TWO.mapped_onto(load_label_set("camvid"))


def test_a_file_that_is_no_label_set(tmp_path: Path) -> None:
    path = tmp_path / "mine.json"
    for text in ("{", "[]", '{"name": "x"}', '{"name": "x", "classes": []}'):
        path.write_text(text)
        with pytest.raises(MofmeError, match=r"mine\.json"):
            load_label_set(str(path))
    with pytest.raises(MofmeError, match="camvid"):
        load_label_set("nosuch")


def test_labels_as_grey_values_and_as_colours(tmp_path: Path) -> None:
    grey = np.array([[0, 1, 2, 9]], np.uint8)
    Image.fromarray(grey).save(tmp_path / "grey.png")
    assert TWO.read(tmp_path / "grey.png").tolist() == [[0, 1, 1, IGNORE]]
    colours = np.array([[[255, 0, 0], [0, 0, 0], [7, 7, 7]]], np.uint8)
    Image.fromarray(colours).save(tmp_path / "colours.png")
    labels = TWO.read(tmp_path / "colours.png")
    assert labels.tolist() == [[1, 0, IGNORE]]
    assert TWO.paint(labels)[:, 0].T.tolist() == [[1, 0, 0], [0, 0, 0], [0, 0, 0]]
    Image.fromarray(grey + 3).save(tmp_path / "other.png")
    with pytest.raises(PictureError, match=r"other\.png: Two has no class for the grey value 3"):
        TWO.read(tmp_path / "other.png")
    (tmp_path / "text.png").write_text("no picture")
    with pytest.raises(PictureError, match=r"text\.png"):
        TWO.read(tmp_path / "text.png")


@dataclass
class Answer:
    image: Tensor
    seconds: float = 0.0


def half_restored(image: Tensor) -> Answer:
    """Doubles the upper half."""
    return Answer(torch.cat([2 * image[:, :2], image[:, 2:]], dim=1))


SEES_RED = Segmenter("threshold", TWO, lambda image: (image[:, 0] > 0.5).long())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Frames of 4 x 4 pixels, red on the left, and in bad weather of a red too dark for the segmenter."""
    frame = np.zeros((4, 4, 3), np.uint8)
    frame[:, :2, 0] = 200
    labels = (frame[..., 0] > 0).astype(np.uint8)
    named = {
        "frames": (frame, "leftImg8bit"),
        "labels": (labels, "gtFine_labelIds"),
        "dim": (frame // 2, "leftImg8bit"),
    }
    for part, (pixels, tag) in named.items():
        (tmp_path / part / "street").mkdir(parents=True)
        for name in ("a", "b"):
            Image.fromarray(pixels).save(tmp_path / part / f"street/{name}_{tag}.png")
    return tmp_path


def evaluated(folder: Path, **kwargs: int) -> list[FrameReport]:
    frames = find_labelled(folder / "frames", folder / "labels")
    weathers = taken_from(folder / "dim")
    return list(segmentation_eval.evaluate_segmentation(SEES_RED, half_restored, frames, TWO, weathers, **kwargs))


def test_clean_degraded_and_restored_by_hand(folder: Path) -> None:
    reports = evaluated(folder)
    assert [report.name + report.error for report in reports] == [f"street/{one}_leftImg8bit.png" for one in "ab"]
    result = as_result(reports, TWO, BOTH, "command")
    dim = result.rows[0].figures
    # In bad weather all 16 pixels are dark: of dark 8 of 16, of red none. Restored, the upper red is seen: of dark 8 of
    # 12, of red 4 of 8.
    degraded, restored = (8 / 16 + 0) / 2, (8 / 12 + 4 / 8) / 2
    ious = [result.figure("IoU of the classes, %: dim", name, "restored").value for name in TWO.classes]
    assert ious == pytest.approx([100 * 8 / 12, 100 * 4 / 8])
    for state, expected in {"clean": 1.0, "degraded": degraded, "restored": restored}.items():
        figure = dim[state]
        # Both frames are alike, and so are all draws of them.
        assert (figure.value, figure.low, figure.high) == pytest.approx((100 * expected,) * 3)
    share = (restored - degraded) / (1 - degraded)
    assert dim[WON_BACK].value == pytest.approx(100 * share)


def test_frames_that_cannot_be_used_are_reported(folder: Path) -> None:
    (folder / "labels/street/a_gtFine_labelIds.png").unlink()
    Image.new("L", (3, 4)).save(folder / "labels/street/b_gtFine_labelIds.png")
    for name in ("c", "d", "e"):
        Image.new("RGB", (4, 4)).save(folder / f"frames/street/{name}_leftImg8bit.png")
        Image.new("L", (4, 4), 9 if name == "c" else 0).save(folder / f"labels/street/{name}_gtFine_labelIds.png")
    Image.new("RGB", (5, 4)).save(folder / "dim/street/d_leftImg8bit.png")
    wrong = [
        "no label picture",
        "4x4 pixels, but its labels have 3x4",
        "not a pixel of it is of a class",
        "5x4 pixels, but the clean picture has 4x4",
        "no picture is called street/e_leftImg8bit",
    ]
    assert all(words in report.error for words, report in zip(wrong, evaluated(folder), strict=True))
    with pytest.raises(MofmeError, match="no frame could be measured"):
        as_result([FrameReport("a", error="broken")], TWO, BOTH, "command")


def test_views_and_csv(folder: Path, tmp_path: Path) -> None:
    reports = evaluated(folder, pictures=1)
    assert [len(report.views) for report in reports] == [1, 0]
    segmentation_eval.write_views(tmp_path / "out", reports[0])
    with Image.open(tmp_path / "out/street/a_leftImg8bit_dim.png") as sheet:
        pixels = np.asarray(sheet)
    assert pixels.shape == (8, 12, 3)
    # Frames above; below the maps in the set's colours: clean, all dark, the upper half red.
    assert pixels[0, ::4, 0].tolist() == [200, 100, 200]
    assert pixels[4, ::4].tolist() == [[255, 0, 0], [0, 0, 0], [255, 0, 0]]
    assert pixels[7, ::4].tolist() == [[255, 0, 0], [0, 0, 0], [0, 0, 0]]
    segmentation_eval.write_csv(tmp_path / "s.csv", [*reports, FrameReport("c", error="broken")], TWO, BOTH)
    heading, first, _, broken = (tmp_path / "s.csv").read_text().splitlines()
    assert heading.split(",")[:6] == ["frame", "weather", "clean mIoU", "degraded mIoU", "restored mIoU", "clean dark"]
    assert first.split(",")[:5] == ["street/a_leftImg8bit.png", "dim", "1", "0.25", "0.583333"]
    assert broken == f"c,,{',' * 9}broken"
    segmentation_eval.write_csv(
        tmp_path / "s.csv", [FrameReport(os.fsdecode(b"caf\xe9.png"), error="broken")], TWO, BOTH
    )
    assert "caf\\udce9.png," in (tmp_path / "s.csv").read_text(encoding="utf-8")  # a name that is no text


def report(clean: int, weathers: dict[str, tuple[int, int]]) -> FrameReport:
    """8 pixels of class 0; so many of them are seen, clean and by weather degraded and restored."""

    def matrix(hits: int) -> Tensor:
        return torch.tensor([[hits, 0, 8 - hits], [0, 0, 0]])

    degraded, restored = ({name: matrix(seen[state]) for name, seen in weathers.items()} for state in (0, 1))
    return FrameReport("frame", matrix(clean), degraded, restored)


def test_share_won_back_and_its_interval() -> None:
    # IoU is hits / 8. One frame wins back (7 - 4) / (8 - 4), the other (5 - 4) / (8 - 4), both together 4 / 8. A
    # quarter of all draws is the first frame twice, a quarter the second.
    reports = [report(8, {"rain": (4, 7), "haze": (8, 8)}), report(8, {"rain": (4, 5), "haze": (8, 6)})]
    result = as_result(reports, TWO, BOTH, "command", [7])
    rows = {row.name: row.figures for row in result.rows if row.table == TABLE}
    assert rows["rain"][WON_BACK] == Figure(pytest.approx(50), pytest.approx(25), pytest.approx(75))
    assert WON_BACK not in rows["haze"]  # it costs nothing
    assert rows[ALL] == {WON_BACK: rows["rain"][WON_BACK]}
    assert "wins back 50 (25 to 75) %" in result.verdict
    assert "neither for sure above nor below the degraded frames in haze" in result.verdict  # -2 / 8 to 0
    worse = as_result([report(8, {"rain": (4, 7), "haze": (8, 6)})] * 2, TWO, BOTH, "command")
    assert "costs, below the degraded frames in haze (" in worse.verdict


def test_a_single_frame_nothing_that_is_known_and_nothing_lost() -> None:
    one = [report(8, {"rain": (4, 7)})]
    result = as_result(one, TWO, BOTH, "command")
    assert all(figure.low is None for row in result.rows for figure in row.figures.values())
    assert "wins back 75 % of" in result.verdict  # of 8 pixels 4 are lost and 3 come back
    with pytest.raises(MofmeError, match="no class that the segmenter knows"):
        as_result(one, TWO, torch.tensor([False, True]), "command")  # all 8 pixels are of class 0
    result = as_result([report(8, {"rain": (8, 8)})] * 2, TWO, BOTH, "command")
    assert "costs the segmenter nothing" in result.verdict


@pytest.mark.parametrize(
    ("frame", "labels", "found"),
    [
        ("a.png", ["a.png", "a_labels.png"], "a.png"),
        ("a_leftImg8bit.png", ["a_gtFine_color.png", "a_gtFine_labelIds.png"], "a_gtFine_labelIds.png"),
        ("a_leftImg8bit.png", ["a_gtFine_color.png"], "a_gtFine_color.png"),
        ("a.png", ["a_L.png", "b_L.png"], "a_L.png"),
    ],
)
def test_which_label_picture_belongs_to_a_frame(tmp_path: Path, frame: str, labels: list[str], found: str) -> None:
    for path in (tmp_path / "frames" / frame, *(tmp_path / "labels" / name for name in labels)):
        path.parent.mkdir(exist_ok=True)
        Image.new("L", (4, 4)).save(path)
    (one,) = find_labelled(tmp_path / "frames", tmp_path / "labels")
    assert one.labels == tmp_path / "labels" / found


def test_two_label_pictures_of_one_frame_are_not_guessed_between(folder: Path) -> None:
    """Cityscapes' ids and train ids are different numbers for the same classes."""
    with pytest.raises(MofmeError, match="no frame has a label picture"):
        find_labelled(folder / "frames", folder / "dim" / "nothing")
    Image.new("L", (4, 4)).save(folder / "labels/street/a_gtFine_labelTrainIds.png")
    with pytest.raises(MofmeError, match=r"a_leftImg8bit\.png: has 2 label pictures, .*labelIds.*labelTrainIds"):
        find_labelled(folder / "frames", folder / "labels")


def test_neighbours_are_drawn_together() -> None:
    # Of eight pixels rain leaves 4 and restoring 6, or 8 and 8: alone, half of either kind may be missing from a draw;
    # in blocks of two every draw has the same.
    reports = [report(8, {"rain": (4, 6)}), report(8, {"rain": (2, 8)})] * 4
    results = [as_result(reports, TWO, BOTH, "command", block=block) for block in (1, 2)]
    alone, together = (result.figure(TABLE, "rain", WON_BACK) for result in results)
    assert alone.value == together.value and together.low == together.high == pytest.approx(together.value)
    assert alone.low is not None and alone.low < alone.value
    assert results[1].interval == "95 % bootstrap over blocks of 2 frames"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Three frames of 48 x 32 pixels with CamVid's labels, and a segmenter that was never trained."""
    random = np.random.default_rng(0)
    for part in ("frames", "labels"):
        (tmp_path / part).mkdir()
    for name in "abc":
        for part, most, channels in (("frames", 256, (3,)), ("labels", 12, ())):
            pixels = random.integers(0, most, (4, 6, *channels), dtype=np.uint8).repeat(8, axis=0).repeat(8, axis=1)
            Image.fromarray(pixels).save(tmp_path / part / f"{name}.png")
    torch.manual_seed(0)
    card = ModelCard("own", "segmentation", {"classes": 11}, "none", {"label_set": "camvid", "leave_out": ["a.png"]})
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
    assert [line["frame"] + line["weather"] for line in lines[:3]] == ["a.pnghaze", "a.pngrain", "b.pnghaze"]
    assert sorted(path.name for path in (out / "pictures").iterdir()) == ["a_haze.png", "a_rain.png"]
    with Image.open(out / "pictures/a_haze.png") as sheet:
        assert sheet.size == (3 * 48, 2 * 32)


def test_a_video_held_out_of_the_segmenters_training_has_a_room_of_its_own(data: Path) -> None:
    options = ("--weather", "rain", "--model", "small", "--out", data / "out", "--video")
    assert run(data, *options, "b.png")[0] == 0
    assert not (data / "out/segmentation_held_out.json").exists()  # it was learnt from, for all that is known
    assert run(data, *options, "a.png")[0] == 0
    result = load_result("segmentation_held_out", data / "out")
    assert result.verdict.endswith(" The segmenter saw nothing of their video, a.png.")
    assert result.figure("Frames", "measured", "frames").value == 1
    assert "b.png" in (data / "out/segmentation.csv").read_text()  # both are kept
    assert (data / "out/segmentation_held_out.csv").exists()


def test_degraded_frames_from_a_folder(data: Path) -> None:
    fog = data / "fog"
    fog.mkdir()
    for name in "ab":
        Image.new("RGB", (48, 32), "white").save(fog / f"{name}.jpg")
    code, printed, errors = run(data, "--degraded", fog)
    assert code == 1 and "fog" in printed and "fog: no picture is called c" in errors
    assert run(data, "--degraded", fog, "--limit", 2)[0] == 0


def test_what_cannot_begin(data: Path) -> None:
    for words, told in (
        (("--label-set", "nosuch"), "no label set is called 'nosuch'"),
        (("--weather", "hail"), "hail"),
        (("--pictures", 2), "--out"),
        (("--segmenter", "nosuch"), "no segmenter is called 'nosuch'"),
    ):
        code, _, errors = run(data, *words)
        assert code == 2 and told in errors
    # Every frame fails: nothing is measured.
    for path in (data / "frames").iterdir():
        path.write_bytes(b"no picture")
    assert run(data)[0] == 2
