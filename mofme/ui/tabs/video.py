"""Tabs Video and Live: one video in, the restored one out, with a look at it on the way; what a camera sees now."""

import hashlib
import shutil
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
import torch
from numpy.typing import NDArray

from mofme.errors import PictureError
from mofme.ui.figures import comparison, save_picture, thumbnail
from mofme.ui.html import notes_html
from mofme.ui.limits import Limits
from mofme.ui.models import Engine, Services
from mofme.ui.runs import Job
from mofme.ui.tabs.restore import Settings, model_box, options
from mofme.ui.uploads import download_button, file_box, folder_in_work, kept_folder, refuse_addresses, to_download
from mofme.ui.work import Endpoint, plain_errors, start_and_cancel, status_box, work
from mofme.vision.report import output_suffix
from mofme.vision.restorer import TemporalSmoother
from mofme.vision.video import RestoredFrame, restore_video
from mofme.vision.video_file import VIDEO_SUFFIXES

LOOK_EVERY = 2.0  # seconds
_LOOK_SIDE = 960


@dataclass
class VideoProgress:
    """How far a video has come: frames done, the first `known` by an earlier run, of about how many (0: unknown), and a
    small `look` before and after. At the end `video` is the restored file, or its beginning if the work was `late`.
    """

    number: int = 0
    known: int = 0
    frames: int = 0
    damaged: int = 0
    seconds: float = 0.0
    late: bool = False
    weathers: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)
    look: tuple[Path, Path] | None = None
    video: Path | None = None

    @property
    def rate(self) -> float:
        """Frames a second."""
        return (self.number - self.known) / self.seconds if self.seconds else 0.0

    @property
    def weather(self) -> str:
        """What was seen in most frames."""
        return self.weathers.most_common(1)[0][0] if self.weathers else "clear"

    def words(self) -> str:
        """How far it is, or what came of it (HTML)."""
        seen = "no bad weather seen" if self.weather == "clear" else f"seen: <b>{self.weather}</b>"
        rate = f"{self.rate:.1f} frames a second"
        if self.video is None:
            of, left, bar = "", "", "<progress></progress>"
            if self.frames:
                of = f" of {self.frames}"
                minutes = max(self.frames - self.number, 0) / self.rate / 60 if self.rate else 0
                left = " · less than a minute left" if minutes < 1 else f" · about {minutes:.0f} min left"
                bar = f"<progress value='{self.number}' max='{self.frames}'></progress>"
            return f"<p>Frame {self.number}{of} · {rate}{left} · {seen}</p>{bar}"
        late = " Time was up before the last frame: this is the beginning of it." if self.late else ""
        damaged = f" {self.damaged} parts could not be read and are missing." if self.damaged else ""
        return f"<p>Done: {self.number} frames · {rate} · {seen}.{late}{damaged}</p>{notes_html(self.notes)}"

    def report(self) -> dict[str, Any]:
        """What programs are told."""
        return {
            "frames": self.number,
            "seconds": round(self.seconds, 3),
            "weather": self.weather,
            "frames_by_weather": dict(self.weathers),
            "damaged": self.damaged,
            "notes": self.notes,
            "complete": not self.late,
        }


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
            buttons = start_and_cancel("Restore", "restore-video")
            chosen = options(services.engine.models, "video")
        with gr.Column(scale=6, min_width=320):
            status = status_box("Choose a video and press <b>Restore</b>: you see its frames as they get done.")
            slider = comparison("Left: before. Right: after.", "video-comparison", "jpeg", 480)
            download = download_button("Download the restored video", "download-video")
            restored = gr.Video(
                label="Restored", interactive=False, visible=False, height=480, buttons=[], elem_id="restored-video"
            )

    def restore(
        job: Job, path: str | None, model: str | None, strength: float, ensemble: bool, tile: int
    ) -> Iterator[VideoProgress]:
        if not path:
            raise PictureError("Choose a video first: drop one into the box, or click it.")
        yield from restore_upload(services.engine, job, Path(path), Settings(model, strength, ensemble, tile), limits)

    work(
        restore,
        [video, *chosen],
        {
            status: VideoProgress.words,
            slider: lambda progress: progress.look and tuple(map(str, progress.look)),
            restored: lambda progress: gr.Video(
                value=progress.video and str(progress.video), visible=progress.video is not None
            ),
            download: lambda progress: to_download(progress.video),
        },
        buttons,
        status,
        limits.batch_seconds,
        Endpoint(
            "video",
            "Restore one video. Returns the restored file, with its sound, and a report.",
            {"restored": gr.File, "report": gr.JSON},
            lambda progress: (str(progress.video), progress.report()),
        ),
        scroll_to=slider,
        away=limits.away_seconds,
        stopped="Stopped. Restore the same video again, and it goes on from here.",
    )


