import re
import xml.etree.ElementTree as ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mofme.measure.result import Figure
from mofme.ui.chart import bar_plot, cost_plot, learning_curves, line_plot, scatter_plot, tradeoff_plot

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


def test_a_curve_goes_down_as_losses_fall() -> None:
    plot = learning_curves("Loss <nats>", {"falls": [4.0, 2.0, 1.0], "stays": [2.0] * 100})
    svg = ElementTree.fromstring(plot)
    assert "steps 1 to 100" in plot
    falls, stays = (path.attrib["d"] for path in svg.iter("{http://www.w3.org/2000/svg}path"))
    heights = [float(point.split()[1]) for point in falls[1:].split("L")]
    assert heights == sorted(heights) and len(heights) == 3  # downwards on a screen
    assert len({point.split()[1] for point in stays[1:].split("L")}) == 1
    assert stays.count("L") == 29


def test_no_step_makes_no_curve() -> None:
    with pytest.raises(ValueError, match="no step"):
        learning_curves("Loss", {"none": []})


def test_lines_go_from_left_to_right_and_lower_values_lie_lower() -> None:
    page = line_plot("a <title>", {"<a>": [(0, 5.0), (10, 1.0)], "empty": []}, steps=10)
    (path,) = re.findall(r"<path d='M([^']+)' fill='none' stroke='#", page)
    (x, y), (to_x, to_y) = ([float(value) for value in point.split()] for point in path.split("L"))
    assert x < to_x and y < to_y
    assert "<a>" not in page
    assert "<svg" in line_plot("nothing yet", {"a": []}, steps=10)


def test_one_dot_stands_right_of_and_below_another() -> None:
    page = tradeoff_plot("a <title>", "cost", {"<a>": (1.0, Figure(10, 9, 11)), "b": (2.0, Figure(5))})
    places = [(float(x), float(y)) for x, y in re.findall(r"cx='([\d.]+)' cy='([\d.]+)'", page)]
    assert places[0][0] < places[1][0] and places[0][1] < places[1][1]
    assert "<a>" not in page


costs = st.floats(0, 1e3) | st.just(0.0)
points = st.tuples(costs, st.floats(0, 1))


@given(
    st.dictionaries(st.text(st.characters(codec="utf-8", exclude_categories=["C"]), max_size=30), points, min_size=1)
)
def test_any_models_make_a_plot_that_fits(models: dict[str, tuple[float, float]]) -> None:
    chosen = next(iter(models))
    root = ElementTree.fromstring(cost_plot("Costs", models, {"one": list(models.values())}, chosen))
    bottom = float(root.attrib["viewBox"].split()[3])
    dots = [part for part in root.iter() if part.tag.endswith("circle")]
    assert len(dots) == len(models) + 1
    for dot in dots:
        assert 0 < float(dot.attrib["cx"]) < 360
        assert 0 < float(dot.attrib["cy"]) < bottom


def test_a_plot_puts_cheap_to_the_left_and_good_above() -> None:
    root = ElementTree.fromstring(cost_plot("Costs", {"a": (0.1, 0.2), "b": (1, 0.9), "c": (10, 0.9)}, {}))
    (ax, ay), (bx, by), (cx, cy) = (
        (float(dot.attrib["cx"]), float(dot.attrib["cy"])) for dot in root.iter() if dot.tag.endswith("circle")
    )
    assert ax < bx < cx and bx - ax == pytest.approx(cx - bx, abs=0.2)  # logarithmic
    assert ay > by == cy
