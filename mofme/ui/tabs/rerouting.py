"""Tab Re-routing: one photo restored as usual and with its routing moved to what served similar photos."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gradio as gr

from mofme.errors import PictureError
from mofme.ui.buttons import run_and_cancel
from mofme.ui.examples import examples_gallery
from mofme.ui.jobs import KEEP_SECONDS, Jobs, plain_errors
from mofme.ui.measured import measured_by_us
from mofme.ui.rerouting.answer import neighbours_html, rerouted_values, routing_html, summary_html
from mofme.ui.rerouting.rerouted_photo import CHOSEN, ReroutedPhoto, reroute_photo
from mofme.ui.services import Services
from mofme.ui.uploads import photo_box
from mofme.vision.rerouting import METHODS, References

MEASURED = ("rerouting",)

SENTENCE = (
    "The net stays exactly as it is; only how much each expert is asked is moved, for this one photo, towards what "
    "served photos like it. It shows whether a trained net can still be helped at the moment of use, and at what cost."
)
USUAL, PHOTO = "Restored as usual", "The photo itself"


@functools.cache
def shipped_references() -> References:
    """Raises ModelError if they are missing or damaged."""
    return References.load()


def build(services: Services, references: Callable[[], References] = shipped_references) -> None:
    """Draw the tab and connect it."""
    jobs = Jobs()
    gr.Markdown(SENTENCE, elem_classes="note")
    compared = gr.State(None, time_to_live=KEEP_SECONDS)
    with gr.Row():
        with gr.Column(scale=4, min_width=320):
            photo = photo_box("rerouting-photo")
            with gr.Row():
                start = gr.Button("Re-route", variant="primary", scale=3, min_width=160, elem_id="reroute")
                cancel = gr.Button("Cancel", interactive=False, scale=1, min_width=90)
            example_chosen = examples_gallery("rerouting-examples", photo)
            method = gr.Dropdown(
                [(CHOSEN.capitalize(), CHOSEN), *((name.capitalize(), name) for name in METHODS)],
                value=CHOSEN,
                label="How the routing is moved",
                elem_id="rerouting-method",
            )
        with gr.Column(scale=6, min_width=320):
            against = gr.Radio([USUAL, PHOTO], value=USUAL, label="Re-routed, beside", elem_id="rerouting-against")
            slider = gr.ImageSlider(
                label="Before and after re-routing",
                type="filepath",
                format="png",
                interactive=False,
                max_height=640,
                buttons=["fullscreen"],
                elem_id="rerouting-slider",
            )
            summary = gr.HTML(
                '<p class="note">Choose a photo and press <b>Re-route</b>: it is restored twice.</p>',
                padding=False,
                elem_classes="status",
                elem_id="rerouting-summary",
                min_height=60,
            )
            download = gr.DownloadButton(
                "Download the re-routed picture", variant="primary", visible=False, elem_id="rerouting-download"
            )
    with gr.Row(visible=False) as details:
        with gr.Column(scale=4, min_width=320):
            difference = gr.Image(
                interactive=False,
                type="filepath",
                buttons=[],
                label="Where re-routing changed the picture; bright is most",
                elem_id="rerouting-difference",
            )
        with gr.Column(scale=6, min_width=320):
            neighbours = gr.HTML(padding=False, elem_id="rerouting-neighbours")
    routing = gr.HTML(padding=False, elem_id="rerouting-routing")
    gr.HTML(f"<h3>Measured by us</h3>{measured_by_us(*MEASURED)}", padding=False)

    def reroute(path: str | None, method: str, request: gr.Request, progress: gr.Progress) -> ReroutedPhoto:
        if not path:
            raise PictureError("Choose a photo first: drop one into the box, paste one, or click an example.")
        progress(0, desc="Reading the photo")
        with jobs.running(request, services.limits.picture_seconds) as job:
            return reroute_photo(
                services.engine,
                references(),
                job,
                Path(path),
                method,
                services.limits.megapixels,
                lambda done: progress(done, desc="Restoring twice"),
            )

    def reroute_and_show(
        path: str | None,
        method: str,
        against: str,
        request: gr.Request,
        progress: gr.Progress = gr.Progress(),  # noqa: B008 - how Gradio hands progress to a function
    ) -> list[Any]:
        with plain_errors():
            done = reroute(path, method, request, progress)
            files = {USUAL: str(done.plain), PHOTO: str(done.photo), "after": str(done.download)}
            return [
                files,
                compare(files, against),
                summary_html(done),
                gr.DownloadButton(value=str(done.download), visible=True),
                gr.Row(visible=True),
                str(done.difference),
                neighbours_html(done.rerouted),
                routing_html(done.rerouted),
            ]

    def reroute_api(
        path: str | None,
        method: str,
        request: gr.Request,
        progress: gr.Progress = gr.Progress(),  # noqa: B008
    ) -> tuple[str, dict[str, Any]]:
        with plain_errors():
            done = reroute(path, method, request, progress)
            return str(done.download), rerouted_values(done)

    def compare(files: dict[str, str] | None, against: str) -> Any:
        return (files[against], files["after"]) if files else gr.skip()

    run_and_cancel(
        start,
        cancel,
        summary,
        jobs,
        reroute_and_show,
        [photo, method, against],
        [compared, slider, summary, download, details, difference, neighbours, routing],
        show_progress_on=slider,
        brought_into_view=slider,
        concurrency_id="reroute",
    )
    against.input(compare, [compared, against], slider, show_progress="hidden", api_visibility="private")
    gr.Button(visible=False).click(
        reroute_api,
        [photo, method],
        [gr.File(label="rerouted", visible=False), gr.JSON(label="report", visible=False)],
        api_name="reroute",
        api_description=(
            f"Restore one photo with its routing moved. method: '{CHOSEN}' or one of {', '.join(METHODS)}. Returns a "
            "PNG and a report: how far the routing moved, seconds, neighbours, and the mean routing of every layer."
        ),
        concurrency_limit=1,
        concurrency_id="reroute",
    )
    example_chosen.then(
        # One click shows something: as if the button had been pressed.
        None,
        js="() => document.querySelector('#reroute')?.click()",
    )
