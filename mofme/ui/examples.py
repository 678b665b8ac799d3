"""Example photos: pictures that ship inside scikit-learn, with our synthetic weather, made once and kept."""

import functools
import importlib.util
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path

import gradio as gr
import numpy as np
import torch
from gradio.events import Dependency
from numpy.typing import NDArray

from mofme.files import cache_root
from mofme.ui.figures import gallery
from mofme.ui.work import plain_errors
from mofme.vision.picture.file import read_picture, write_picture
from mofme.vision.weather import synthesize


@dataclass(frozen=True)
class Example:
    """A picture of scikit-learn's, the weather put on it, and the seed that decides every drop."""

    photo: str
    weather: str
    seed: int
    caption: str


# Several pages ask for the examples: one makes them, the others wait.
_MAKING = threading.Lock()

# What the net does well, and what it fails at.
EXAMPLES = (
    Example("flower.jpg", "rain", 2, "Rain"),
    Example("flower.jpg", "snow", 2, "Snow"),
    Example("china.jpg", "haze", 2, "Haze"),
    Example("china.jpg", "raindrop", 3, "Too hard"),
)
_DRAWN = (107, 160)  # pixels, in the shape of the photos


@functools.cache
def examples_folder() -> Path:
    """Where examples are kept between starts: the user's cache, or a temporary folder if that cannot be written."""
    folder = cache_root() / "examples"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except OSError:
        return Path(tempfile.mkdtemp(prefix="mofme-examples-"))


def make_examples(folder: Path) -> list[tuple[str, str]]:
    """Paths and captions of the examples, making those that are missing; none if scikit-learn is not installed."""
    sklearn = importlib.util.find_spec("sklearn")
    if sklearn is None or sklearn.origin is None:
        return []
    photos = Path(sklearn.origin).parent / "datasets" / "images"
    made = []
    with _MAKING:
        for example in EXAMPLES:
            path = folder / f"{Path(example.photo).stem}-{example.weather}-{example.seed}.jpg"
            if not path.exists():
                clean, generator = read_picture(photos / example.photo), torch.Generator().manual_seed(example.seed)
                write_picture(path, synthesize(clean.rgb[None], [example.weather], generator).image[0], clean)
            made.append((str(path), example.caption))
    return made


def drawn(example: Example) -> NDArray[np.uint8]:
    """Hills in the example's weather, small, shown until the example is there."""
    height, width = _DRAWN
    hills = torch.arange(height)[:, None] > 65 + 20 * torch.sin(torch.arange(width) / 12)
    sky, ground = (torch.tensor(colour)[:, None, None] / 255 for colour in ((71, 92, 115), (45, 62, 80)))
    scene, generator = torch.where(hills, ground, sky), torch.Generator().manual_seed(example.seed)
    image = synthesize(scene[None], [example.weather], generator).image[0]
    return (image * 255).byte().permute(1, 2, 0).numpy()


def examples_gallery(elem_id: str, photo: gr.Image) -> Dependency:
    """The examples, drawn ones until they are made; returns the event of a click, which puts one into `photo`."""

    def made() -> list[tuple[str, str]]:
        with plain_errors():
            return make_examples(examples_folder())

    def chosen(event: gr.SelectData) -> str:
        return made()[int(event.index)][0]

    gr.Markdown("Or try one of these:", elem_classes="note")
    placeholders = [(drawn(example), example.caption) for example in EXAMPLES]
    shown = gallery("four", 4, value=placeholders, allow_preview=False, elem_id=elem_id)
    gr.on(None, made, None, shown, api_visibility="private", show_progress="hidden")
    clicked: Dependency = shown.select(chosen, None, photo, api_visibility="private", show_progress="hidden")
    return clicked
