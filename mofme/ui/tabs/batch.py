"""Tab Batch: many photos or a ZIP in, a ZIP and a report out."""

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import gradio as gr

from mofme.errors import PictureError
from mofme.ui.buttons import run_and_cancel
from mofme.ui.figures import report_table
from mofme.ui.jobs import plain_errors
from mofme.ui.many_photos import BatchProgress, restore_batch
from mofme.ui.one_photo import Settings
from mofme.ui.options import options
from mofme.ui.services import Services
from mofme.ui.uploads import files_box


def build(services: Services) -> None:
    """Draw the tab and connect it."""
    limits = services.limits
    with gr.Row():
        with gr.Column(scale=4, min_width=320):
            files = files_box(label="Photos, or ZIP archives of photos", height=220, elem_id="files")
            gr.Markdown(
                f"Up to {limits.batch_pictures} photos of {limits.megapixels:g} megapixels, "
                f"{limits.upload_megabytes} MB a file. A file that cannot be read is listed and skipped.",
                elem_classes="note",
            )
            with gr.Row():
                start = gr.Button("Restore all", variant="primary", scale=3, min_width=160, elem_id="restore-all")
                cancel = gr.Button("Cancel", interactive=False, scale=1, min_width=90)
            chosen = options(services.engine.models)
        with gr.Column(scale=6, min_width=320):
            status = gr.HTML(
                '<p class="note">The restored photos appear here.</p>',
                padding=False,
                elem_classes="status",
                min_height=60,
            )
            with gr.Row():
                archive = gr.DownloadButton(
                    "Download ZIP", variant="primary", visible=False, min_width=120, elem_id="archive"
                )
                report = gr.DownloadButton("Report (CSV)", visible=False, min_width=120, elem_id="report")
            gallery = gr.Gallery(
                columns=3,
                height="auto",
                object_fit="cover",
                interactive=False,
                buttons=[],
                show_label=False,
                elem_classes=["pictures", "wide"],
            )
            table = gr.HTML(padding=False)

    inputs = [files, *chosen.widgets]

    def restore_all(
        paths: list[str] | None,
        model: str | None,
        strength: float,
        ensemble: bool,
        tile: int,
        request: gr.Request,
    ) -> Iterator[tuple[Any, ...]]:
        with plain_errors():
            for progress in _restore_all(services, paths, Settings(model, strength, ensemble, tile), request):
                yield _show(progress)

    def batch_api(
        paths: list[str] | None,
        model: str | None,
        strength: float,
        ensemble: bool,
        tile: int,
        request: gr.Request,
    ) -> Iterator[tuple[str | None, str | None, list[dict[str, Any]]]]:
        with plain_errors():
            for progress in _restore_all(services, paths, Settings(model, strength, ensemble, tile), request):
                rows = [asdict(report) for report in progress.reports]
                yield _path(progress.archive), _path(progress.report_file), rows

    run_and_cancel(
        start,
        cancel,
        status,
        services.batches,
        restore_all,
        inputs,
        [status, archive, report, gallery, table],
        show_progress_on=status,
        concurrency_id="batch",
    )
    gr.Button(visible=False).click(
        batch_api,
        inputs,
        [
            gr.File(label="archive", visible=False),
            gr.File(label="report", visible=False),
            gr.JSON(label="files", visible=False),
        ],
        api_name="batch",
        api_description="Restore many photos, or ZIP archives of photos. Returns a ZIP, report.csv and the report.",
        concurrency_limit=1,
        concurrency_id="batch",
    )


def _restore_all(
    services: Services, paths: list[str] | None, settings: Settings, request: gr.Request
) -> Iterator[BatchProgress]:
    if not paths:
        raise PictureError("Choose some photos first, or a ZIP archive of photos.")
    with services.batches.running(request, services.limits.batch_seconds) as job:
        yield from restore_batch(services.engine, job, [Path(path) for path in paths], settings, services.limits)


def _show(progress: BatchProgress) -> tuple[Any, ...]:
    """Values for the widgets that show a batch, in their order."""
    finished = progress.archive is not None
    failed = sum(1 for report in progress.reports if report.error)
    done = len(progress.reports)
    state = "Done" if finished else "Working"
    words = f"{state}: {done - failed} of {progress.total} restored" + (f", {failed} failed" if failed else "")
    return (
        f'<p>{words}</p><progress value="{done}" max="{progress.total}"></progress>',
        gr.DownloadButton(value=_path(progress.archive), visible=finished),
        gr.DownloadButton(value=_path(progress.report_file), visible=finished),
        list(progress.thumbnails),
        report_table(progress.reports),
    )


def _path(path: Path | None) -> str | None:
    return str(path) if path else None