def restore_upload(
    engine: Engine, job: Job, upload: Path, settings: Settings, limits: Limits
) -> Iterator[VideoProgress]:
    """Restore an uploaded video, yielding every other second and at the end, or when the time is up. Raises MofmeError.

    Stopped work goes on where it was when the same video is restored again with the same settings.
    """
    with folder_in_work() as folder:
        suffix = output_suffix(upload, None) if upload.suffix.lower() in VIDEO_SUFFIXES else ".mp4"
        output = folder / f"{upload.stem}-restored{suffix}"
        progress = VideoProgress()
        restorer = engine.in_turn(settings.model, job.check_cancelled)
        with upload.open("rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
        what = f"{content} {suffix} {settings} {restorer.version}"

        def late() -> bool:
            progress.late = job.late()
            return progress.late

        with kept_folder(hashlib.sha256(what.encode()).hexdigest()) as kept:
            begun, looked = time.monotonic(), 0.0
            frames = restore_video(
                restorer,
                upload,
                kept / f"restored{suffix}",
                **settings.of_restorer(),
                max_megapixels=limits.megapixels,
                enough=late,
                known_as=content,
            )
            with closing(frames):
                for frame in frames:
                    job.check_cancelled()
                    if not progress.number:
                        progress.known = frame.number - 1
                    progress.number, progress.frames, progress.weathers = frame.number, frame.frames, frame.weathers
                    progress.seconds = time.monotonic() - begun
                    if time.monotonic() - looked > LOOK_EVERY:
                        looked = time.monotonic()
                        progress.look = _look(frame, folder)
                        yield progress
            shutil.move(kept / f"restored{suffix}", output)
        progress.look, progress.damaged, progress.notes = _look(frame, folder), frame.damaged, frame.notes
        progress.video = output
        yield progress


def _look(frame: RestoredFrame, folder: Path) -> tuple[Path, Path]:
    pictures = {"before": frame.before, "after": frame.restoration.image}
    before, after = (
        save_picture(thumbnail(picture, _LOOK_SIDE), folder / f"{frame.number}-{name}.jpg")
        for name, picture in pictures.items()
    )
    return before, after


WIDTHS = [("Small: 320 pixels", 320), ("Medium: 480 pixels", 480), ("Large: 640 pixels", 640)]
_EVERY = 0.1  # seconds between pictures at best; a slower machine sets its own pace
# Gradio wants one click for the browser's leave to use the camera, and another one to begin.
_START_CAMERA = """async () => {
    const press = () => [...document.querySelectorAll("#camera button")].find(one => one.offsetParent)?.click();
    const isOn = () => document.querySelector("#camera video")?.readyState >= 2;
    if (!isOn()) press();
    for (let tries = 0; tries < 300 && !isOn(); tries++) await new Promise(done => setTimeout(done, 100));
    if (isOn()) press();
}"""


def build_live(services: Services) -> None:
    """Draw the tab and connect it."""
    limits = services.limits
    gr.Markdown(
        "Point a camera through the window, press **Start**, and see the street without the weather. Pictures go to "
        "the machine that this app runs on and nowhere else, and none is kept. "
        f"It stops by itself after {limits.live_seconds / 60:.0f} minutes, or by the button in the picture.",
        elem_classes="note",
    )
    start = gr.Button("Start", variant="primary", elem_id="start-camera")
    start.click(None, js=_START_CAMERA)
    with gr.Row():
        with gr.Column(min_width=320):
            camera = gr.Image(
                sources=["webcam"],
                streaming=True,
                type="numpy",
                label="Camera",
                webcam_options=gr.WebcamOptions(mirror=False),
                elem_id="camera",
            )
        with gr.Column(min_width=320):
            clear = gr.Image(label="Restored", format="jpeg", interactive=False, buttons=["fullscreen"], elem_id="live")
            words = gr.Markdown("", elem_id="live-words")
    refuse_addresses(camera)
    with gr.Accordion("Options", open=False), gr.Row():
        model = model_box(services.engine.models)
        width = gr.Dropdown(WIDTHS, value=480, label="Size", info="Smaller is faster.")
        strength = gr.Slider(0, 1, value=1, step=0.05, label="Strength", info="0 leaves it as it is, 1 restores fully.")
    memory = gr.State(TemporalSmoother())

    camera.stream(
        lambda *seen: _restore_frame(services, *seen),
        [camera, memory, model, width, strength],
        [clear, memory, words],
        stream_every=_EVERY,
        time_limit=limits.live_seconds,
        concurrency_limit=1,
        concurrency_id="live",
        show_progress="hidden",
        api_visibility="private",
    )


def _restore_frame(
    services: Services,
    frame: NDArray[np.uint8] | None,
    memory: TemporalSmoother,
    model: str | None,
    width: int,
    strength: float,
) -> tuple[Any, ...]:
    if frame is None:
        return None, memory, ""
    with plain_errors():
        image = thumbnail(torch.tensor(frame).permute(2, 0, 1).float() / 255, width)
        restorer = services.engine.fast_restorer(model)
        with services.engine.turn():
            result = restorer(image, strength=strength, steady=memory)
        pixels = (result.image * 255).round().byte().permute(1, 2, 0).numpy()
        seen = "no bad weather seen" if result.weather_name == "clear" else f"seen: **{result.weather_name}**"
        return pixels, memory, f"{result.seconds * 1000:.0f} ms a picture · {seen}"
