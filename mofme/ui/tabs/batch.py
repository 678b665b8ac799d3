"""Tab Batch: many photos and videos, loose, a folder or in ZIP archives, in; one ZIP with a report out."""

import math
import shutil
from collections.abc import Collection, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path, PurePath, PurePosixPath
from typing import Any

import gradio as gr

from mofme.errors import ArchiveError, Cancelled, MofmeError, PictureError
from mofme.files import printable
from mofme.ui.figures import comparison, gallery, save_picture, thumbnail
from mofme.ui.html import cell, table
from mofme.ui.limits import Limits
from mofme.ui.models import Engine, Services
from mofme.ui.runs import Job
from mofme.ui.tabs.restore import Settings, options
from mofme.ui.uploads import (
    KEEP_SECONDS,
    Upload,
    download_button,
    file_box,
    folder_in_work,
    refuse_addresses,
    to_download,
    without_folders,
)
from mofme.ui.work import AT_ONCE, Endpoint, start_and_cancel, status_box, work
from mofme.vision.archive import extract, is_hidden, others_packed, pack
from mofme.vision.batch import BatchSettings, restore_file
from mofme.vision.picture.file import READABLE_SUFFIXES, read_picture
from mofme.vision.picture.kinds import HIDDEN, is_left_out, other_kind
from mofme.vision.report import FileReport, plan_tree, write_report
from mofme.vision.video_file import VIDEO_SUFFIXES

# Where files lie below a chosen folder the browser tells only here: uploads bear their last names alone.
_WITH_FOLDERS = """chosen => {
  const { files } = document.querySelector("#folder").parentElement.querySelector("input[webkitdirectory]");
  return [chosen.map((one, i) => ({...one, orig_name: files[i].webkitRelativePath || one.orig_name}))];
}"""

THUMBNAIL_SIDE = 480
MOST_THUMBNAILS = 60


@dataclass
class BatchProgress:
    """How far a batch of `total` files has come: reports so far, also of what is left out; small pictures before and
    after, with their names; and at the end the two files to download.
    """

    total: int
    reports: list[FileReport]
    looks: list[tuple[str, str, str]] = field(default_factory=list)
    archive: Path | None = None
    report_file: Path | None = None

    def words(self) -> str:
        """How far it is (HTML)."""
        failed, left_out = (sum(bool(getattr(one, what)) for one in self.reports) for what in ("error", "skipped"))
        done = len(self.reports) - left_out
        words = f"{'Done' if self.archive else 'Working'}: {done - failed} of {self.total} restored"
        failures = (f", {failed} failed" if failed else "") + (f", {left_out} left out" if left_out else "")
        if count := len(self.looks):
            first = f"the first {count}" if count == MOST_THUMBNAILS else f"{count}"
            failures += f". Click one of {first} below to see it before and after."
        return f"<p>{words}{failures}</p><progress value='{done}' max='{self.total}'></progress>"


