"""Many uploads, loose or in ZIP archives, to one ZIP with a report: what the Batch tab and `/batch` do."""

import math
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from mofme.errors import ArchiveError, Cancelled, MofmeError, PictureError
from mofme.ui.figures import save_picture, thumbnail
from mofme.ui.jobs import Engine, Job, new_folder, without_folders
from mofme.ui.limits import Limits
from mofme.ui.one_photo import Settings
from mofme.vision.archive import extract, pack
from mofme.vision.batch import FileReport, plan_tree, restore_file, write_report
from mofme.vision.picture.file import READABLE_SUFFIXES, read_picture
from mofme.vision.video_file import VIDEO_SUFFIXES

THUMBNAIL_SIDE = 480
MOST_THUMBNAILS = 60


@dataclass
class BatchProgress:
    """How far a batch has come: reports so far, small pictures to show, and at the end the two files to download."""

    total: int
    reports: list[FileReport]
    thumbnails: list[tuple[str, str]] = field(default_factory=list)
    archive: Path | None = None
    report_file: Path | None = None


def restore_batch(
    engine: Engine, job: Job, uploads: Sequence[Path], settings: Settings, limits: Limits
) -> Iterator[BatchProgress]:
    """Restore every picture among the uploads, yielding after each; bad files are reported and skipped.

    Pictures for which the job's time does not suffice are reported, too. Raises MofmeError if there is no picture at
    all, or too many of them, and Cancelled if the visitor stopped the job.
    """
    folder = new_folder()
    source, target = folder / "source", folder / "restored"
    try:
        refused = gather(uploads, source)
        plan = plan_tree(source, target)
        if not plan:
            reasons = " ".join(f"{report.file}: {report.error}" for report in refused[:3])
            raise PictureError(f"There is no picture in this upload. {reasons}".strip())
        if len(plan) > limits.batch_pictures:
            raise MofmeError(
                f"{len(plan)} pictures are more than the limit of {limits.batch_pictures}: upload fewer at a time."
            )
        restorer = engine.restorer(settings.model)
        progress = BatchProgress(len(plan) + len(refused), refused)
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
                with engine.turn:
                    report = restore_file(
                        restorer,
                        path,
                        output,
                        strength=settings.strength,
                        ensemble=settings.ensemble,
                        tile=settings.tile_side,
                        max_megapixels=limits.megapixels,
                        on_progress=lambda _: job.check(),
                    )
            if not report.error and len(progress.thumbnails) < MOST_THUMBNAILS:
                small = folder / f"thumbnail-{len(progress.thumbnails)}.jpg"
                # What was just written kept to the limit already.
                save_picture(thumbnail(read_picture(output, math.inf).rgb, THUMBNAIL_SIDE), small)
                progress.thumbnails.append((str(small), path.name))
            progress.reports.append(_relative(report, source, target))
            yield progress
        write_report(target / "report.csv", progress.reports)
        progress.archive, progress.report_file = folder / "restored.zip", folder / "report.csv"
        shutil.copyfile(target / "report.csv", progress.report_file)
        pack(target, progress.archive)
        yield progress
    finally:
        shutil.rmtree(source, ignore_errors=True)
        shutil.rmtree(target, ignore_errors=True)


def gather(uploads: Sequence[Path], folder: Path) -> list[FileReport]:
    """Copy pictures and unpack archives into `folder`, each under a name of its own; report what cannot be used."""
    folder.mkdir(parents=True)
    refused = []
    for upload in uploads:
        suffix = upload.suffix.lower()
        if suffix == ".zip":
            try:
                extract(upload, _free(folder / upload.stem))
            except ArchiveError as error:
                refused.append(FileReport(upload.name, "", error=without_folders(str(error))))
        elif suffix in READABLE_SUFFIXES:
            shutil.copyfile(upload, _free(folder / upload.name))
        elif suffix in VIDEO_SUFFIXES:
            refused.append(FileReport(upload.name, "", error="is a video: restore it in the tab Video."))
        else:
            refused.append(FileReport(upload.name, "", error="is not a kind of picture this program reads."))
    return refused


def _free(path: Path) -> Path:
    """`path`, or the first of path-2, path-3, ... that does not exist yet."""
    number, free = 2, path
    while free.exists():
        free = path.with_name(f"{path.stem}-{number}{path.suffix}")
        number += 1
    return free


def _relative(report: FileReport, source: Path, target: Path) -> FileReport:
    """The report with names as the visitor knows them, not where the server keeps the files."""
    file, output = Path(report.file).relative_to(source), Path(report.output).relative_to(target)
    return replace(report, file=file.as_posix(), output=output.as_posix(), error=without_folders(report.error))
