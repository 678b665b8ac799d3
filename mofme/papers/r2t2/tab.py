"""Tab Re-routing: one photo restored as usual and with its routing moved to what served similar photos."""

import functools
import html
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
from torch import Tensor

from mofme.errors import ModelError
from mofme.papers.r2t2.picture_experiment import measured_gain
from mofme.papers.r2t2.references import METHODS, References
from mofme.papers.r2t2.rerouter import Rerouted, explain
from mofme.ui.examples import examples_gallery
from mofme.ui.figures import comparison, heat_map, thumbnail
from mofme.ui.html import Block, bar, cell, heat_grid, measured_box, notes_html, numbered, table
from mofme.ui.models import Services
from mofme.ui.runs import Job
from mofme.ui.uploads import chosen_photo, download_button, new_folder, photo_box, to_download
from mofme.ui.work import Endpoint, start_and_cancel, status_box, work
from mofme.vision.picture.file import read_first, write_picture

MEASURED = ("rerouting",)

SENTENCE = (
    "The net stays exactly as it is; only how much each expert is asked is moved, for this one photo, towards what "
    "served photos like it. It shows whether a trained net can still be helped at the moment of use, and at what cost."
)
CHOSEN = "as chosen on tuning pictures"

_SHOWN = 6  # neighbours
_LEVELS = 255
_LEAST = 0.5 / _LEVELS  # what rounds to nothing is not made to look large


@dataclass(frozen=True)
class ReroutedPhoto:
    """Files of equal size: the photo restored as usual, restored after re-routing, and where the two differ.

    `changed` is the mean and `most_changed` the largest difference between the two, in levels of 0 to 255.
    """

    rerouted: Rerouted
    plain: Path
    download: Path
    difference: Path
    changed: float
    most_changed: float
    notes: tuple[str, ...]


@functools.cache
def shipped_references() -> References:
    """Raises ModelError if they are missing or damaged."""
    return References.load()


def build(services: Services, references: Callable[[], References] = shipped_references) -> None:
    """Draw the tab and connect it."""
    gr.Markdown(SENTENCE, elem_classes="note")
    with gr.Row():
        with gr.Column(scale=4, min_width=320):
            photo = photo_box("rerouting-photo")
            buttons = start_and_cancel("Re-route", "reroute")
            example_chosen = examples_gallery("rerouting-examples", photo)
            method = gr.Dropdown(
                [(CHOSEN.capitalize(), CHOSEN), *((name.capitalize(), name) for name in METHODS)],
                value=CHOSEN,
                label="How the routing is moved",
                elem_id="rerouting-method",
            )
        with gr.Column(scale=6, min_width=320):
            slider = comparison("Left: restored as usual. Right: re-routed.", "rerouting-slider")
            summary = status_box("Choose a photo and press <b>Re-route</b>: it is restored twice.", "rerouting-summary")
            download = download_button("Download the re-routed picture", "rerouting-download")
    with gr.Row(visible=False) as details:
        with gr.Column(scale=4, min_width=320):
            label = "Where re-routing changed the picture; bright is most"
            difference = gr.Image(
                interactive=False, type="filepath", buttons=[], label=label, elem_id="rerouting-difference"
            )
        with gr.Column(scale=6, min_width=320):
            neighbours = gr.HTML(padding=False, elem_id="rerouting-neighbours")
    routing = gr.HTML(padding=False, elem_id="rerouting-routing")
    measured_box(*MEASURED)

    work(
        lambda job, path, method: reroute_photo(services, job, chosen_photo(path), references(), method),
        [photo, method],
        {
            slider: lambda done: (str(done.plain), str(done.download)),
            summary: summary_html,
            download: lambda done: to_download(done.download),
            details: lambda done: gr.Row(visible=True),
            difference: lambda done: str(done.difference),
            neighbours: lambda done: neighbours_html(done.rerouted),
            routing: lambda done: routing_html(done.rerouted),
        },
        buttons,
        summary,
        services.limits.picture_seconds,
        Endpoint(
            "reroute",
            f"Restore one photo with its routing moved. method: '{CHOSEN}' or one of {', '.join(METHODS)}. Returns a "
            "PNG and a report: how far the routing moved, seconds, neighbours, and the mean routing of every layer.",
            {"rerouted": gr.File, "report": gr.JSON},
            lambda done: (str(done.download), rerouted_values(done)),
        ),
        progress_on=slider,
        scroll_to=slider,
    )
    example_chosen.then(
        # One click shows something: as if the button had been pressed.
        None,
        js="() => document.querySelector('#reroute')?.click()",
    )