def build(services: Services) -> None:
    """Draw the tab and connect it."""
    limits = services.limits
    with gr.Row():
        with gr.Column(scale=4, min_width=320):
            files = file_box(
                file_count="multiple", label="Photos, videos, or ZIP archives of them", height=220, elem_id="files"
            )
            count = gr.HTML(padding=False, elem_id="count")
            folder = gr.UploadButton("Choose a whole folder", file_count="directory", elem_id="folder")
            refuse_addresses(folder)
            gr.Markdown(
                f"Up to {limits.batch_pictures} files, photos of {limits.megapixels:g} megapixels, "
                f"{limits.upload_megabytes} MB a file, and {limits.batch_seconds / 60:.0f} minutes of work: what is "
                "not done by then is listed. A file that cannot be read is listed and skipped.",
                elem_classes="note",
            )
            buttons = start_and_cancel("Restore all", "restore-all")
            chosen = options(services.engine.models)
        with gr.Column(scale=6, min_width=320):
            status = status_box("The restored photos and videos appear here.", "batch-status")
            with gr.Row():
                archive = download_button("Download ZIP", "archive", min_width=120)
                report = download_button("Report (CSV)", "report", variant="secondary", min_width=120)
            slider = comparison("Left: before. Right: after.", "batch-comparison", "jpeg", 480, visible=False)
            shown = gallery(allow_preview=False, elem_id="restored-photos")
            looks = gr.State([], time_to_live=KEEP_SECONDS)
            reports = gr.HTML(padding=False)

    def compare(looks: list[tuple[str, str]], event: gr.SelectData) -> gr.ImageSlider:
        return gr.ImageSlider(looks[int(event.index)], visible=True)

    files.change(counted, files, count, **AT_ONCE)
    folder.upload(None, folder, files, js=_WITH_FOLDERS, api_visibility="private")
    shown.select(compare, looks, slider, **AT_ONCE)

    def restore_all(
        job: Job, paths: list[Upload] | None, model: str | None, strength: float, ensemble: bool, tile: int
    ) -> Iterator[BatchProgress]:
        if not paths:
            raise PictureError("Choose some photos or videos first, or a ZIP archive of them.")
        settings = Settings(model, strength, ensemble, tile)
        yield from restore_batch(services.engine, job, paths, settings, limits)

    work(
        restore_all,
        [files, *chosen],
        {
            status: BatchProgress.words,
            archive: lambda progress: to_download(progress.archive),
            report: lambda progress: to_download(progress.report_file),
            shown: lambda progress: [(after, name) for _, after, name in progress.looks],
            looks: lambda progress: [(before, after) for before, after, _ in progress.looks],
            reports: lambda progress: report_table(progress.reports),
        },
        buttons,
        status,
        limits.batch_seconds,
        Endpoint(
            "batch",
            "Restore many photos and videos, or ZIP archives of them. Returns a ZIP, report.csv and the report.",
            {"archive": gr.File, "report": gr.File, "files": gr.JSON},
            _for_programs,
            streams=True,
        ),
        scroll_to=status,
        away=limits.away_seconds,
    )


def counted(paths: Sequence[str] | None) -> str:
    """How many files were chosen, and how large they are (HTML)."""
    if not paths:
        return ""
    size = sum(Path(path).stat().st_size for path in paths) / 1e6
    return f"<p><b>{len(paths)} file{'s' * (len(paths) > 1)} chosen</b>, {size:.1f} MB in all</p>"


def report_table(reports: Sequence[FileReport]) -> str:
    """The report of a batch as an HTML table; empty for no reports."""
    if not reports:
        return ""
    heads = ("File", "Size", "Seconds", "Weather", "Routers unsure", "Note")
    return table(heads, [(printable(report.file), *_cells(report)) for report in reports], "files")


def _cells(report: FileReport) -> Sequence[str]:
    if report.error or report.skipped:
        return [cell(report.reason or report.note, class_="problem" if report.error else "", colspan=5)]
    size = f"{report.width} x {report.height}"
    return size, f"{report.seconds:.1f}", report.weather, f"{report.uncertainty:.2f}", report.note


def _for_programs(progress: BatchProgress) -> tuple[str | None, str | None, list[dict[str, Any]]]:
    archive, report = (str(path) if path else None for path in (progress.archive, progress.report_file))
    return archive, report, [asdict(replace(one, error=one.reason)) for one in progress.reports]


