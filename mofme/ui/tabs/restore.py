"""Tab Restore: one photo in, the restored one out, and what the experts did. Batch and Video share its options."""

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.components import Component
from torch import Tensor

from mofme.papers.r2t2.references import References
from mofme.papers.r2t2.rerouter import Rerouted, Rerouter
from mofme.ui.examples import examples_gallery
from mofme.ui.figures import comparison, expert_figures, gallery, telling_layer, thumbnail, uncertainty_figure
from mofme.ui.html import bars, notes_html
from mofme.ui.models import Engine, Services
from mofme.ui.runs import Job
from mofme.ui.uploads import chosen_photo, download_button, new_folder, photo_box, to_download
from mofme.ui.work import Endpoint, start_and_cancel, status_box, work
from mofme.vision.batch import restore_frames
from mofme.vision.picture.decode import Picture
from mofme.vision.picture.file import FORMATS, read_to_keep, write_frames, write_picture
from mofme.vision.restorer import Restoration

EXPERTS_NOTE = (
    "The net is a team of small experts; for every spot of the photo a router decides whose advice counts. "
    "Bright is where an expert was asked most."
)
UNCERTAINTY_NOTE = (
    "How much their scores change when features are dropped. It hardly tells where the picture is wrong: see "
    "*Ablation* in the [Lab](evaluate)."
)
BEGIN = "Choose a photo and press <b>Restore</b>. For many, or a folder: <b>Batch</b>. For a film: <b>Video</b>."
MODEL_WORDS = {
    "small-real": "Standard (small-real)",
    "small": "Less is changed (small)",
    "small-binary": "Smallest file (small-binary)",
}
LIMITS_NOTE = """<details class='result'><summary>What it cannot do</summary><ul>
<li>Drops in focus, as at night, large flakes close to the lens and fog far away mostly stay.</li>
<li>What weather has covered completely is guessed, not found again.</li>
<li>Natural mist, or snow on a street, may be taken for haze: lower the strength then.</li>
<li>Blur, noise and darkness are not mended: it only knows rain, snow, drops and haze.</li>
</ul></details>"""
TILES = [("Automatic", 0), ("256 pixels", 256), ("512 pixels", 512), ("1024 pixels", 1024)]

# Browsers show these formats as they are; anything else is shown as a PNG of the same pixels.
BROWSER_FORMATS = frozenset({"jpeg", "png", "webp", "bmp"})


@dataclass(frozen=True)
class Settings:
    """What the visitor may choose: the model, how much of the change to keep (0 to 1), and how thoroughly to work."""

    model: str | None
    strength: float = 1.0
    ensemble: bool = False
    tile: int = 0
    reroute: bool = False

    def of_restorer(self) -> dict[str, Any]:
        return {"strength": self.strength, "ensemble": self.ensemble, "tile": self.tile or None}


@dataclass(frozen=True)
class RestoredPhoto:
    """A restored upload: the file to download, two files of equal size to compare in a browser, and the explanation."""

    picture: Picture
    restoration: Restoration
    download: Path
    before: Path
    after: Path
    rerouted: Rerouted | None = None
    count: int = 1  # frames or pages in the download

    @cached_property
    def small(self) -> Tensor:
        """The restored picture (3, H, W), as large as the figures that explain it."""
        return thumbnail(self.restoration.image)

    @cached_property
    def uncertainty(self) -> tuple[Path, str]:
        """Where the routers were unsure, and the legend (HTML)."""
        return uncertainty_figure(self.small, self.restoration.uncertainty, self.download.parent)

    def experts(self) -> list[tuple[str, str]]:
        """Who worked where: pictures and captions."""
        routing = self.restoration.routing
        return expert_figures(self.small, telling_layer(routing), self.download.parent) if routing else []

    def words(self) -> str:
        """What was seen, and what it took (HTML)."""
        height, width = self.picture.rgb.shape[-2:]
        weather = self.restoration.weather_name
        seen = "No bad weather seen" if weather == "clear" else f"Seen: <b>{weather}</b>"
        about = f"<p>{seen} · {width} x {height} pixels · {self.restoration.seconds:.1f} s</p>"
        more = f"all {self.count} frames or pages are restored, the first is shown"
        return about + notes_html([*self.picture.notes, *([more] if self.count > 1 else ())])

    def report(self) -> dict[str, Any]:
        """What programs are told."""
        height, width = self.picture.rgb.shape[-2:]
        restoration, rerouted = self.restoration, self.rerouted
        report = {
            "width": width,
            "height": height,
            "seconds": round(restoration.seconds, 3),
            "weather": restoration.weather_name,
            "probabilities": {name: round(chance, 4) for name, chance in restoration.weather.items()},
            "uncertainty": round(restoration.mean_uncertainty, 4),
        }
        if self.count > 1:
            report["frames"] = self.count
        if self.picture.notes:
            report["notes"] = list(self.picture.notes)
        if rerouted:
            report |= {"moved": round(rerouted.moved, 4), "extra_seconds": round(rerouted.extra_seconds, 3)}
        return report


