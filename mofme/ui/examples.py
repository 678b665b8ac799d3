"""Example photos: pictures that ship inside scikit-learn, with our synthetic weather, made once and kept."""

import functools
import importlib.util
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path

import gradio as gr
import torch
from gradio.events import Dependency

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

    @property
    def caption(self) -> str:
        return {"raindrop": "Drops"}.get(self.weather, self.weather.capitalize())


# Three tabs ask for the examples when the first page opens: one makes them, the others wait.
_MAKING = threading.Lock()

EXAMPLES = (
    Example("china.jpg", "rain", 1),
    Example("flower.jpg", "snow", 2),
    Example("flower.jpg", "raindrop", 3),
    Example("china.jpg", "haze", 4),
)


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
            path = folder / f"{Path(example.photo).stem}-{example.weather}.jpg"
            if not path.exists():
                _make(example, photos / example.photo, path)
            made.append((str(path), example.caption))
    return made


def _make(example: Example, photo: Path, path: Path) -> None:
    clean = read_picture(photo)
    weathered = synthesize(clean.rgb[None], [example.weather], torch.Generator().manual_seed(example.seed))
    write_picture(path, weathered.image[0], clean)


def examples_gallery(elem_id: str, photo: gr.Image) -> Dependency:
    """The examples, four in a row, made the first time a page opens; returns the event of a click, which puts one into
    `photo`.
    """

    def made() -> list[tuple[str, str]]:
        with plain_errors():
            return make_examples(examples_folder())

    def chosen(event: gr.SelectData) -> str:
        return made()[int(event.index)][0]

    gr.Markdown("Or try one of these:", elem_classes="note")
    shown = gallery("four", 4, allow_preview=False, elem_id=elem_id)
    gr.on(None, made, None, shown, api_visibility="private", show_progress="hidden")
    clicked: Dependency = shown.select(chosen, None, photo, api_visibility="private", show_progress="hidden")
    return clicked