def restore_batch(
    engine: Engine, job: Job, uploads: Sequence[Path | Upload], settings: Settings, limits: Limits
) -> Iterator[BatchProgress]:
    """Restore every picture among the uploads, yielding after each; bad files, and those that come too late, are
    reported. Raises MofmeError if there is no picture at all, or too many, and Cancelled if the job was stopped.
    """
    with folder_in_work() as folder:
        source, target = folder / "source", folder / "restored"
        try:
            refused = gather(uploads, source)
            plan = plan_tree(source, target)
            if not plan:
                told = [f"{printable(report.file)}: {report.reason or report.note}" for report in refused[:3]]
                raise PictureError(" ".join(["There is no picture in this upload.", *told]))
            limits.check_batch(len(plan), "pictures")
            restorer = engine.in_turn(settings.model, job.check)
            how = BatchSettings(**settings.of_restorer(), max_megapixels=limits.megapixels)
            progress = BatchProgress(len(plan) + sum(1 for report in refused if report.error), refused)
            yield progress
            for path, output in plan:
                try:
                    job.check()
                except Cancelled:
                    raise
                except MofmeError as error:
                    # Out of time: what is done is handed out all the same.
                    report = FileReport(str(path), str(output), error=str(error))
                else:
                    report = restore_file(restorer, path, output, how, on_progress=lambda _: job.check())
                # Names as the visitor knows them, not where the server keeps the files.
                file, result = path.relative_to(source).as_posix(), output.relative_to(target).as_posix()
                is_video, number = path.suffix.lower() in VIDEO_SUFFIXES, len(progress.looks)
                if not (report.error or is_video) and number < MOST_THUMBNAILS:
                    before = _small(path, folder / f"before-{number}.jpg")
                    after = _small(output, folder / f"after-{number}.jpg")
                    progress.looks.append((before, after, printable(file)))
                progress.reports.append(replace(report, file=file, output=result, error=without_folders(report.error)))
                yield progress
            write_report(target / "report.csv", progress.reports)
            progress.archive, progress.report_file = folder / "restored.zip", folder / "report.csv"
            shutil.copyfile(target / "report.csv", progress.report_file)
            pack(target, progress.archive)
            yield progress
        finally:
            shutil.rmtree(source, ignore_errors=True)
            shutil.rmtree(target, ignore_errors=True)


def _small(picture: Path, path: Path) -> str:
    # What was just restored kept to the limit already.
    return str(save_picture(thumbnail(read_picture(picture, math.inf).rgb, THUMBNAIL_SIDE), path))


def gather(
    uploads: Sequence[Path | Upload], folder: Path, suffixes: Collection[str] = READABLE_SUFFIXES | VIDEO_SUFFIXES
) -> list[FileReport]:
    """Copy files of these suffixes and unpack archives into `folder`, each under the name that its visitor knows, or
    one beside it; report what cannot be used, and as skipped what is left out.
    """
    folder.mkdir(parents=True)
    refused = []
    for upload in uploads:
        path = Path(upload)
        try:
            inside = _free(folder / upload.name)
            if path.suffix.lower() == ".zip":
                inside = _free(inside.with_suffix(""))
                damaged: dict[PurePosixPath, str] = {}
                extract(path, inside, suffixes, damaged)
                for name, why in damaged.items():
                    refused.append(FileReport((inside / name).relative_to(folder).as_posix(), "", error=why))
                others = others_packed(path, suffixes)
                refused += [_left_out((inside / other).relative_to(folder), b"") for other in others]
            elif path.suffix.lower() in suffixes and not is_hidden(PurePath(upload.name)):
                inside.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, inside)
            elif is_left_out(PurePath(upload.name), suffixes):
                with path.open("rb") as file:
                    refused.append(_left_out(inside.relative_to(folder), file.read(32)))
        except ArchiveError as error:
            refused.append(FileReport(upload.name, "", error=without_folders(str(error))))
        except OSError as error:  # its folders make a name that is too long
            refused.append(FileReport(upload.name, "", error=f"cannot be kept here ({error.strerror})."))
    return refused


def _left_out(name: PurePath, header: bytes) -> FileReport:
    known = HIDDEN if name.name.startswith(".") else other_kind(name, header)
    why = known or "is not a kind of picture or video this program reads."
    return FileReport(name.as_posix(), "", skipped=True, note=f"left out: {why}")


def _free(path: Path) -> Path:
    """`path`, or the first of path-2, path-3, ... that does not exist yet."""
    number, free = 2, path
    while free.exists():
        free = path.with_name(f"{path.stem}-{number}{path.suffix}")
        number += 1
    return free
