import csv
import os
import sys
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mofme.errors import Cancelled, PictureError
from mofme.vision import batch
from mofme.vision.batch import BatchSettings, restore_tree
from mofme.vision.picture.file import read_picture, read_to_keep, write_frames
from mofme.vision.report import FileReport, write_report
from mofme.vision.restorer import Restoration


class Inverter:
    """A restorer that turns every picture into its negative, and remembers what it was asked."""

    name = "inverter"

    def __init__(self):
        self.settings = []

    def __call__(self, image, *, strength=1.0, ensemble=False, tile=None, explain=False, on_progress=None):
        self.settings.append((tuple(image.shape[1:]), strength, ensemble, tile))
        weather = {"rain": 0.9, "snow": 0.1, "raindrop": 0.0, "haze": 0.0}
        return Restoration(1 - image, weather, torch.full((1, 1), 0.25), (), 0.0)


def picture(path: Path, size=(5, 4), colour=(10, 20, 30), **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path, **options)


def rows_of(path: Path):
    with path.open(encoding="utf-8", newline="") as file:
        return {row["file"]: row for row in csv.DictReader(file)}


def test_the_tree_names_and_formats_are_kept(tmp_path):
    names = ["a.png", "sub dir/b.jpg", "sub dir/ü/漢.webp"]
    for name in names:
        picture(tmp_path / "in" / name)
    reports = list(restore_tree(Inverter(), tmp_path / "in", tmp_path / "out"))

    assert [(report.file, report.output, report.error, report.skipped) for report in reports] == [
        (name, name, "", False) for name in names
    ]
    assert {(report.width, report.height, report.weather, report.uncertainty) for report in reports} == {
        (5, 4, "rain", 0.25)
    }
    for name, kind in zip(names, ("PNG", "JPEG", "WEBP"), strict=True):
        with Image.open(tmp_path / "out" / name) as image:
            assert image.format == kind
            np.testing.assert_allclose(image.getpixel((1, 1)), (245, 235, 225), atol=3)


def test_a_restorer_that_fails_on_one_picture_does_not_stop_the_others(tmp_path):
    class OutOfMemory(Inverter):
        def __call__(self, image, **settings):
            if image.shape[1] > 4:
                raise RuntimeError("out of memory")
            return super().__call__(image, **settings)

    picture(tmp_path / "in/a.png", (9, 9))
    picture(tmp_path / "in/b.png")
    reports = list(restore_tree(OutOfMemory(), tmp_path / "in", tmp_path / "out"))
    assert [report.error for report in reports] == [f"{tmp_path / 'in/a.png'}: cannot be restored (out of memory).", ""]


def test_a_file_that_goes_meanwhile_is_told_in_words(tmp_path):
    for name in ("a", "b", "c"):
        picture(tmp_path / f"in/{name}.png")
    restored = restore_tree(Inverter(), tmp_path / "in", tmp_path / "out")
    (tmp_path / "in/a.png").unlink()
    (tmp_path / "in/b.png").unlink()
    (tmp_path / "in/b.png").mkdir()
    assert [report.error for report in restored] == [
        f"{tmp_path / 'in/a.png'}: no such file (any more).",
        f"{tmp_path / 'in/b.png'}: is a folder, not a picture.",
        "",
    ]


@pytest.mark.parametrize("stop", [Cancelled, KeyboardInterrupt])
def test_whoever_stops_the_work_is_told_first_of_what_is_written(tmp_path, stop):
    class StoppedAtTheSecond(Inverter):
        def __call__(self, image, **settings):
            if self.settings:
                raise stop
            return super().__call__(image, **settings)

    for name in "abc":
        picture(tmp_path / f"in/{name}.png")
    reports, threads = [], threading.active_count()
    with pytest.raises(stop):
        reports.extend(restore_tree(StoppedAtTheSecond(), tmp_path / "in", tmp_path / "out"))
    # list.extend keeps what came before the exception.
    assert [report.file for report in reports] == [path.name for path in (tmp_path / "out").iterdir()] == ["a.png"]
    assert threading.active_count() == threads


