import csv
import io
import os
import shutil
import time
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from gradio.data_classes import FileData
from gradio.utils import get_upload_folder
from playwright.sync_api import Page, expect

from mofme.errors import Cancelled, MofmeError, PictureError
from mofme.ui.limits import Limits
from mofme.ui.models import Engine, Services
from mofme.ui.runs import Job
from mofme.ui.tabs import batch
from mofme.ui.tabs.batch import BatchProgress, counted, report_table, restore_batch
from mofme.ui.tabs.restore import Settings
from mofme.ui.uploads import RESULTS, Upload, new_folder
from mofme.vision.report import FileReport
from tests.films import film
from tests.ui.one_tab import one_tab


def run(engine: Engine, uploads: Sequence[Path | Upload], limits: Limits | None = None) -> BatchProgress:
    *_, last = restore_batch(engine, Job(60), uploads, Settings("small"), limits or Limits())
    return last


def zipped(path: Path, *files: Path) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for file in files:
            archive.write(file, f"inner/{file.name}")
    return path


def test_loose_files_and_archives_come_back_in_one_zip_with_the_report(
    engine: Engine, photo: Path, broken: Path, tmp_path: Path
) -> None:
    notes = tmp_path / "notes.txt"
    notes.write_text("no picture")
    progress = run(engine, [photo, broken, notes, zipped(tmp_path / "trip.zip", photo, broken)])
    assert progress.archive is not None
    assert progress.report_file is not None
    with zipfile.ZipFile(progress.archive) as archive:
        assert set(archive.namelist()) == {"my photo.jpg", "trip/inner/my photo.jpg", "report.csv"}
        inside = archive.read("report.csv")
    assert inside == progress.report_file.read_bytes()
    rows = {row["file"]: row["error"] for row in csv.DictReader(io.StringIO(inside.decode()))}
    assert {name for name, error in rows.items() if error} == {"broken.jpg", "trip/inner/broken.jpg"}
    assert not any("/gradio" in error or str(tmp_path) in error for error in rows.values())
    assert [caption for _, caption in progress.thumbnails] == ["my photo.jpg", "trip/inner/my photo.jpg"]


def test_names_in_an_archive_are_shown_without_their_codes(engine: Engine, photo: Path, tmp_path: Path) -> None:
    name, trip = "a\x1b[2J\u202egpj.jpg", tmp_path / "trip.zip"
    with zipfile.ZipFile(trip, "w") as archive:
        archive.write(photo, name)
    progress = run(engine, [trip])
    shown = (
        report_table(progress.reports) + str(progress.thumbnails) + (progress.report_file or trip).read_text("utf-8")
    )
    assert shown.count("a\\x1b[2J\\u202egpj.jpg") >= 3 and not set(shown) & set("\x1b\u202e")
    with zipfile.ZipFile(progress.archive or trip) as archive:
        assert f"trip/{name}" in archive.namelist()


def test_progress_is_told_after_every_picture(engine: Engine, photo: Path, broken: Path) -> None:
    counts = [
        (len(progress.reports), progress.total)
        for progress in restore_batch(engine, Job(60), [photo, broken], Settings("small"), Limits())
    ]
    assert counts == [(0, 2), (1, 2), (2, 2), (2, 2)]


def test_all_chosen_files_are_counted(photo: Path) -> None:
    assert "<b>16 files chosen</b>" in counted([str(photo)] * 16)
    assert "<b>1 file chosen</b>" in counted([str(photo)])
    assert counted(None) == ""


def test_nothing_but_refused_files_is_an_error_that_says_why(engine: Engine, tmp_path: Path) -> None:
    bad = tmp_path / "bad.zip"
    bad.write_bytes(b"PK no zip")
    with pytest.raises(PictureError, match=r"bad\.zip"):
        run(engine, [bad])


def test_too_many_pictures_are_refused_before_work_begins(engine: Engine, photo: Path, broken: Path) -> None:
    with pytest.raises(MofmeError, match="2 pictures are more than the limit of 1"):
        run(engine, [photo, broken], Limits(batch_pictures=1))


def test_what_is_done_when_the_time_is_up_comes_back(engine: Engine, photo: Path, tmp_path: Path) -> None:
    second = tmp_path / "second.jpg"
    shutil.copyfile(photo, second)
    job = Job(60)
    batch = restore_batch(engine, job, [photo, second], Settings("small"), Limits())
    next(batch), next(batch)
    job._deadline = 0.0
    *_, last = batch
    assert [bool(report.error) for report in last.reports] == [False, True]
    assert "longer than the limit of 60 s" in last.reports[1].error
    assert last.archive is not None
    with zipfile.ZipFile(last.archive) as archive:
        assert set(archive.namelist()) == {"my photo.jpg", "report.csv"}


def test_cancelling_stops_and_removes_what_was_unpacked(engine: Engine, photo: Path, broken: Path) -> None:
    job = Job(60)
    batch = restore_batch(engine, job, [photo, broken], Settings("small"), Limits())
    next(batch)
    job.cancel()
    with pytest.raises(Cancelled):
        next(batch)
    assert list(Path(get_upload_folder()).glob("mofme-*/source")) == []


