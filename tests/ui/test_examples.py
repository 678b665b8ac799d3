from pathlib import Path

import pytest
from PIL import Image

from mofme.ui.examples import EXAMPLES, make_examples
from mofme.vision.weather import WEATHERS


def test_examples_are_made_once_and_always_alike(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    examples = make_examples(tmp_path)
    assert len(examples) == len(EXAMPLES)
    for path, _ in examples:
        with Image.open(path) as image:
            assert image.size == (640, 427)
    made = {path: Path(path).stat().st_mtime_ns for path, _ in examples}
    assert {path: Path(path).stat().st_mtime_ns for path, _ in make_examples(tmp_path)} == made
    again = make_examples(tmp_path / "other")
    assert [Path(path).read_bytes() for path, _ in again] == [Path(path).read_bytes() for path, _ in examples]


def test_every_weather_has_an_example() -> None:
    assert {example.weather for example in EXAMPLES} == set(WEATHERS)


def test_without_scikit_learn_there_are_no_examples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert make_examples(tmp_path) == []
