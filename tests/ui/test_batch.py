import csv
import io
import os
import shutil
import time
import zipfile
from collections.abc import Sequence
from pathlib import Path

import pytest
from gradio.data_classes import FileData
from gradio.utils import get_upload_folder

from mofme.errors import Cancelled, MofmeError, PictureError
from mofme.ui.limits import Limits
from mofme.ui.models import Engine
from mofme.ui.runs import Job
from mofme.ui.tabs.batch import BatchProgress, counted, report_table, restore_batch
from mofme.ui.tabs.restore import Settings
from mofme.ui.uploads import RESULTS, Upload, new_folder
from mofme.vision.report import FileReport
from tests.films import film


def run(engine: Engine, uploads: Sequence[Path | Upload], limits: Limits | None = None) -> BatchProgress:
    *_, last = restore_batch(engine, Job(60), uploads, Settings("small"), limits or Limits())
    return last


def packed(progress: BatchProgress) -> set[str]:
    assert progress.archive is not None
    with zipfile.ZipFile(progress.archive) as archive:
        return set(archive.namelist())


@pytest.fixture
def second(photo: Path) -> Path:
    return Path(shutil.copyfile(photo, photo.with_name("second.jpg")))


def test_loose_files_and_archives_come_back_in_one_zip_with_the_report(
    engine: Engine, photo: Path, broken: Path, tmp_path: Path
) -> None:
    (tmp_path / "notes.txt").write_text("no picture")
    with zipfile.ZipFile(tmp_path / "trip.zip", "w") as archive:
        for file in (photo, broken):
            archive.write(file, f"inner/{file.name}")
    progress = run(engine, [photo, broken, tmp_path / "notes.txt", tmp_path / "trip.zip"])
    assert packed(progress) == {"my photo.jpg", "trip/inner/my photo.jpg", "report.csv"}
    assert progress.report_file is not None and progress.archive is not None
    with zipfile.ZipFile(progress.archive) as archive:
        assert archive.read("report.csv") == progress.report_file.read_bytes()
    report = progress.report_file.read_text("utf-8")
    rows = {row["file"]: row["error"] for row in csv.DictReader(io.StringIO(report))}
    assert {name for name, error in rows.items() if error} == {"broken.jpg", "trip/inner/broken.jpg"}
    assert not any("/gradio" in error or str(tmp_path) in error for error in rows.values())
    assert [name for *_, name in progress.looks] == ["my photo.jpg", "trip/inner/my photo.jpg"]


def test_what_is_damaged_in_an_archive_does_not_stop_the_rest_of_it(
    engine: Engine, photo: Path, tmp_path: Path
) -> None:
    trip, data = tmp_path / "trip.zip", photo.read_bytes()
    with zipfile.ZipFile(trip, "w") as archive:
        for name in ("a.jpg", "b.jpg", f"{'c' * 300}.jpg", "d.jpg", "d.jpg/e.jpg", "f.jpg"):
            archive.writestr(name, data)
    packed_up = bytearray(trip.read_bytes())
    packed_up[packed_up.index(b"b.jpg") + 200] ^= 1
    trip.write_bytes(packed_up)
    progress = run(engine, [trip])
    assert packed(progress) == {"trip/a.jpg", "trip/d.jpg", "trip/f.jpg", "report.csv"}
    failed = {one.file: one.error for one in progress.reports if one.error}
    assert set(failed) == {"trip/b.jpg", f"trip/{'c' * 300}.jpg", "trip/d.jpg/e.jpg"}
    assert all(why.startswith("cannot be unpacked (") and str(tmp_path) not in why for why in failed.values())


def test_names_are_shown_without_their_codes_and_markup(engine: Engine, photo: Path, tmp_path: Path) -> None:
    name, trip = "a\x1b[2J\u202egpj.jpg", tmp_path / "trip.zip"
    with zipfile.ZipFile(trip, "w") as archive:
        archive.write(photo, name)
    progress = run(engine, [trip])
    shown = report_table(progress.reports) + str(progress.looks) + (progress.report_file or trip).read_text("utf-8")
    assert shown.count("a\\x1b[2J\\u202egpj.jpg") >= 3 and not set(shown) & set("\x1b\u202e")
    assert f"trip/{name}" in packed(progress)
    table = report_table([FileReport("<img src=x>.jpg", "", error="<script>"), FileReport("b.jpg", "b.jpg", 3, 2)])
    assert "<img" not in table and "<script" not in table and "3 x 2" in table