def test_the_next_is_read_and_the_last_one_written_meanwhile(tmp_path, monkeypatch):
    names = [f"{number}.png" for number in range(5)]
    for name in names:
        picture(tmp_path / "in" / name)
    read, restoring, written = ({name: threading.Event() for name in names} for _ in range(3))
    behind = iter(range(len(names)))

    def reading(path, *how):
        read[path.name].set()
        return read_to_keep(path, *how)

    def writing(path, *how):
        number = names.index(path.name)
        if path.name != names[-1]:
            assert restoring[names[number + 1]].wait(30)
        write_frames(path, *how)
        written[path.name].set()

    class Watching(Inverter):
        def __call__(self, image, **settings):
            number = next(behind)
            restoring[names[number]].set()
            assert all(read[name].wait(30) for name in names[: number + 2])
            assert not any(read[name].is_set() for name in names[number + 2 :]), "memory stays bounded"
            assert all(written[name].is_set() for name in names[: max(number - 1, 0)])
            return super().__call__(image, **settings)

    monkeypatch.setattr(batch, "read_to_keep", reading)
    monkeypatch.setattr(batch, "write_frames", writing)
    reports = list(restore_tree(Watching(), tmp_path / "in", tmp_path / "out"))
    assert [(report.file, report.error) for report in reports] == [(name, "") for name in names]


def test_beside_a_large_picture_nothing_is_read_or_written(tmp_path, monkeypatch):
    for name, size in (("a", (5, 4)), ("b", (8, 8)), ("c", (5, 4))):
        picture(tmp_path / f"in/{name}.png", size)
    events = []

    def restorer(image, **settings):
        events.append("restore")
        return Inverter()(image)

    def reading(path, *how):
        events.append(f"read {path.name}")
        return read_to_keep(path, *how)

    monkeypatch.setattr(batch, "_LARGE", 50)
    monkeypatch.setattr(batch, "read_to_keep", reading)
    monkeypatch.setattr(batch, "write_frames", lambda path, *_: events.append(f"write {path.name}"))
    list(restore_tree(restorer, tmp_path / "in", tmp_path / "out"))
    events.remove("read b.png")  # while a small one was restored or written
    at_b = events.index("write b.png")
    assert events[at_b - 2 : at_b + 2] == ["write a.png", "restore", "write b.png", "read c.png"]


def test_closed_half_way_and_started_again_it_does_only_the_rest(tmp_path):
    for number in range(12):
        picture(tmp_path / f"in/{number:02}.png", (number + 1, 1))
        if number % 4 == 0:
            (tmp_path / f"in/{number:02}.png").write_bytes(b"\x89PNG\r\n\x1a\nbroken")  # 00, 04, 08
    first = restore_tree(Inverter(), tmp_path / "in", tmp_path / "out")
    reports = [next(first) for _ in range(6)]
    first.close()
    write_report(tmp_path / "out/report.csv", reports)
    restorer = Inverter()
    again = list(restore_tree(restorer, tmp_path / "in", tmp_path / "out"))
    write_report(tmp_path / "out/report.csv", again)

    # 00 and 04 failed in the first half and fail again; the other four are skipped.
    assert [report.file for report in again if report.skipped] == [f"{n:02}.png" for n in range(6) if n % 4]
    assert [shape for shape, *_ in restorer.settings] == [(1, n + 1) for n in range(6, 12) if n % 4]
    rows = rows_of(tmp_path / "out/report.csv")
    assert list(rows) == [f"{number:02}.png" for number in range(12)]
    for number, row in enumerate(rows.values()):
        assert bool(row["error"]) == (number % 4 == 0)
        assert row["size"] == (f"{number + 1}x1" if number % 4 else "")  # figures of the first half are kept
        assert row["skipped"] == "no"


def test_a_format_for_all_never_lets_two_pictures_share_an_output(tmp_path):
    outputs = {"a.jpg": "a.jpg.png", "a.png": "a.png", "a.WEBP": "a.WEBP.png", "b.bmp": "b.png", "d.PNG": "d.PNG"}
    outputs |= {"c.jpg": "c.jpg.png.png", "c.jpg.png": "c.jpg.png", "c.png": "c.png"}
    for name in outputs:
        picture(tmp_path / "in" / name)
    reports = restore_tree(Inverter(), tmp_path / "in", tmp_path / "out", BatchSettings(format="png"))
    assert {report.file: report.output for report in reports} == outputs
    assert len(list((tmp_path / "out").iterdir())) == 8
    for path in (tmp_path / "out").iterdir():
        with Image.open(path) as image:
            assert image.format == "PNG"


def test_a_target_inside_the_source_is_never_an_input(tmp_path):
    picture(tmp_path / "in/a.png")
    picture(tmp_path / "in/sub/b.png")
    for overwrite in (False, True):
        reports = restore_tree(Inverter(), tmp_path / "in", tmp_path / "in/sub/out", BatchSettings(overwrite=overwrite))
        assert [report.file for report in reports] == ["a.png", "sub/b.png"]


