"""Tab Live: what a camera sees now, restored as it comes."""

from typing import Any

import gradio as gr
import numpy as np
import torch
from numpy.typing import NDArray

from mofme.ui.figures import thumbnail
from mofme.ui.models import Services
from mofme.ui.tabs.restore import model_box
from mofme.ui.uploads import refuse_addresses
from mofme.ui.work import plain_errors
from mofme.vision.restorer import TemporalSmoother

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


def build(services: Services) -> None:
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
        lambda *seen: _restore(services, *seen),
        [camera, memory, model, width, strength],
        [clear, memory, words],
        stream_every=_EVERY,
        time_limit=limits.live_seconds,
        concurrency_limit=1,
        concurrency_id="live",
        show_progress="hidden",
        api_visibility="private",
    )


def _restore(
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
