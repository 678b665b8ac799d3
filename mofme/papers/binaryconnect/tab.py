"""Tab Binary weights: a drawn digit, or a photo, given to a net of one-bit weights and to one of real weights."""

import base64
import functools
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from mofme.core.binary import BinaryLinear
from mofme.core.weights import ModelCard
from mofme.errors import ModelError, PictureError
from mofme.files import CARD_FILE, WEIGHTS, WEIGHTS_FILE
from mofme.papers.binaryconnect.net import NOTHING_DRAWN, SIDE, as_digit, ink_of, load_digit_net
from mofme.ui.examples import examples_gallery
from mofme.ui.figures import comparison
from mofme.ui.html import bars, measured_box, notes_html, table
from mofme.ui.models import Engine, Services
from mofme.ui.runs import Job
from mofme.ui.uploads import chosen_photo, file_box, new_folder, photo_box, refuse_addresses
from mofme.ui.work import Endpoint, offer, shows, start_and_cancel, status_box, work
from mofme.vision.models import weights_bytes
from mofme.vision.picture.file import read_first, read_picture, write_picture
from mofme.vision.restorer import DEFAULT_TILE, available_models

MEASURED = ("binary",)
SHOWN_UNITS = 24
NO_RESTORER = (
    "No restorer with binary weights is installed: train one with `python -m mofme train FOLDER --init small --binary "
    "--out weights/small-binary`."
)
_CANVAS = 280
_COLUMNS, _GAP = 8, 2  # of the picture of weights


def _title(binary: bool) -> str:
    return "One-bit weights" if binary else "Real weights"


@dataclass(frozen=True)
class Reader:
    """A shipped net for digits, and what its file takes."""

    net: nn.Sequential
    card: ModelCard
    kilobytes: float

    @property
    def first_weights_FD(self) -> Tensor:
        """The first layer's weights as they work."""
        layer = self.net[0]
        return (layer.working_weight() if isinstance(layer, BinaryLinear) else layer.get_parameter("weight")).detach()

    @property
    def binary(self) -> bool:
        return isinstance(self.net[0], BinaryLinear)


@dataclass(frozen=True)
class Answer:
    """What one net says: a score for each digit, the highest wins; and the first-layer units that the drawing excites
    most, strongest first.
    """

    reader: Reader
    scores_C: Tensor
    units: tuple[int, ...]

    @property
    def digit(self) -> int:
        return int(self.scores_C.argmax())


@functools.cache
def read_nets(folder: Path = WEIGHTS) -> tuple[Reader, ...]:
    """The nets for digits in folders whose name begins with `digits`, that of one-bit weights first. Raises ModelError
    if there is none.
    """
    readers = []
    for path in sorted(folder.glob(f"digits*/{CARD_FILE}")):
        net, card = load_digit_net(path.parent)
        readers.append(Reader(net, card, (path.parent / WEIGHTS_FILE).stat().st_size / 1000))
    if not readers:
        raise ModelError("No net for digits is installed: train one with `python -m mofme binary train`, then pack it.")
    return tuple(sorted(readers, key=lambda reader: not reader.binary))


@torch.inference_mode()
def read_digit(readers: tuple[Reader, ...], pixels_D: Tensor) -> list[Answer]:
    """Every net's answer for pixels in [0, 1], as `as_digit` gives them."""
    answers = []
    for reader in readers:
        excited_F = reader.net[:2](pixels_D[None])[0]
        units = excited_F.topk(min(SHOWN_UNITS, len(excited_F))).indices.tolist()
        answers.append(Answer(reader, reader.net(pixels_D[None])[0], tuple(units)))
    return answers


@dataclass(frozen=True)
class ShippedRestorer:
    """A model that a visitor may choose, and what its file takes."""

    card: ModelCard
    kilobytes: float

    @property
    def binary(self) -> bool:
        return "binary" in self.card.arguments


@dataclass(frozen=True)
class ComparedPhoto:
    """For each restorer its picture and the seconds it took; `apart` is the pictures' mean difference in levels of 0
    to 255.
    """

    restorers: tuple[ShippedRestorer, ...]
    files: tuple[Path, ...]
    seconds: tuple[float, ...]
    apart: float
    notes: tuple[str, ...]


def restorers_to_compare(models: Sequence[str], folder: Path = WEIGHTS) -> tuple[ShippedRestorer, ...]:
    """The first net of `models` with real weights that is there with binary ones, too: both; none if there is none."""
    shipped = [
        ShippedRestorer(card, weights_bytes(folder / card.name) / 1000)
        for card in available_models(folder)
        if card.name in models
    ]
    for binary in (restorer for restorer in shipped if restorer.binary):
        arguments = {name: value for name, value in binary.card.arguments.items() if name != "binary"}
        for real in shipped:
            if real.card.arguments == arguments:
                return real, binary
    return ()


