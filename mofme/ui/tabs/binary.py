"""Tab Binary weights: a drawn digit, read by a net of one-bit weights and by one of real weights."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr
import numpy as np

from mofme.errors import PictureError
from mofme.ui.jobs import plain_errors
from mofme.ui.measured import measured_by_us
from mofme.ui.services import Services

if TYPE_CHECKING:
    from mofme.ui.binary.reading import Reader

MEASURED = ("binary",)

_CANVAS = 280
_BRUSH = 22


def _shipped() -> "tuple[Reader, ...]":
    from mofme.ui.binary.reading import shipped_readers

    return shipped_readers()


def build(services: Services, readers: "Callable[[], tuple[Reader, ...]]" = _shipped) -> None:
    """Draw the tab and connect it."""
    gr.Markdown(
        "Every weight of the first net is **-1 or +1**, one bit in its file. It was trained that way: real numbers "
        "gather what is learned, their signs do the work. Draw a digit, and compare."
    )
    with gr.Row():
        with gr.Column(scale=4, min_width=320):
            pad = gr.Sketchpad(
                np.full(
                    (_CANVAS, _CANVAS, 3), 255, np.uint8
                ),  # on an empty one the brush would have to be chosen first
                label="Draw a digit from 0 to 9",
                type="numpy",
                image_mode="RGBA",
                canvas_size=(_CANVAS, _CANVAS),
                fixed_canvas=True,
                layers=False,
                transforms=(),
                brush=gr.Brush(default_size=_BRUSH, colors=["#0f766e"], color_mode="fixed"),
                buttons=[],
                height=_CANVAS + 130,
                elem_id="drawing",
            )
            start = gr.Button("Read the digit", variant="primary", elem_id="read")
        with gr.Column(scale=6, min_width=320):
            answers = gr.HTML(
                "<p class='note'>Both answers appear here, with a score for every digit.</p>",
                padding=False,
                min_height=60,
                elem_id="answers",
            )
    with gr.Accordion("What the first layer looks for", open=True):
        gr.Markdown(
            "The units that your drawing excites most: white counts for them, black against. Real weights have greys.",
            elem_classes="note",
        )
        weights = gr.HTML(padding=False, elem_id="weights")
    gr.HTML(f"<h3>Measured by us</h3>{measured_by_us(*MEASURED)}", padding=False)

    def read_and_show(drawing: dict[str, Any] | None) -> list[str]:
        import torch

        from mofme.ui.binary.answer import answers_html, weights_html
        from mofme.ui.binary.reading import read_digit
        from mofme.vision.digits.drawing import as_digit

        with plain_errors():
            strokes = [layer[..., 3] for layer in (drawing or {}).get("layers", []) if layer is not None]
            if not strokes:
                raise PictureError("Nothing is drawn yet: draw a digit from 0 to 9.")
            pixels_D = as_digit(torch.from_numpy(max(strokes, key=lambda ink: int(ink.sum())) / 255).float())
            said = read_digit(readers(), pixels_D)
            return [answers_html(said, pixels_D), weights_html(said)]

    def read_api(picture: str) -> dict[str, Any]:
        from mofme.ui.binary.answer import answer_values
        from mofme.ui.binary.reading import read_digit
        from mofme.vision.digits.drawing import as_digit, ink_of
        from mofme.vision.image import read_picture

        with plain_errors():
            rgb = read_picture(Path(picture), services.limits.megapixels).rgb
            return answer_values(read_digit(readers(), as_digit(ink_of(rgb))))

    start.click(read_and_show, pad, [answers, weights], show_progress_on=answers, api_visibility="private")
    gr.Button(visible=False).click(
        read_api,
        gr.File(label="picture", visible=False),
        gr.JSON(label="result", visible=False),
        api_name="read_digit",
        api_description="Read the digit in a picture by each of the shipped nets. Returns digit and scores of each.",
    )