def test_chosen_files_are_counted_and_progress_is_told_after_every_picture(
    engine: Engine, photo: Path, broken: Path
) -> None:
    assert "<b>16 files chosen</b>" in counted([str(photo)] * 16)
    assert "<b>1 file chosen</b>" in counted([str(photo)])
    assert counted(None) == ""
    steps = restore_batch(engine, Job(60), [photo, broken], Settings("small"), Limits())
    assert [(len(one.reports), one.total) for one in steps] == [(0, 2), (1, 2), (2, 2), (2, 2)]


def test_too_many_pictures_and_nothing_but_refused_files_are_errors_that_say_why(
    engine: Engine, photo: Path, broken: Path, tmp_path: Path
) -> None:
    with pytest.raises(MofmeError, match="2 pictures are more than the limit of 1"):
        run(engine, [photo, broken], Limits(batch_pictures=1))
    bad = tmp_path / "bad.zip"
    bad.write_bytes(b"PK no zip")
    with pytest.raises(PictureError, match=r"bad\.zip"):
        run(engine, [bad])


def test_what_is_done_when_the_time_is_up_comes_back(engine: Engine, photo: Path, second: Path) -> None:
    job = Job(60)
    batch = restore_batch(engine, job, [photo, second], Settings("small"), Limits())
    next(batch), next(batch)
    job._deadline = 0.0
    *_, last = batch
    assert [bool(report.error) for report in last.reports] == [False, True]
    assert "longer than the limit of 60 s" in last.reports[1].error
    assert packed(last) == {"my photo.jpg", "report.csv"}


def test_cancelling_stops_and_removes_what_was_unpacked(engine: Engine, photo: Path, second: Path) -> None:
    job = Job(60)
    batch = restore_batch(engine, job, [photo, second], Settings("small"), Limits())
    next(batch)
    job.cancel()
    with pytest.raises(Cancelled):
        next(batch)
    assert list(Path(get_upload_folder()).glob("mofme-*/source")) == []


def handed_in(path: Path, name: str) -> Upload:
    return Upload(FileData(path=str(path), orig_name=name))


def test_folders_that_were_chosen_stay_in_table_and_zip(engine: Engine, photo: Path) -> None:
    progress = run(engine, [handed_in(photo, f"{folder}/x.jpg") for folder in ("trip/one", "trip/two", "trip\\one")])
    names = ["trip/one/my photo-2.jpg", "trip/one/my photo.jpg", "trip/two/my photo.jpg"]
    assert sorted(report.file for report in progress.reports) == names
    assert sorted(name for *_, name in progress.looks) == names
    assert packed(progress) == {*names, "report.csv"}


def test_no_name_leads_out_and_one_too_long_is_told_of_that_file_alone(engine: Engine, photo: Path) -> None:
    names = ["../../x.jpg", "/etc/x.jpg", "C:\\x.jpg", "a/../../x.jpg", "..\\..\\x.jpg", "\0/\n/x"]
    reports = run(engine, [handed_in(photo, name) for name in [*names, f"{'a' * 300}/x.jpg"]]).reports
    (long,) = [report for report in reports if report.error]
    assert "too long" in long.error and len(reports) == 7
    for report in reports:
        assert report.file.isprintable() and ".." not in report.file.split("/")
        assert report.error or Path(report.file).name.startswith("my photo")


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


def test_what_is_restored_stays_while_a_slow_file_takes_minutes(
    engine: Engine, photo: Path, second: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = restore_batch(engine, Job(60), [photo, second], Settings("small"), Limits())
    next(steps)
    folder = Path(next(steps).looks[0][0]).parent
    for one in (folder, *folder.rglob("*")):
        os.utime(one, (0, time.time() - 100))
    monkeypatch.setattr(RESULTS, "most_bytes", 0)
    monkeypatch.setattr(RESULTS, "_looked", 0.0)
    new_folder()  # of somebody else
    *_, last = steps
    assert packed(last) == {photo.name, "second.jpg", "report.csv"}
    assert not RESULTS.in_work


def test_a_hidden_photo_is_listed_and_what_macos_keeps_beside_it_is_not(engine: Engine, photo: Path) -> None:
    files = [Path(shutil.copyfile(photo, photo.with_name(name))) for name in (".hidden.jpg", "._my photo.jpg")]
    progress = run(engine, [photo, *files])
    left_out = {one.file: one.note for one in progress.reports if one.skipped}
    assert list(left_out) == [".hidden.jpg"] and "rename it to have it restored" in left_out[".hidden.jpg"]
    assert packed(progress) == {"my photo.jpg", "report.csv"}