def compare_photo(
    engine: Engine, restorers: tuple[ShippedRestorer, ...], job: Job, upload: Path, megapixels: float
) -> ComparedPhoto:
    """Restore one upload by each. Raises MofmeError if it is no picture, too large, or the job was stopped."""
    picture = read_first(upload, megapixels)
    folder = new_folder()
    images, files, seconds = [], [], []
    for number, shipped in enumerate(restorers):

        def report(done: float, before: int = number) -> None:
            job.report((before + done) / len(restorers), "Restoring twice")

        restorer = engine.restorer(shipped.card.name)
        with engine.turn(job.check):
            restorer(picture.rgb[:, :DEFAULT_TILE, :DEFAULT_TILE])  # the first of its size takes longer
            restoration = restorer(picture.rgb, alpha=picture.visible, on_progress=report)
        images.append(restoration.image)
        seconds.append(restoration.seconds)
        files.append(folder / f"{upload.stem}-{shipped.card.name}.png")
        write_picture(files[-1], restoration.image, picture, "png")
    job.check()
    apart = 255 * (images[0] - images[-1]).abs().mean().item()
    return ComparedPhoto(restorers, tuple(files), tuple(seconds), apart, picture.notes)


def build(
    services: Services,
    readers: Callable[[], tuple[Reader, ...]] = read_nets,
    restorers: tuple[ShippedRestorer, ...] | None = None,
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
                # On an empty one the brush would have to be chosen first.
                np.full((_CANVAS, _CANVAS, 3), 255, np.uint8),
                label="Draw a digit",
                type="numpy",
                image_mode="RGBA",
                canvas_size=(_CANVAS, _CANVAS),
                fixed_canvas=True,
                layers=False,
                transforms=(),
                brush=gr.Brush(default_size=22, colors=["#0f766e"], color_mode="fixed"),
                buttons=[],
                height=_CANVAS + 130,
                elem_id="drawing",
            )
            refuse_addresses(pad)
            start = gr.Button("Read the digit", variant="primary", elem_id="read")
        with gr.Column(scale=6, min_width=320):
            answers = status_box("Both answers appear here, with a score for every digit.", "answers")
    with gr.Accordion("What the first layer looks for", open=True):
        gr.Markdown(
            "The units that your drawing excites most: white counts for them, black against. Real weights have greys.",
            elem_classes="note",
        )
        weights = gr.HTML(padding=False, elem_id="weights")
    _photos(services, restorers)
    measured_box(*MEASURED)

    def read_drawing(drawing: dict[str, Any] | None) -> tuple[list[Answer], Tensor]:
        strokes = [layer[..., 3] for layer in (drawing or {}).get("layers", []) if layer is not None]
        if not strokes:
            raise PictureError(NOTHING_DRAWN)
        pixels_D = as_digit(torch.from_numpy(max(strokes, key=lambda ink: int(ink.sum())) / 255).float())
        return read_digit(readers(), pixels_D), pixels_D

    def read_file(picture: str | None) -> list[Answer]:
        if not picture:
            raise PictureError("Choose a picture of a digit first.")
        rgb = read_picture(Path(picture), services.limits.megapixels).rgb
        return read_digit(readers(), as_digit(ink_of(rgb)))

    shown: Any = {answers: lambda said: answers_html(*said), weights: lambda said: weights_html(said[0])}
    start.click(**shows(read_drawing, [pad], shown, answers, "read-digit"), show_progress_on=answers)
    description = "Read the digit in a picture by each of the shipped nets. Returns digit and scores of each."
    endpoint = Endpoint("read_digit", description, {"result": gr.JSON}, answer_values)
    offer(endpoint, read_file, [file_box(label="picture", visible=False)], "read-digit")


def _photos(services: Services, restorers: tuple[ShippedRestorer, ...]) -> None:
    """The same for photos; without two restorers to compare, a sentence instead."""
    gr.Markdown("## Photos")
    if not restorers:
        gr.Markdown(NO_RESTORER, elem_classes="note", elem_id="binary-none")
    with gr.Row(visible=bool(restorers)):
        with gr.Column(scale=4, min_width=320):
            photo = photo_box("binary-photo")
            buttons = start_and_cancel("Restore by both", "binary-restore")
            examples_gallery("binary-examples", photo)
        with gr.Column(scale=6, min_width=320):
            slider = comparison("Left: real weights. Right: one-bit weights", "binary-slider")
            summary = status_box(
                "A restorer most of whose weights are one bit each, beside the same net with real weights: choose a "
                "photo and press <b>Restore by both</b>.",
                "binary-summary",
            )

    def compare(job: Job, path: str | None) -> ComparedPhoto:
        if not restorers:
            raise ModelError(NO_RESTORER)
        upload = chosen_photo(path)
        job.report(0, "Reading the photo")
        return compare_photo(services.engine, restorers, job, upload, services.limits.megapixels)

    work(
        compare,
        [photo],
        {slider: lambda done: tuple(map(str, done.files)), summary: photo_html},
        buttons,
        summary,
        services.limits.picture_seconds,
        Endpoint(
            "restore_binary",
            "Restore one photo with real and with one-bit weights. Returns two PNGs and a report: kilobytes and "
            "seconds of each, and how many of 255 levels the pictures are apart on average.",
            {"real": gr.File, "binary": gr.File, "report": gr.JSON},
            lambda done: (*map(str, done.files), photo_values(done)),
        ),
        progress_on=slider,
        scroll_to=slider,
    )