def reroute_photo(services: Services, job: Job, upload: Path, references: References, method: str) -> ReroutedPhoto:
    """Restore one upload twice.

    `method` is one of METHODS, or CHOSEN. Raises MofmeError if it is no picture, too large, or the job was stopped;
    ModelError for a model that is not there.
    """
    chosen = next((name for name in METHODS if name == method), None)
    if chosen is None and method != CHOSEN:
        raise ModelError(f"no re-routing method is called {method!r}: choose {', '.join(METHODS)}")
    job.report(0, "Reading the photo")
    picture = read_first(upload, services.limits.megapixels)
    restorer = services.engine.restorer(references.model)
    with services.engine.turn(job.check):
        found = explain(
            restorer,
            picture.rgb,
            chosen,
            references,
            alpha=picture.visible,
            on_progress=lambda share: job.report(share, "Restoring twice"),
        )
    job.check()
    folder = new_folder()
    plain, download = folder / "restored.png", folder / f"{upload.stem}-rerouted.png"
    write_picture(plain, found.plain.image, picture, "png")
    write_picture(download, found.restoration.image, picture, "png")
    difference = (found.restoration.image - found.plain.image).abs()
    seen = _difference_map(found.plain.image, difference, folder / "difference.jpg")
    mean, most = _LEVELS * float(difference.mean()), _LEVELS * float(difference.max())
    return ReroutedPhoto(found, plain, download, seen, mean, most, picture.notes)


def summary_html(photo: ReroutedPhoto) -> str:
    """How far the routing moved, what that changed in the picture, and the time it took."""
    found = photo.rerouted
    change = (
        f"The picture changed by {photo.changed:.2f} of 255 levels on average, by {photo.most_changed:.0f} where it "
        "changed most."
    )
    return (
        f"<p class='choice'>The routing moved by <b>{100 * found.moved:.1f} %</b></p>"
        f"<p>{change if photo.most_changed >= 0.5 else 'The picture stayed the same.'} "
        f"By {html.escape(found.method)}, {found.extra_seconds:.1f} s more than the "
        f"{found.seconds - found.extra_seconds:.1f} s of restoring as usual.</p>"
        f"{notes_html(photo.notes)}"
        "<p class='note'>Whether a change is for the better cannot be told without the same photo in good weather; "
        f"{html.escape(measured_gain())}.</p>"
    )


def neighbours_html(found: Rerouted) -> str:
    """The references that the routing was moved by: how much each weather counts, and the nearest of them."""
    largest = max(near.weight for near in found.neighbours)
    by_weather: dict[str, float] = defaultdict(float)
    for near in found.neighbours:
        by_weather[near.weather] += near.weight
    order = sorted(by_weather.items(), key=lambda item: -item[1])
    shares = ", ".join(f"{html.escape(weather)} {100 * share:.0f} %" for weather, share in order)
    heads = ("Weather", cell("Counts", "th", colspan=2), "Distance", "Gained")
    rows = []
    for near in found.neighbours[:_SHOWN]:
        counts, gained = f"{100 * near.weight:.0f}\N{NO-BREAK SPACE}%", f"{near.gain:+.1f}\N{NO-BREAK SPACE}dB"
        rows.append((near.weather, bar(near.weight / largest), counts, f"{near.distance:.2f}", gained))
    return (
        f"<h2>The photos it goes by</h2><p>{len(found.neighbours)} reference photos on which the net did well, like "
        f"this one in what the net sees: {shares}.</p><p class='note'>The nearest of them. Gained: what restoring did "
        f"for that one.</p>{table(heads, rows, 'numbers models')}"
    )


def routing_html(found: Rerouted) -> str:
    """The mean weight of every expert in every layer: before, after, and the change."""
    before_LE, after_LE = (
        np.stack([weights_E.double().cpu().numpy() for weights_E in routing.values()])
        for routing in (found.before, found.after)
    )
    names, change_LE = numbered(before_LE.shape[1]), after_LE - before_LE
    most = max(float(np.abs(before_LE).max()), float(np.abs(after_LE).max()))
    blocks = [
        *(Block(name, names, one, most, zeros=True) for name, one in (("before", before_LE), ("after", after_LE))),
        Block("change", names, change_LE, float(np.abs(change_LE).max()) or 1.0, digits=1, signed=True, zeros=True),
    ]
    layers = [f"{number + 1} {layer.split('.')[0].replace('_', ' ')}" for number, layer in enumerate(found.before)]
    return (
        "<h2>How much each expert is asked, layer by layer</h2><p class='note'>Mean weight of the "
        f"{before_LE.shape[1]} experts over the photo, times 100. The colours of the change have a scale of their own."
        f"</p>{heat_grid('Layer', layers, blocks)}"
    )


def rerouted_values(photo: ReroutedPhoto) -> dict[str, Any]:
    """The same for programs."""
    found = photo.rerouted

    def plain(routing: Mapping[str, Tensor]) -> dict[str, Any]:
        return {layer: [round(value, 5) for value in weights_E.tolist()] for layer, weights_E in routing.items()}

    return {
        "method": found.method,
        "moved": round(found.moved, 5),
        "seconds": round(found.seconds, 3),
        "extra_seconds": round(found.extra_seconds, 3),
        "changed_levels": {"mean": round(photo.changed, 4), "most": round(photo.most_changed, 2)},
        "neighbours": [asdict(near) for near in found.neighbours],
        "before": plain(found.before),
        "target": plain(found.target),
        "after": plain(found.after),
    }


def _difference_map(rgb: Tensor, difference: Tensor, path: Path) -> Path:
    changed = thumbnail(difference.mean(dim=0, keepdim=True))[0]
    # Not the maximum: a few strong spots would leave the rest dark.
    strong = changed.flatten().sort().values[int(0.995 * (changed.numel() - 1))]
    heat_map(thumbnail(rgb), changed / strong.clamp_min(_LEAST)).save(path, quality=88)
    return path
