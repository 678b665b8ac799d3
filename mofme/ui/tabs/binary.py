"""Tab Binary weights: a drawn digit, or a photo, given to a net of one-bit weights and to one of real weights."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr
import numpy as np

from mofme.errors import ModelError, PictureError
from mofme.ui.binary.photo_answer import photo_html, photo_values
from mofme.ui.binary.photos import ComparedPhoto, ShippedRestorer, compare_photo, restorers_to_compare
from mofme.ui.buttons import run_and_cancel
from mofme.ui.examples import examples_gallery
from mofme.ui.jobs import Jobs, plain_errors
from mofme.ui.measured import measured_by_us
from mofme.ui.services import Services
from mofme.ui.uploads import file_box, photo_box, refuse_addresses

if TYPE_CHECKING:
    from mofme.ui.binary.reading import Reader

NO_RESTORER = (
    "No restorer with binary weights is installed: train one with `python -m mofme train FOLDER --init small --binary "
    "--out weights/small-binary`."
)

MEASURED = ("binary",)

_CANVAS = 280
_BRUSH = 22


def _shipped() -> "tuple[Reader, ...]":
    from mofme.ui.binary.reading import shipped_readers

    return shipped_readers()


def build(
    services: Services,
    readers: "Callable[[], tuple[Reader, ...]]" = _shipped,
    restorers: "tuple[ShippedRestorer, ...] | None" = None,
) -> None:
    """Draw the tab and connect it. `restorers` are those that a photo is given to; None takes the shipped ones."""
    if restorers is None:
        restorers = restorers_to_compare(services.engine.models)
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
                label="Draw a digit",
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
            refuse_addresses(pad)
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
    _build_photos(services, restorers)
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

    def read_api(picture: str | None) -> dict[str, Any]:
        from mofme.ui.binary.answer import answer_values
        from mofme.ui.binary.reading import read_digit
        from mofme.vision.digits.drawing import as_digit, ink_of
        from mofme.vision.picture.file import read_picture

        with plain_errors():
            if not picture:
                raise PictureError("Choose a picture of a digit first.")
            rgb = read_picture(Path(picture), services.limits.megapixels).rgb
            return answer_values(read_digit(readers(), as_digit(ink_of(rgb))))

    start.click(read_and_show, pad, [answers, weights], show_progress_on=answers, api_visibility="private")
    gr.Button(visible=False).click(
        read_api,
        file_box(label="picture", visible=False),
        gr.JSON(label="result", visible=False),
        api_name="read_digit",
        api_description="Read the digit in a picture by each of the shipped nets. Returns digit and scores of each.",
    )


def _build_photos(services: Services, restorers: tuple[ShippedRestorer, ...]) -> None:
    """The same for photos; without two restorers to compare, a sentence instead."""
    jobs = Jobs()
    gr.Markdown("### Photos")
    if not restorers:
        gr.Markdown(NO_RESTORER, elem_classes="note", elem_id="binary-none")
    with gr.Row(visible=bool(restorers)):
        with gr.Column(scale=4, min_width=320):
            photo = photo_box("binary-photo")
            with gr.Row():
                start = gr.Button(
                    "Restore by both", variant="primary", scale=3, min_width=160, elem_id="binary-restore"
                )
                cancel = gr.Button("Cancel", interactive=False, scale=1, min_width=90)
            examples_gallery("binary-examples", photo)
        with gr.Column(scale=6, min_width=320):
            slider = gr.ImageSlider(
                label="Left: real weights. Right: one-bit weights",
                type="filepath",
                format="png",
                interactive=False,
                max_height=640,
                buttons=["fullscreen"],
                elem_id="binary-slider",
            )
            summary = gr.HTML(
                "<p class='note'>A restorer most of whose weights are one bit each, beside the same net with real "
                "weights: choose a photo and press <b>Restore by both</b>.</p>",
                padding=False,
                elem_classes="status",
                elem_id="binary-summary",
                min_height=60,
            )

    def compare(path: str | None, request: gr.Request, progress: gr.Progress) -> ComparedPhoto:
        if not restorers:
            raise ModelError(NO_RESTORER)
        if not path:
            raise PictureError("Choose a photo first: drop one into the box, paste one, or click an example.")
        progress(0, desc="Reading the photo")
        with jobs.running(request, services.limits.picture_seconds) as job:
            return compare_photo(
                services.engine,
                restorers,
                job,
                Path(path),
                services.limits.megapixels,
                lambda done: progress(done, desc="Restoring twice"),
            )

    def compare_and_show(
        path: str | None,
        request: gr.Request,
        progress: gr.Progress = gr.Progress(),  # noqa: B008 - how Gradio hands progress to a function
    ) -> list[Any]:
        with plain_errors():
            done = compare(path, request, progress)
            return [tuple(map(str, done.files)), photo_html(done)]

    def compare_api(
        path: str | None,
        request: gr.Request,
        progress: gr.Progress = gr.Progress(),  # noqa: B008
    ) -> tuple[str, str, dict[str, Any]]:
        with plain_errors():
            done = compare(path, request, progress)
            real, binary = map(str, done.files)
            return real, binary, photo_values(done)

    run_and_cancel(
        start,
        cancel,
        summary,
        jobs,
        compare_and_show,
        [photo],
        [slider, summary],
        show_progress_on=slider,
        concurrency_id="restore-binary",
    )
    gr.Button(visible=False).click(
        compare_api,
        photo,
        [
            gr.File(label="real", visible=False),
            gr.File(label="binary", visible=False),
            gr.JSON(label="report", visible=False),
        ],
        api_name="restore_binary",
        api_description=(
            "Restore one photo with real and with one-bit weights. Returns two PNGs and a report: kilobytes and "
            "seconds of each, and how many of 255 levels the pictures are apart on average."
        ),
        concurrency_limit=1,
        concurrency_id="restore-binary",
    )
