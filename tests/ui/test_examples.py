from pathlib import Path

import gradio as gr
import pytest
import sklearn
from PIL import Image

from mofme.ui.examples import EXAMPLES, examples_gallery, make_examples
from mofme.vision.picture.file import read_picture
from mofme.vision.restorer import Restorer


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[str, str]]:
    return make_examples(tmp_path_factory.mktemp("examples"))


def test_examples_are_made_once_and_always_alike(examples: list[tuple[str, str]], tmp_path: Path) -> None:
    assert len(examples) == len(EXAMPLES)
    made = {path: Path(path).stat().st_mtime_ns for path, _ in examples}
    folder = Path(examples[0][0]).parent
    assert {path: Path(path).stat().st_mtime_ns for path, _ in make_examples(folder)} == made
    for (path, _), (again, _) in zip(examples, make_examples(tmp_path), strict=True):
        assert Path(path).read_bytes() == Path(again).read_bytes()
        with Image.open(path) as image:
            assert image.size == (640, 427)


def test_something_is_shown_before_any_example_is_made_and_where_none_can_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with gr.Blocks() as page:
        examples_gallery("examples", gr.Image())
    (gallery,) = (part for part in page.config["components"] if part["type"] == "gallery")
    captions = [shown["caption"] for shown in gallery["props"]["value"]]
    assert captions == [example.caption for example in EXAMPLES]
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)  # without scikit-learn
    assert make_examples(tmp_path) == []


def test_the_examples_are_cleared_well_but_for_the_one_that_is_called_too_hard(examples: list[tuple[str, str]]) -> None:
    restorer = Restorer.from_pretrained()
    photos = Path(str(sklearn.__file__)).parent / "datasets" / "images"
    for example, (path, caption) in zip(EXAMPLES, examples, strict=True):
        clean, weathered = read_picture(photos / example.photo).rgb, read_picture(Path(path)).rgb
        before, after = (float((image - clean).square().mean()) for image in (weathered, restorer(weathered).image))
        # Well: less than a quarter of the squared error is left.
        assert (after < before / 4) == ("Too hard" not in caption), caption
    assert sum("Too hard" in example.caption for example in EXAMPLES) == 1