def answers_html(answers: Sequence[Answer], pixels_D: Tensor) -> str:
    """The digit as the nets see it, and each net's scores side by side."""
    seen = _image((pixels_D.view(SIDE, SIDE).numpy() * 255).round(), "The digit as the nets see it", 84)
    agree = len({answer.digit for answer in answers}) == 1
    words = "All say the same." if agree and len(answers) > 1 else "" if agree else "They disagree."
    return (
        f"<p>The nets see this: {seen} {words}</p>"
        f"<div class='plots'>{''.join(map(_answer, answers))}</div>"
        "<p class='note'>Scores, not probabilities: each net was trained towards +1 for the right digit and -1 for the "
        "others.</p>"
    )


def weights_html(answers: Sequence[Answer]) -> str:
    """The first-layer weights of the units that the drawing excites most."""
    return f"<div class='plots'>{''.join(map(_weights, answers))}</div>"


def answer_values(answers: Sequence[Answer]) -> dict[str, Any]:
    """The same for programs."""
    return {
        answer.reader.card.name: {
            "digit": answer.digit,
            "scores": [round(score, 4) for score in answer.scores_C.tolist()],
            "kilobytes": round(answer.reader.kilobytes, 1),
        }
        for answer in answers
    }


def photo_html(photo: ComparedPhoto) -> str:
    """Name, size and time of each, and how far apart the pictures are."""
    rows = [
        (f"{_title(one.binary)}: {one.card.name}", f"{one.kilobytes:,.0f}\u00a0kB", f"{seconds:.2f}\u00a0s")
        for one, seconds in zip(photo.restorers, photo.seconds, strict=True)
    ]
    layers = sum(len(restorer.card.arguments.get("binary", ())) for restorer in photo.restorers)
    return (
        f"<p>The two pictures are {photo.apart:.1f} of 255 levels apart on average.</p>{notes_html(photo.notes)}"
        f"{table(('Restorer', 'File', 'Time'), rows)}"
        f"<p class='note'>{layers} of its layers have weights of one bit; those that bear it badly keep real ones. The "
        "file is smaller, the time is not: the bits are unpacked once, when the model is loaded, and then multiplied "
        "like any other weights.</p>"
    )


def photo_values(photo: ComparedPhoto) -> dict[str, Any]:
    """The same for programs."""
    sides = {
        one.card.name: {"binary": one.binary, "kilobytes": round(one.kilobytes, 1), "seconds": round(seconds, 3)}
        for one, seconds in zip(photo.restorers, photo.seconds, strict=True)
    }
    return {"restorers": sides, "levels_apart": round(photo.apart, 3)}


def _answer(answer: Answer) -> str:
    reader, scores = answer.reader, answer.scores_C.tolist()
    shares = {str(digit): min(1.0, max(0.0, (score + 1) / 2)) for digit, score in enumerate(scores)}
    error = reader.card.metrics.get("test error, %")
    wrong = "" if error is None else f", {error:.2f} % of MNIST's test digits wrong"
    return (
        f"<div><h2>{_title(reader.binary)}</h2><p class='choice'>{answer.digit}</p>"
        f"<p class='note'>3 layers of {reader.card.arguments['width']}, {reader.kilobytes:,.0f} kB{wrong}</p>"
        f"{bars(shares, [f'{score:+.2f}' for score in scores])}</div>"
    )


def _weights(answer: Answer) -> str:
    weights_UD = answer.reader.first_weights_FD[list(answer.units)]
    # Binary weights become black and white; real ones grey, each unit on its own scale.
    scale_U1 = weights_UD.abs().amax(1, keepdim=True).clamp_min(1e-12)
    tiles = ((weights_UD / scale_U1 + 1) * 127.5).round().view(-1, SIDE, SIDE).numpy()
    rows = -(-len(tiles) // _COLUMNS)
    sheet = np.full((rows * (SIDE + _GAP) - _GAP, _COLUMNS * (SIDE + _GAP) - _GAP, 4), 0, np.uint8)
    for place, tile in enumerate(tiles):
        top, left = (index * (SIDE + _GAP) for index in divmod(place, _COLUMNS))
        sheet[top : top + SIDE, left : left + SIDE] = np.dstack([tile, tile, tile, np.full_like(tile, 255)])
    title = _title(answer.reader.binary)
    words = f"{title}: what {len(answer.units)} units of the first layer look for"
    return f"<div><h2>{title}</h2>{_image(sheet, words)}</div>"


def _image(pixels: "np.ndarray[Any, Any]", words: str, width: int | None = None) -> str:
    file = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(file, "PNG")
    size = f"width: {width}px" if width else "width: 100%; max-width: 460px"
    data = base64.b64encode(file.getvalue()).decode()
    return (
        f"<img src='data:image/png;base64,{data}' alt='{words}' "
        f"style='{size}; image-rendering: pixelated; display: inline-block; vertical-align: middle'>"
    )