def build(services: Services) -> None:
    """Draw the tab and connect it."""
    with gr.Row():
        with gr.Column(scale=4, min_width=320):
            photo = photo_box("photo")
            buttons = start_and_cancel("Restore", "restore")
            examples_gallery("examples", photo)
            chosen = options(services.engine.models)
            # For programs; on the page, the tab Re-routing does it and tells more.
            reroute = gr.Checkbox(label="Re-route (slower)", visible=False, elem_id="restore-reroute")
        with gr.Column(scale=6, min_width=320):
            slider = comparison("Left: before. Right: after.", "comparison")
            summary = status_box(BEGIN, "summary", 24)
            download = download_button("Download the restored photo", "download")
            gr.HTML(LIMITS_NOTE, padding=False)
            with gr.Accordion("What the experts did", open=False, visible=False, elem_id="experts") as explanation:
                gr.Markdown("## The weather it believes it saw")
                weather = gr.HTML(padding=False)
                gr.Markdown(f"## Who worked where\n{EXPERTS_NOTE}")
                experts = gallery()
                gr.Markdown(f"## Where the routers were unsure\n{UNCERTAINTY_NOTE}")
                uncertainty = gr.Image(
                    interactive=False, type="filepath", buttons=[], show_label=False, alt_text="Map of uncertainty"
                )
                legend = gr.HTML(padding=False)

    def restore(
        job: Job, path: str | None, model: str | None, strength: float, ensemble: bool, tile: int, reroute: bool
    ) -> RestoredPhoto:
        settings = Settings(model, strength, ensemble, tile, reroute)
        return restore_photo(services.engine, job, path, settings, services.limits.megapixels)

    work(
        restore,
        [photo, *chosen, reroute],
        {
            slider: lambda done: (str(done.before), str(done.after)),
            summary: RestoredPhoto.words,
            download: lambda done: to_download(done.download),
            explanation: lambda done: gr.Accordion(visible=True),
            weather: lambda done: bars(done.restoration.weather),
            experts: RestoredPhoto.experts,
            uncertainty: lambda done: str(done.uncertainty[0]),
            legend: lambda done: done.uncertainty[1],
        },
        buttons,
        summary,
        services.limits.picture_seconds,
        Endpoint(
            "restore",
            "Restore one photo. Returns the restored file, in the format it came in, and a report.",
            {"restored": gr.File, "report": gr.JSON},
            lambda done: (str(done.download), done.report()),
        ),
        progress_on=slider,
        scroll_to=slider,
    )


def options(models: list[str], thing: str = "photo") -> list[Component]:
    """A fold-out of choices, closed: its widgets in the order of the fields of `Settings`."""
    with gr.Accordion("Options", open=False):
        strength = gr.Slider(
            0,
            1,
            value=1,
            step=0.05,
            label="Strength: from 0, untouched, to 1, fully restored",
            info=f"Lower it where the {thing} comes out too smooth or too dark.",
        )
        with gr.Row():
            model = model_box(models)
            tile = gr.Dropdown(TILES, value=0, label="Tile size", info="Smaller tiles need less memory.")
        ensemble = gr.Checkbox(
            label="Take more care", info="Averages two looks: a little closer, most in rain and snow, twice as slow."
        )
    return [model, strength, ensemble, tile]


def model_box(models: list[str]) -> gr.Dropdown:
    """A choice of the models that restore, in plain words."""
    info = "Standard suits most photos. Where less is changed, most of real rain and of drops on glass stays."
    choices = [(MODEL_WORDS.get(name, name), name) for name in models]
    return gr.Dropdown(
        choices,
        value=next(iter(models), None),
        label="Model",
        info=info if len(models) > 1 else None,
        min_width=280,  # else names are cut off
    )


def restore_photo(engine: Engine, job: Job, path: str | None, settings: Settings, megapixels: float) -> RestoredPhoto:
    """Restore one uploaded file. Raises MofmeError if it is no picture, too large, or the job was stopped."""
    upload = chosen_photo(path)
    job.report(0, "Reading the photo")
    frames = read_to_keep(upload, upload, max_megapixels=megapixels)
    picture = frames[0]
    restorer = engine.restorer(settings.model)
    rerouted: list[Rerouted] = []
    with engine.turn(job.check):
        restore = Rerouter(restorer, References.load(), report=rerouted.append) if settings.reroute else restorer
        how = {**settings.of_restorer(), "explain": True}
        restored = restore_frames(restore, frames, lambda share: job.report(share, "Restoring"), **how)
    job.check()
    folder = new_folder()
    is_named_so = FORMATS.get(upload.suffix.lower()) == picture.format
    download = folder / f"{upload.stem}-restored{upload.suffix if is_named_so else f'.{picture.format}'}"
    restoration = restored[0]
    whole = [replace(frame, rgb=one.image) for frame, one in zip(frames, restored, strict=True)]
    write_frames(download, whole, picture.format)
    after = download
    if picture.format != "png":
        after = folder / f"{upload.stem}-restored.png"
        write_picture(after, restoration.image, picture, "png")
    before = upload
    if picture.format not in BROWSER_FORMATS:
        before = folder / f"{upload.stem}.png"
        write_picture(before, picture.rgb, picture, "png")
    return RestoredPhoto(picture, restoration, download, before, after, rerouted[0] if rerouted else None, len(frames))
