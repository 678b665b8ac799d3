"""A run that goes on where another stopped: no output is taken for another picture's, nor for one of other settings."""

import csv
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torch import Tensor

from mofme.vision.batch import BatchSettings, restore_tree
from mofme.vision.report import FileReport, earlier_rows, others_in, version_of, why_it_stays, write_report
from mofme.vision.restorer import Restoration
from tests.films import as_it_is

RED, BLUE, GREEN = (200, 0, 0), (0, 0, 200), (0, 200, 0)


class AsItIs:
    def __init__(self, version: str = "first") -> None:
        self.version = version

    def __call__(self, image: Tensor, **_: object) -> Restoration:
        return as_it_is(image)


def picture(path: Path, colour: tuple[int, int, int], seconds: int = 0) -> Path:
    """Of a time that lies `seconds` after a fixed one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8), colour).save(path)
    os.utime(path, (1_700_000_000 + seconds,) * 2)
    return path


def colour_of(path: Path) -> tuple[int, ...]:
    with Image.open(path) as image:
        return tuple(int(value / 200 + 0.5) * 200 for value in np.asarray(image.convert("RGB"))[4, 4])


def run(folder: Path, restorer: AsItIs | None = None, report: bool = True, **settings: object) -> list[FileReport]:
    reports = list(restore_tree(restorer or AsItIs(), folder / "in", folder / "out", BatchSettings(**settings)))  # type: ignore[arg-type]
    if report:
        write_report(folder / "out/report.csv", reports)
    return reports


def skipped(reports: Sequence[FileReport]) -> dict[str, bool]:
    return {report.file: report.skipped for report in reports}


@pytest.mark.parametrize("report", [True, False])  # without: as after a kill, known by the time alone
def test_a_picture_added_later_does_not_take_its_neighbours_output(tmp_path: Path, report: bool) -> None:
    picture(tmp_path / "in/a.jpg", RED)
    run(tmp_path, format="png", report=report)
    assert colour_of(tmp_path / "out/a.png") == RED
    picture(tmp_path / "in/a.png", BLUE, 60)
    for _ in range(2):
        reports = run(tmp_path, format="png")
        assert {one.file: one.output for one in reports} == {"a.jpg": "a.png", "a.png": "a.png.png"}
        assert colour_of(tmp_path / "out/a.png") == RED and colour_of(tmp_path / "out/a.png.png") == BLUE
    assert skipped(reports) == {"a.jpg": True, "a.png": True}


def test_names_that_differ_only_by_their_case_stay(tmp_path: Path) -> None:
    names = ("A.JPG", "a.jpg", "a.JPEG", "a.png", "A.PNG")
    for name in names:
        picture(tmp_path / "in" / name, RED)
    first = {one.file: one.output for one in run(tmp_path, format="png")}
    # Where a file system takes A.PNG for a.png each has a name of its own; the first of them keeps that of its picture.
    assert len({output.casefold() for output in first.values()}) == 5 and first["A.PNG"] == "A.PNG"
    again = run(tmp_path, format="png")
    assert {one.file: one.output for one in again} == first and all(one.skipped for one in again)


def test_results_of_an_earlier_run_are_not_restored_once_more(tmp_path: Path) -> None:
    picture(tmp_path / "in/a.png", RED)
    picture(tmp_path / "in/first/own.png", BLUE)
    first = restore_tree(AsItIs(), tmp_path / "in", tmp_path / "in/first")
    write_report(tmp_path / "in/first/report.csv", first)
    assert [one.file for one in run(tmp_path)] == ["a.png", "first/own.png"]
    told = others_in(tmp_path / "in", tmp_path / "out")
    assert told == "1 result of an earlier run (of which first/report.csv tells)"
    # Whoever names them wants them.
    again = restore_tree(AsItIs(), tmp_path / "in/first", tmp_path / "again")
    assert [one.file for one in again] == ["a.png", "own.png"]


@pytest.mark.parametrize(("delimiter", "encoding"), [(";", "utf-8-sig"), (",", "utf-8-sig"), ("\t", "utf-8")])
def test_a_report_that_excel_saved_or_somebody_edited_is_read(tmp_path: Path, delimiter: str, encoding: str) -> None:
    report, source = tmp_path / "out/report.csv", picture(tmp_path / "in/a; b.png", RED)
    run(tmp_path)
    before = earlier_rows(report)
    with report.open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))
    with report.open("w", encoding=encoding, newline="") as file:
        csv.writer(file, delimiter=delimiter).writerows(rows)
    assert earlier_rows(report) == before
    assert skipped(run(tmp_path)) == {"a; b.png": True}

    report.write_text(report.read_text().replace(version_of(source), "30.11.2026 15:00"))
    (only,) = run(tmp_path)
    assert (only.skipped, only.error, only.note) == (True, "", "")
    picture(source, BLUE, 60)
    (only,) = run(tmp_path)
    assert only.skipped and only.note.startswith("older than its source")


def test_names_stay_when_the_neighbour_goes(tmp_path: Path) -> None:
    picture(tmp_path / "in/A.jpg", RED)
    picture(tmp_path / "in/a.png", BLUE)
    run(tmp_path, format="png")
    (tmp_path / "in/a.png").unlink()
    (report,) = run(tmp_path, format="png")
    assert (report.output, report.skipped) == ("A.jpg.png", True)
    # The result of a picture that is gone stays; a new one of that place gets another name.
    picture(tmp_path / "in/a.webp", GREEN)
    outputs = {one.file: one.output for one in run(tmp_path, format="png")}
    assert outputs == {"A.jpg": "A.jpg.png", "a.webp": "a.webp.png"}
    assert colour_of(tmp_path / "out/a.png") == BLUE and colour_of(tmp_path / "out/a.webp.png") == GREEN


def test_an_edited_source_is_restored_again(tmp_path: Path) -> None:
    picture(tmp_path / "in/a.png", RED), picture(tmp_path / "in/b.png", RED)
    run(tmp_path)
    picture(tmp_path / "in/a.png", BLUE, 60)
    for seconds in (60, -60):  # also one that was put back from a backup
        picture(tmp_path / "in/b.png", GREEN if seconds > 0 else BLUE, seconds)
        reports = run(tmp_path)
        assert skipped(reports) == {"a.png": seconds < 0, "b.png": False}
        assert colour_of(tmp_path / "out/b.png") == (GREEN if seconds > 0 else BLUE)
        assert "took the place of an earlier result" in reports[1].note  # which may be another folder's
    assert colour_of(tmp_path / "out/a.png") == BLUE
    assert skipped(run(tmp_path)) == {"a.png": True, "b.png": True}


def test_a_result_that_was_changed_by_hand_or_is_of_unknown_origin_is_kept(tmp_path: Path) -> None:
    picture(tmp_path / "in/a.png", RED)
    picture(tmp_path / "out/a.png", GREEN, -60)
    (report,) = run(tmp_path)
    assert report.skipped and "older than its source" in report.note and "--overwrite" in report.note
    assert not run(tmp_path, overwrite=True)[0].skipped and colour_of(tmp_path / "out/a.png") == RED
    picture(tmp_path / "out/a.png", GREEN, 30)
    picture(tmp_path / "in/a.png", BLUE, 60)
    (report,) = run(tmp_path)
    assert report.skipped and "source and result were both changed" in report.note
    assert colour_of(tmp_path / "out/a.png") == GREEN


@pytest.mark.parametrize("settings", [{"strength": 0.5}, {"ensemble": True}, {"restorer": "second"}])
def test_outputs_of_other_settings_are_told(tmp_path: Path, settings: dict[str, object]) -> None:
    picture(tmp_path / "in/a.png", RED)
    run(tmp_path)
    restorer = AsItIs(str(settings.pop("restorer", "first")))
    picture(tmp_path / "in/b.png", RED)
    first, second = run(tmp_path, restorer, **settings)
    assert first.skipped and "made with other settings (first, strength 1)" in first.note
    assert not second.skipped and not second.note
    assert not any(one.note for one in run(tmp_path, restorer, overwrite=True, **settings))
    assert [one.note for one in run(tmp_path, restorer, **settings)] == ["", ""]


def test_a_failure_does_not_forget_what_the_output_was_made_of(tmp_path: Path) -> None:
    picture(tmp_path / "in/a.png", RED)
    run(tmp_path)
    before = earlier_rows(tmp_path / "out/report.csv")["a.png", "a.png"]["source"]
    (tmp_path / "in/a.png").write_bytes(b"broken")
    (report,) = run(tmp_path)
    assert report.error and colour_of(tmp_path / "out/a.png") == RED
    assert earlier_rows(tmp_path / "out/report.csv")["a.png", "a.png"]["source"] == before != ""
    picture(tmp_path / "in/a.png", BLUE, 60)
    assert not run(tmp_path)[0].skipped and colour_of(tmp_path / "out/a.png") == BLUE


def test_a_report_of_an_earlier_version_is_read(tmp_path: Path) -> None:
    picture(tmp_path / "in/a.jpg", RED), picture(tmp_path / "out/a.png", RED), picture(tmp_path / "in/a.png", BLUE)
    head = "file,output,size,seconds,weather,uncertainty,error,skipped\n"
    (tmp_path / "out/report.csv").write_text(f"{head}a.jpg,a.png,8x8,1.0,rain,0.1,,no\n")
    assert {one.file: (one.output, one.skipped) for one in run(tmp_path, format="png")} == {
        "a.jpg": ("a.png", True),
        "a.png": ("a.png.png", False),
    }


@pytest.mark.skipif(os.name == "nt", reason="no such names")
def test_a_report_sends_no_codes_and_still_knows_its_files(tmp_path: Path) -> None:
    names = ["a\x1b[2J.png", "b\nc.png", "d\u202egnp.png", "Shot 10.00\u202fAM.png", os.fsdecode(b"e\xff.png")]
    for name in names:
        picture(tmp_path / "new.png", RED).rename(picture(tmp_path / "in/12: 30.png", RED).with_name(name))
    (tmp_path / "in/12: 30.png").write_bytes(b"no picture")
    run(tmp_path)
    text = (tmp_path / "out/report.csv").read_text(encoding="utf-8")
    assert len(text.splitlines()) == 7 and not set(text) & set("\x1b\u202e")
    assert "Shot 10.00\u202fAM.png" in text and ',,"not a picture' in text
    reports = run(tmp_path, AsItIs(), strength=0.5)
    notes = {one.file: one.note[:24] for one in reports if one.skipped}
    assert notes == dict.fromkeys(names, "made with other settings")
    (tmp_path / "out").rename(tmp_path / "in/earlier")
    assert {one.file for one in run(tmp_path)} == {*names, "12: 30.png"}  # earlier results are no inputs


def test_a_video_with_missing_parts_stays_one_in_the_report(tmp_path: Path) -> None:
    path, about = tmp_path / "report.csv", {"source": "5 bytes, 2026-01-01T00:00:00+00:00", "settings": "m, strength 1"}
    write_report(path, [FileReport("a.mp4", "a.mp4", 64, 48, 1.0, "rain", 0.1, "a.mp4: 2 parts missing", **about)])
    before = path.read_bytes()
    write_report(path, [FileReport("a.mp4", "a.mp4", skipped=True)])
    assert path.read_bytes() == before


def test_a_tree_that_was_copied_to_a_coarser_disk_stays(tmp_path: Path) -> None:
    source, output = tmp_path / "s.png", tmp_path / "o.png"
    for path in (source, output):
        path.write_bytes(b"x")
        os.utime(path, (1_700_000_001.234567,) * 2)
    row = {"source": version_of(source), "settings": "old"}
    for path in (source, output):
        os.utime(path, (1_700_000_000,) * 2)
    assert why_it_stays(source, output, row, "old") == (True, "")
    assert why_it_stays(source, output, row, "new")[1].startswith("made with other settings")


def test_the_reason_of_an_error_does_not_repeat_the_name() -> None:
    assert FileReport("sub/x.jpg", "", error="/in/sub/x.jpg: damaged: at its end").reason == "damaged: at its end"
    assert FileReport("x.jpg", "", error="out of memory: 3 GB").reason == "out of memory: 3 GB"


def test_names_that_a_mac_or_windows_takes_for_one_become_two(tmp_path: Path) -> None:
    composed, apart = "\u00e9.png", "e\u0301.png"  # the same letter, its accent a sign of its own
    for name in ("A.png", "a.png", "Sub/b.png", "sub/b.png", composed, apart):
        picture(tmp_path / "in" / name, RED)
    outputs = {one.file: one.output for one in run(tmp_path)}
    assert outputs == {
        "A.png": "A.png",
        "a.png": "a.png.png",
        "Sub/b.png": "Sub/b.png",
        "sub/b.png": "sub/b.png.png",
        apart: apart,
        composed: f"{composed}.png",
    }