def test_nothing_that_would_replace_a_picture_is_begun(tmp_path):
    picture(tmp_path / "in/a.png")
    (tmp_path / "link").symlink_to(tmp_path / "in")
    for target in (tmp_path / "in", tmp_path / "in/../in", tmp_path / "link"):
        with pytest.raises(PictureError, match="another folder"):
            restore_tree(Inverter(), tmp_path / "in", target)
    # The result of in/in/a.png, put into the parent folder, would be in/a.png.
    picture(tmp_path / "in/in/a.png")
    with pytest.raises(PictureError, match="would replace"):
        restore_tree(Inverter(), tmp_path / "in", tmp_path)
    with pytest.raises(PictureError, match="none: is not a folder"):
        restore_tree(Inverter(), tmp_path / "none", tmp_path / "out")
    with pytest.raises(PictureError, match="'gif'"):
        restore_tree(Inverter(), tmp_path, tmp_path / "out", BatchSettings(format="gif"))


def test_the_report_keeps_earlier_rows_and_replaces_redone_ones(tmp_path):
    path = tmp_path / "report.csv"
    fine = FileReport("a.png", "a.png", 4, 3, 1.5, "haze", 0.125)
    write_report(path, [fine, FileReport("b.png", "b.png", error="broken\nin two lines"), FileReport("c", "c", 1, 1)])
    figures = ["a.png", "a.png", "4x3", "1.500", "haze", "0.1250", "", "no", "", "", ""]
    assert [*rows_of(path)["a.png"].values()] == figures
    assert rows_of(path)["b.png"]["error"] == "broken in two lines"

    skipped = [FileReport(name, name, skipped=True) for name in ("a.png", "b.png", "d.png")]
    write_report(path, skipped)
    rows = rows_of(path)
    assert list(rows) == ["a.png", "b.png", "c", "d.png"]
    assert rows["a.png"]["seconds"] == "1.500" and rows["a.png"]["skipped"] == "no"
    assert rows["b.png"]["error"] == "" and rows["b.png"]["skipped"] == "yes"  # repaired by hand since
    assert rows["c"]["size"] == "1x1"
    assert [path.name for path in tmp_path.iterdir()] == ["report.csv"]


@pytest.mark.skipif(sys.platform != "linux", reason="other systems allow no such names")
def test_a_name_that_is_not_unicode_has_one_row(tmp_path):
    report = FileReport(os.fsdecode(b"caf\xe9.png"), os.fsdecode(b"caf\xe9.png"), 4, 3, 1.5)
    for each in (report, report, replace(report, skipped=True, width=0)):
        write_report(tmp_path / "report.csv", [each])
        with (tmp_path / "report.csv").open(encoding="utf-8", newline="") as file:
            assert [(row["file"], row["size"]) for row in csv.DictReader(file)] == [("caf\\udce9.png", "4x3")]


@pytest.mark.parametrize("content", [b"quarter,sales\n1,2\n", b"quarter,sales\n1,\xff\n", b""])
def test_a_foreign_report_file_stays_and_one_that_cannot_be_read_is_named(tmp_path, content):
    path, mine = tmp_path / "report.csv", [FileReport("a.png", "o.png", 2, 2)]
    path.write_bytes(content)
    with pytest.raises(PictureError, match="no report of this program"):
        write_report(path, mine)
    assert path.read_bytes() == content
    path.unlink()
    path.mkdir()
    with pytest.raises(PictureError, match=r"report\.csv: the earlier report"):
        write_report(path, mine)


def test_a_jpeg_that_is_cut_off_is_restored_with_a_note(tmp_path):
    seen, path = [], tmp_path / "in/a.jpg"

    def looking(image, **settings):
        seen.append(image)
        return Inverter()(image)

    path.parent.mkdir()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    (report,) = restore_tree(looking, tmp_path / "in", tmp_path / "out")
    assert report.error == "" and "rows are missing" in report.note
    write_report(tmp_path / "out/report.csv", [report])
    assert rows_of(tmp_path / "out/report.csv")["a.jpg"]["note"] == report.note
    before, after = (read_picture(tmp_path / name / "a.jpg") for name in ("in", "out"))
    assert 5 < (before.present[0, :, 0] == 0).sum() < 40
    # What is not there is left alone, nor looked at.
    torch.testing.assert_close(after.rgb[:, -5:], before.rgb[:, -5:], atol=0.05, rtol=0)
    assert not torch.equal(seen[0], before.rgb)
