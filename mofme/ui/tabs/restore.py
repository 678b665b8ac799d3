"""Tab Restore: one photo in, the restored one out, and what the experts did."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gradio as gr

from mofme.errors import PictureError
from mofme.ui.buttons import run_and_cancel
from mofme.ui.examples import examples_gallery
from mofme.ui.figures import expert_figures, telling_layer, thumbnail, uncertainty_figure, weather_bars
from mofme.ui.jobs import plain_errors
from mofme.ui.one_photo import RestoredPhoto, Settings, restore_photo
from mofme.ui.options import options
from mofme.ui.services import Services
from mofme.ui.uploads import photo_box
from mofme.vision.rerouting.gain import measured_gain

EXPERTS_NOTE = (
    "The net is a team of small experts; for every spot of the photo a router decides whose advice counts. "
    "Bright is where an expert was asked most."
)
UNCERTAINTY_NOTE = (
    "How much their scores change when features are dropped. It hardly tells where the picture is wrong: see "
    "*Ablation* in the tab *Evaluate*."
)


def build(services: Services) -> None:
    """Draw the tab and connect it."""
    with gr.Row():
        with gr.Column(scale=4, min_width=320):
            photo = photo_box("photo")
            with gr.Row():
                start = gr.Button("Restore", variant="primary", scale=3, min_width=160, elem_id="restore")
                cancel = gr.Button("Cancel", interactive=False, scale=1, min_width=90)
            examples_gallery("examples", photo)
            chosen = options(services.engine.models)
            with gr.Accordion("Advanced", open=False):
                reroute = gr.Checkbox(
                    label="Re-route (slower)",
                    info="Asks the experts again, weighed as it served similar pictures: twice the time.",
                    elem_id="restore-reroute",
                )
        with gr.Column(scale=6, min_width=320):
            slider = gr.ImageSlider(
                label="Before and after",
                type="filepath",
                format="png",
                interactive=False,
                max_height=640,
                buttons=["fullscreen"],
                elem_id="comparison",
            )
            summary = gr.Markdown("Choose a photo and press **Restore**.", elem_id="summary")
            download = gr.DownloadButton(
                "Download the restored photo", variant="primary", visible=False, elem_id="download"
            )
            with gr.Accordion("What the experts did", open=False, visible=False, elem_id="experts") as explanation:
                gr.Markdown("#### The weather it believes it saw")
                bars = gr.HTML(padding=False)
                gr.Markdown(f"#### Who worked where\n{EXPERTS_NOTE}")
                experts = gr.Gallery(
                    columns=3,
                    height="auto",
                    object_fit="cover",
                    interactive=False,
                    buttons=[],
                    show_label=False,
                    elem_classes=["pictures", "wide"],
                )
                gr.Markdown(f"#### Where the routers were unsure\n{UNCERTAINTY_NOTE}")
                uncertainty = gr.Image(
                    interactive=False,
                    type="filepath",
                    buttons=[],
                    show_label=False,
                    alt_text="Map of uncertainty",
                )
                legend = gr.HTML(padding=False)

    inputs = [photo, *chosen.widgets, reroute]
    shown = [slider, summary, download, explanation, bars, experts, uncertainty, legend]

    def restore_and_show(
        path: str | None,
        model: str | None,
        strength: float,
        ensemble: bool,
        tile: int,
        reroute: bool,
        request: gr.Request,
        progress: gr.Progress = gr.Progress(),  # noqa: B008 - how Gradio hands progress to a function
    ) -> tuple[Any, ...]:
        with plain_errors():
            result = _restore(services, path, Settings(model, strength, ensemble, tile, reroute), request, progress)
            return _show(result)

    def restore_api(
        path: str | None,
        model: str | None,
        strength: float,
        ensemble: bool,
        tile: int,
        reroute: bool,
        request: gr.Request,
        progress: gr.Progress = gr.Progress(),  # noqa: B008
    ) -> tuple[str, dict[str, Any]]:
        with plain_errors():
            result = _restore(services, path, Settings(model, strength, ensemble, tile, reroute), request, progress)
            return str(result.download), _report(result)

    run_and_cancel(
        start,
        cancel,
        summary,
        services.restoring,
        restore_and_show,
        inputs,
        shown,
        show_progress_on=slider,
        brought_into_view=slider,
        concurrency_id="restore",
    )
    gr.Button(visible=False).click(
        restore_api,
        inputs,
        [gr.File(label="restored", visible=False), gr.JSON(label="report", visible=False)],
        api_name="restore",
        api_description="Restore one photo. Returns the restored file, in the format it came in, and a report.",
        concurrency_limit=1,
        concurrency_id="restore",
    )


def _restore(
    services: Services,
    path: str | None,
    settings: Settings,
    request: gr.Request,
    progress: Callable[..., Any],
) -> RestoredPhoto:
    if not path:
        raise PictureError("Choose a photo first: drop one into the box, paste one, or click an example.")
    progress(0, desc="Reading the photo")
    with services.restoring.running(request, services.limits.picture_seconds) as job:
        return restore_photo(
            services.engine,
            job,
            Path(path),
            settings,
            services.limits.megapixels,
            lambda done: progress(done, desc="Restoring"),
        )


def _show(result: RestoredPhoto) -> tuple[Any, ...]:
    """Values for the widgets that show a result, in their order."""
    restoration, folder = result.restoration, result.download.parent
    small = thumbnail(result.restoration.image)
    experts = expert_figures(small, telling_layer(restoration.routing), folder) if restoration.routing else []
    uncertainty, legend = uncertainty_figure(small, restoration.uncertainty, folder)
    height, width = result.picture.rgb.shape[-2:]
    seen = "No bad weather seen" if restoration.weather_name == "clear" else f"Seen: **{restoration.weather_name}**"
    return (
        (str(result.before), str(result.after)),
        f"{seen} · {width} x {height} pixels · {restoration.seconds:.1f} s{_what_rerouting_did(result)}",
        gr.DownloadButton(value=str(result.download), visible=True),
        gr.Accordion(visible=True),
        weather_bars(restoration.weather),
        experts,
        str(uncertainty),
        legend,
    )


def _what_rerouting_did(result: RestoredPhoto) -> str:
    if result.rerouted is None:
        return ""
    moved, extra = result.rerouted.moved, result.rerouted.extra_seconds
    return f"\n\nRe-routed: the experts' weights moved by {moved:.1%}, in {extra:.1f} s more; {measured_gain()}."


def _report(result: RestoredPhoto) -> dict[str, Any]:
    height, width = result.picture.rgb.shape[-2:]
    restoration = result.restoration
    rerouted = result.rerouted
    more = {"moved": round(rerouted.moved, 4), "extra_seconds": round(rerouted.extra_seconds, 3)} if rerouted else {}
    return {
        "width": width,
        "height": height,
        "seconds": round(restoration.seconds, 3),
        "weather": restoration.weather_name,
        "probabilities": {name: round(chance, 4) for name, chance in restoration.weather.items()},
        "uncertainty": round(restoration.mean_uncertainty, 4),
        **more,
    }
