import re
import xml.etree.ElementTree as ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mofme.ui.plots import bar_plot, scatter_plot

SVG = "{http://www.w3.org/2000/svg}"
scores = st.floats(-100, 100)
names = st.text(st.characters(exclude_categories=["C"]), max_size=40)


def parts(svg: str, kind: str) -> list[ElementTree.Element]:
    return list(ElementTree.fromstring(svg).iter(f"{SVG}{kind}"))


def texts(svg: str) -> list[str]:
    return [part.text or "" for part in parts(svg, "text")]


def test_bars_are_as_long_as_their_values() -> None:
    plot = bar_plot("Mean PSNR, dB", {"rain": (10, 20), "haze": (5, 15)})
    widths = [float(part.attrib["width"]) for part in parts(plot, "rect") if part.attrib["x"] == "0"]
    lengths = [width for width in widths if width != 10]  # without the legend's squares
    assert [length / lengths[1] for length in lengths] == pytest.approx([0.5, 1, 0.25, 0.75], abs=1e-3)
    assert {"Mean PSNR, dB", "rain", "haze", "10.0", "15.0"} <= set(texts(plot))


def test_a_dot_is_above_the_diagonal_if_the_picture_became_better() -> None:
    plot = scatter_plot("PSNR, dB", {"rain": [("better", 20, 25), ("same", 22, 22), ("worse", 25, 20)]})
    (frame,) = (part for part in parts(plot, "rect") if part.attrib["fill"] == "none")
    left, top, side = (float(frame.attrib[name]) for name in ("x", "y", "width"))
    rise = []
    for dot in parts(plot, "circle"):
        x, y = float(dot.attrib["cx"]) - left, top + side - float(dot.attrib["cy"])
        assert 0 < x < side and 0 < y < side
        rise.append(y - x)
    better, same, worse = rise
    assert better > 10 and abs(same) < 0.2 and worse < -10


@given(st.dictionaries(names, st.lists(st.tuples(names, scores, scores), min_size=1, max_size=5), max_size=8))
def test_any_scores_and_names_make_a_plot_that_fits(sets: dict[str, list[tuple[str, float, float]]]) -> None:
    plot = scatter_plot("PSNR, dB", sets)
    bottom = float(ElementTree.fromstring(plot).attrib["viewBox"].split()[3])
    for dot in parts(plot, "circle"):
        assert 0 < float(dot.attrib["cx"]) < 360
        assert 0 < float(dot.attrib["cy"]) < bottom
    assert len(parts(plot, "circle")) == sum(map(len, sets.values()))
    ticks = [float(text) for text in texts(plot) if re.fullmatch(r"-?\d+(\.\d+)?(e-?\d+)?", text)]
    assert len(ticks) >= 4


def test_names_cannot_smuggle_in_markup() -> None:
    name = "<script>&'\""
    for plot in (bar_plot(name, {name: (1, 2)}), scatter_plot(name, {name: [(name, 1, 2)], "b": []})):
        assert "<script" not in plot
        assert name in texts(plot)