def test_names_of_files_cannot_smuggle_in_html() -> None:
    table = report_table([FileReport("<img src=x>.jpg", "", error="<script>"), FileReport("b.jpg", "b.jpg", 3, 2)])
    assert "<img" not in table
    assert "<script" not in table
    assert "3 x 2" in table


def handed_in(path: Path, name: str) -> Upload:
    return Upload(FileData(path=str(path), orig_name=name))


def test_folders_that_were_chosen_stay_in_table_and_zip(engine: Engine, photo: Path, tmp_path: Path) -> None:
    uploads = [handed_in(photo, f"{folder}/my photo.jpg") for folder in ("trip/one", "trip/two", "trip\\one")]
    progress = run(engine, uploads)
    names = ["trip/one/my photo-2.jpg", "trip/one/my photo.jpg", "trip/two/my photo.jpg"]
    assert sorted(report.file for report in progress.reports) == names
    assert sorted(name for _, name in progress.thumbnails) == names
    assert progress.archive is not None
    with zipfile.ZipFile(progress.archive) as archive:
        assert sorted(archive.namelist()) == sorted([*names, "report.csv"])


@pytest.mark.parametrize(
    "name", ["../../x.jpg", "/etc/x.jpg", "C:\\x.jpg", "a/../../x.jpg", "..\\..\\x.jpg", "\0/\n/x"]
)
def test_no_name_leads_out(engine: Engine, photo: Path, name: str) -> None:
    (report,) = run(engine, [handed_in(photo, name)]).reports
    assert report.error == ""
    assert report.file.isprintable()
    assert ".." not in report.file.split("/")
    assert report.file.endswith("my photo.jpg")


def test_a_name_too_long_is_told_of_that_file_alone(engine: Engine, photo: Path) -> None:
    long, good = run(engine, [handed_in(photo, f"{'a' * 300}/x.jpg"), photo]).reports
    assert "too long" in long.error
    assert good.error == ""


def test_what_is_no_picture_is_left_out_and_not_failed(engine: Engine, photo: Path, tmp_path: Path) -> None:
    trip, anime = tmp_path / "trip.zip", tmp_path / "a.gif"
    anime.write_bytes(b"GIF89a")
    with zipfile.ZipFile(trip, "w") as archive:
        archive.write(photo, "sub/a.jpg")
        archive.write(film(tmp_path / "a.mp4", frames=2), "sub/a.mp4")
        archive.writestr("sub/notes.txt", "no picture")
        archive.writestr("__MACOSX/._a.jpg", "no picture")
    progress = run(engine, [trip, anime])
    assert progress.words().startswith("<p>Done: 2 of 2 restored, 2 left out.")
    told = {report.file: report.note for report in progress.reports if report.skipped}
    assert told == {
        "trip/sub/notes.txt": "left out: is not a kind of picture or video this program reads.",
        "a.gif": "left out: is a GIF, which has 256 colours: save it as PNG or WebP first (animations too) or as "
        "a video.",
    }
    assert "class='problem'" not in report_table(progress.reports)
    with pytest.raises(PictureError, match=r"no picture.*GIF"):
        run(engine, [anime])


def test_a_person_chooses_a_folder(visit: Callable[..., Page], engine: Engine, photo: Path, tmp_path: Path) -> None:
    for folder in ("one", "two"):
        (tmp_path / "trip" / folder).mkdir(parents=True)
        shutil.copyfile(photo, tmp_path / "trip" / folder / "a.jpg")
    with one_tab(lambda: batch.build(Services(engine))) as address:
        page = visit(address)
        page.set_input_files("input[webkitdirectory]", tmp_path / "trip")
        expect(page.locator("#count")).to_contain_text("2 files chosen")
        page.click("#restore-all")
        expect(page.get_by_text("Done: 2 of 2 restored")).to_be_visible()
        for folder in ("one", "two"):
            expect(page.locator(".table.files")).to_contain_text(f"trip/{folder}/a.jpg")


def test_what_is_restored_stays_while_a_slow_file_takes_minutes(
    engine: Engine, photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    second = tmp_path / "second.jpg"
    shutil.copyfile(photo, second)
    steps = restore_batch(engine, Job(60), [photo, second], Settings("small"), Limits())
    next(steps)
    folder = Path(next(steps).thumbnails[0][0]).parent
    for one in (folder, *folder.rglob("*")):
        os.utime(one, (0, time.time() - 100))
    monkeypatch.setattr(RESULTS, "most_bytes", 0)
    monkeypatch.setattr(RESULTS, "_looked", 0.0)
    new_folder()  # of somebody else
    *_, last = steps
    with zipfile.ZipFile(last.archive) as archive:
        assert set(archive.namelist()) == {photo.name, "second.jpg", "report.csv"}
    assert not RESULTS.in_work
