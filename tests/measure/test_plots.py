"""Pictures beside the tables."""

from pathlib import Path

import pytest

from mofme.measure.result import Figure
from mofme.measure.study import intervals, plot


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
