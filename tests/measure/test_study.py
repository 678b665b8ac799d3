"""What a study keeps, and what it refuses."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from mofme.errors import ModelError
from mofme.measure.result import Figure
from mofme.measure.statistics import FloatArray
from mofme.measure.study import Log, Study, intervals, plot


@dataclass(frozen=True)
class Measured:
    name: str
    seconds: float
    nats_W: FloatArray


def never() -> Measured:
    raise AssertionError


def test_what_is_kept_is_not_measured_again(tmp_path: Path) -> None:
    made = Study(tmp_path / "new", {"steps": 2}).kept("one", Measured, lambda: Measured("a", 0.5, np.array([0.1, 3])))
    again = Study(tmp_path / "new", {"steps": 2}).kept("one", Measured, never)
    assert (made.name, made.seconds, made.nats_W.tolist()) == (again.name, again.seconds, again.nats_W.tolist())
    assert again.nats_W.tolist() == [0.1, 3]
    with pytest.raises(AssertionError):
        Study(tmp_path / "new", {"steps": 2}).kept("not finished", Measured, never)
    assert {path.name for path in (tmp_path / "new").iterdir()} == {"setting.json", "one.json"}


def test_another_setting_is_refused_by_what_differs(tmp_path: Path) -> None:
    Study(tmp_path, {"steps": 2, "rate": 0.1, "arms": ("a", "b")})
    Study(tmp_path, {"steps": 2, "rate": 0.1, "arms": ["a", "b"]})
    with pytest.raises(ModelError, match=r"setting\.json tells of another batch, steps: take another folder"):
        Study(tmp_path, {"steps": 3, "rate": 0.1, "arms": ["a", "b"], "batch": 4})
    assert json.loads((tmp_path / "setting.json").read_text()) == {"steps": 2, "rate": 0.1, "arms": ["a", "b"]}
    Study(tmp_path, {"text": 5}, note="other")


def test_a_log_goes_on_after_its_last_whole_row(tmp_path: Path) -> None:
    log = Log(tmp_path / "new" / "log.jsonl")
    assert log.rows() == []
    log.append({"name": "Zürich"})
    with log.path.open("a", encoding="utf-8") as file:
        file.write('{"name": "cut sh\u00f6')
    assert Log(log.path).rows() == [{"name": "Zürich"}]
    log.append({"name": "b"})
    assert log.rows() == [{"name": "Zürich"}, {"name": "b"}]


def test_a_picture_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.png"
    with plot(path, 6, 2, columns=(1, 2)) as (left, right):
        assert left.get_position().width < right.get_position().width
        assert not path.exists()
    assert path.read_bytes().startswith(b"\x89PNG")
    before = path.read_bytes()
    with pytest.raises(RuntimeError), plot(path, 6, 2):
        raise RuntimeError
    assert [file.name for file in path.parent.iterdir()] == ["a.png"] and path.read_bytes() == before


def test_intervals_from_end_to_end_and_the_first_on_top(tmp_path: Path) -> None:
    with plot(tmp_path / "a.png", 6, 2) as (axes,):
        intervals(axes, {"gains": Figure(2, 1, 4), "one seed": Figure(3)})
        assert [list(line.get_xdata()) for line in axes.lines] == [[1, 4], [2], [3]]
        assert [label.get_text() for label in axes.get_yticklabels()] == ["gains", "one seed"]
        assert axes.yaxis_inverted()
