"""Tab Video: one video in, the restored one out, with a look at it on the way."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr

from mofme.errors import PictureError
from mofme.ui.buttons import run_and_cancel
from mofme.ui.jobs import plain_errors
from mofme.ui.one_photo import Settings
from mofme.ui.one_video import VideoProgress, restore_upload
from mofme.ui.options import options
from mofme.ui.services import Services
from mofme.ui.uploads import file_box
from mofme.vision.video_file import VIDEO_SUFFIXES


def build(services: Services) -> None:
    """Draw the tab and connect it."""
    limits = services.limits
    with gr.Row():
        with gr.Column(scale=4, min_width=320):
            video = file_box(label="Your video", file_types=sorted(VIDEO_SUFFIXES), height=160, elem_id="video")
            gr.Markdown(
                f"Up to {limits.upload_megabytes} MB, and {limits.batch_seconds / 60:.0f} minutes of work. A frame "
                "takes as long as a photo of its size: small videos are done much sooner. The sound stays.",
                elem_classes="note",
            )
            with gr.Row():
                start = gr.Button("Restore", variant="primary", scale=3, min_width=160, elem_id="restore-video")
                cancel = gr.Button("Cancel", interactive=False, scale=1, min_width=90)
            chosen = options(services.engine.models, "video")
        with gr.Column(scale=6, min_width=320):
            status = gr.HTML(
                '<p class="note">Choose a video and press <b>Restore</b>: you see its frames as they get done.</p>',
                padding=False,
                elem_classes="status",
                min_height=60,
            )
            slider = gr.ImageSlider(
                label="Before and after",
                type="filepath",
                format="jpeg",
                interactive=False,
                max_height=480,
                buttons=["fullscreen"],
                elem_id="video-comparison",
            )
            restored = gr.Video(
                label="Restored", interactive=False, visible=False, height=480, buttons=[], elem_id="restored-video"
            )
            download = gr.DownloadButton(
                "Download the restored video", variant="primary", visible=False, elem_id="download-video"
            )

    inputs = [video, *chosen.widgets]

    def restore_and_show(
        path: str | None, model: str | None, strength: float, ensemble: bool, tile: int, request: gr.Request
    ) -> Iterator[tuple[Any, ...]]:
        with plain_errors():
            for progress in _restore(services, path, Settings(model, strength, ensemble, tile), request):
                yield _show(progress)

    def video_api(
        path: str | None, model: str | None, strength: float, ensemble: bool, tile: int, request: gr.Request
    ) -> tuple[str, dict[str, Any]]:
        with plain_errors():
            *_, last = _restore(services, path, Settings(model, strength, ensemble, tile), request)
            return str(last.video), _report(last)

    run_and_cancel(
        start,
        cancel,
        status,
        services.filming,
        restore_and_show,
        inputs,
        [status, slider, restored, download],
        show_progress_on=status,
        brought_into_view=slider,
        concurrency_id="video",
    )
    gr.Button(visible=False).click(
        video_api,
        inputs,
        [gr.File(label="restored", visible=False), gr.JSON(label="report", visible=False)],
        api_name="video",
        api_description="Restore one video. Returns the restored file, with its sound, and a report.",
        concurrency_limit=1,
        concurrency_id="video",
    )


def _restore(services: Services, path: str | None, settings: Settings, request: gr.Request) -> Iterator[VideoProgress]:
    if not path:
        raise PictureError("Choose a video first: drop one into the box, or click it.")
    with services.filming.running(request, services.limits.batch_seconds) as job:
        yield from restore_upload(services.engine, job, Path(path), settings, services.limits)


def _show(progress: VideoProgress) -> tuple[Any, ...]:
    """Values for the widgets that show a video, in their order."""
    path = str(progress.video) if progress.video else None
    look = progress.look
    return (
        _words(progress),
        (str(look[0]), str(look[1])) if look else None,
        gr.Video(value=path, visible=path is not None),
        gr.DownloadButton(value=path, visible=path is not None),
    )


def _words(progress: VideoProgress) -> str:
    seen = "no bad weather seen" if progress.weather == "clear" else f"seen: <b>{progress.weather}</b>"
    rate = f"{progress.rate:.1f} frames a second"
    if progress.video is None:
        of, left, bar = "", "", "<progress></progress>"
        if progress.frames:
            of = f" of {progress.frames}"
            minutes = max(progress.frames - progress.number, 0) / progress.rate / 60 if progress.rate else 0
            left = " · less than a minute left" if minutes < 1 else f" · about {minutes:.0f} min left"
            bar = f'<progress value="{progress.number}" max="{progress.frames}"></progress>'
        return f"<p>Frame {progress.number}{of} · {rate}{left} · {seen}</p>{bar}"
    late = " Time was up before the last frame: this is the beginning of it." if progress.late else ""
    damaged = f" {progress.damaged} parts could not be read and are missing." if progress.damaged else ""
    return f"<p>Done: {progress.number} frames · {rate} · {seen}.{late}{damaged}</p>"


def _report(progress: VideoProgress) -> dict[str, Any]:
    return {
        "frames": progress.number,
        "seconds": round(progress.seconds, 3),
        "weather": progress.weather,
        "frames_by_weather": dict(progress.weathers),
        "damaged": progress.damaged,
        "complete": not progress.late,
    }
