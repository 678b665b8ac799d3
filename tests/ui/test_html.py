"""Tables, bars, coloured numbers and the shipped results."""

import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mofme.measure.result import Check, Figure, Judgement, Result, Row, available_results, save_result
from mofme.papers.attention_router import tab as attention_router
from mofme.papers.carrot import tab as llm_routing
from mofme.papers.mixture_of_routers import tab as lora_mixture
from mofme.papers.r2t2 import tab as rerouting
from mofme.papers.router_robustness import tab as router_robustness
from mofme.ui.chart import bar_plot, cost_plot, learning_curves, scatter_plot
from mofme.ui.figures import expert_figures, heat_map, save_picture, telling_layer, thumbnail, uncertainty_figure
from mofme.ui.html import Block, bars, heat_grid, heat_table, measured_by_us, numbered, result_tables
from mofme.ui.tabs import evaluate
from mofme.vision.restorer import RoutingMap
from tests.full_disk import room_for


def save(folder: Path, room: str, verdict: str = "Clearer.") -> None:
    rows = [Row("PSNR, dB", "rain <b>", {"gain": Figure(4.63, 3.84, 5.43)})]
    save_result(Result(room, "A paper", "a claim", verdict, "python -m mofme x", rows, [0, 1]), folder)


def test_every_room_is_shown_with_what_its_file_says(tmp_path: Path) -> None:
    save(tmp_path, "restoration")
    save(tmp_path, "uncertainty", "Not <i>useful</i>.")
    page = measured_by_us("", folder=tmp_path)
    for text in ("Clearer.", "A paper claims: a claim", "+4.63 (+3.84 to +5.43)", "python -m mofme x", "seeds 0, 1"):
        assert text in page
    assert "Not &lt;i&gt;useful&lt;/i&gt;." in page
    assert "rain &lt;b&gt;" in page
    assert page.index("Restoration") < page.index("Uncertainty")
    (tmp_path / "uncertainty.json").write_text("{", encoding="utf-8")
    page = measured_by_us("", folder=tmp_path)
    assert "The result uncertainty cannot be read" in page and "Clearer." in page


def test_a_tab_shows_its_own_rooms_only_and_their_plots_when_they_are_opened(tmp_path: Path) -> None:
    for room in ("ablation", "llm_routing", "llm_routing_rate", "restorers"):
        save(tmp_path, room, f"Verdict of {room}.")
    (tmp_path / "llm_routing-slope.png").write_bytes(b"a plot")
    page = measured_by_us("ablation", "restor", folder=tmp_path)
    assert re.findall(r"Verdict of (\w+)", page) == ["ablation", "restorers"]
    page = measured_by_us("llm_routing", folder=tmp_path)
    assert re.findall(r"Verdict of (\w+)", page) == ["llm_routing", "llm_routing_rate"]
    assert re.findall(r'<img src="(.*?)" loading="lazy"', page) == ["plots/llm_routing-slope.png"]
    assert page.index("<img") < page.index("Verdict of llm_routing_rate")


def test_no_shipped_result_is_in_two_tabs_and_those_of_routing_are_in_one() -> None:
    tabs = (evaluate, llm_routing, router_robustness, lora_mixture, attention_router, rerouting)
    shown = {room: [tab.__name__ for tab in tabs if room.startswith(tab.MEASURED)] for room in available_results()}
    assert {room: names for room, names in shown.items() if len(names) > 1} == {}
    assert [room for room, names in shown.items() if room.startswith("llm_") and not names] == []


def test_a_room_is_one_plain_sentence_and_a_chart_with_intervals_and_its_numbers_are_folded(tmp_path: Path) -> None:
    save(tmp_path, "restoration", "Many numbers.")
    unfolded = re.sub("<details>.*?</details>", "", measured_by_us("", folder=tmp_path))
    assert "Many numbers." in unfolded and "<svg" not in unfolded  # no row of rain100l, so no plain sentence
    rows = [Row("PSNR, dB", name, {"gain": Figure(6, 5, 7)}) for name in ("rain100l", "snow")]
    save_result(Result("restoration", "A paper", "a claim", "Many numbers.", "x", rows), tmp_path)
    unfolded = re.sub("<details>.*?</details>", "", measured_by_us("", folder=tmp_path))
    assert "Many numbers." not in unfolded and "<table" not in unfolded
    # 6 dB less are 10 ** (-6 / 20) = half of the error
    assert "error shrinks by 50 %" in unfolded
    assert unfolded.count("<circle") == 2 and "snow: 6 (5 to 7)" in unfolded


def test_a_room_tells_of_each_claim_what_the_ledger_tells(tmp_path: Path) -> None:
    checks = [Check("gain, dB", Figure(2, 1, 3))], [Check("oracle", Figure(1, -1, 3))]
    judgements = [
        Judgement("it <helps>", "exact", "small", *checks, "more of it"),
        Judgement("it pays", "as is", "", checks[0]),
    ]
    save_result(Result("ablation", "A paper", "a claim", "Words.", "x", [], judgements=judgements), tmp_path)
    page = measured_by_us("ablation", folder=tmp_path)
    assert "the paper's claims: cannot be seen here, reproduced" in page
    assert "claim: it &lt;helps&gt;; verdict here: cannot be seen here; method: exact" in page
    assert "checks passed: 0 of 1; it hangs on: oracle: 1 (-1 to 3); it would take: more of it." in page


def test_tables_and_bars() -> None:
    rows = [Row("Time", "a", {"s": Figure(2)}), Row("Time", "b", {})]
    table = result_tables(Result("x", "", "", "", "", rows))
    assert re.findall(r"<t[hd]>(.*?)</t[hd]>", table) == ["", "s", "a", "2", "b", ""]
    assert re.findall(r"width: (\d+)%", bars({"rain": 0.87, "haze": 0.02})) == ["87", "2"]


def test_larger_numbers_are_more_coloured_and_gaps_are_left_empty() -> None:
    page = heat_grid("<word>", ["a", "a"], [Block("<one>", numbered(2), np.array([[0.5, 0.0], [np.nan, 1.0]]))])
    assert "<th>&lt;word&gt;</th><th colspan='2'>&lt;one&gt;</th>" in page
    assert "<th>1</th><th>2</th>" in page
    # Half of the strongest colour is 25 of at most 50 %.
    assert "<tr><td>a</td><td class='first' style='--heat: 25%'>50</td><td></td></tr>" in page
    assert "<tr><td>a</td><td class='first'></td><td style='--heat: 50%'>100</td></tr>" in page
    changes = Block("change", ["1", "2"], np.array([[0.021, -0.5]]), most=0.1, digits=1, signed=True)
    nats = Block("loss", ["3"], np.array([[2.345]]), most=10, scale=1, digits=2)
    cells = re.findall(r"--heat: (\d+)%'>(.*?)<", heat_grid("Layer", ["x"], [changes, nats]))
    assert cells == [("10", "+2.1"), ("50", "-50.0"), ("12", "2.35")]  # beyond the strongest colour is no stronger
    columns = {"<one>": ["simple", "hard"]}
    page = heat_table(columns, {"maths": [Figure(80, 70, 90), None]})
    assert "<th colspan='2'>&lt;one&gt;</th>" in page
    assert "<td style='--heat: 40%' title='70 to 90 %'>80</td><td></td>" in page
    assert "simple" not in heat_table({"one": [""]}, {"maths": [Figure(1)]})


SVG = "{http://www.w3.org/2000/svg}"
scores = st.floats(-100, 100)
names = st.text(st.characters(exclude_categories=["C"]), max_size=40)


def parts(svg: str, kind: str) -> list[ElementTree.Element]:
    return list(ElementTree.fromstring(svg).iter(f"{SVG}{kind}"))


def texts(svg: str) -> list[str]:
    return [part.text or "" for part in parts(svg, "text")]


def dots_inside(svg: str) -> list[ElementTree.Element]:
    """All dots, each of which is inside the drawing."""
    bottom = float(ElementTree.fromstring(svg).attrib["viewBox"].split()[3])
    for dot in parts(svg, "circle"):
        assert 0 < float(dot.attrib["cx"]) < 360 and 0 < float(dot.attrib["cy"]) < bottom
    return parts(svg, "circle")


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


@settings(max_examples=20)
@given(st.dictionaries(names, st.lists(st.tuples(names, scores, scores), min_size=1, max_size=5), max_size=8))
def test_any_scores_and_names_make_a_plot_that_fits(sets: dict[str, list[tuple[str, float, float]]]) -> None:
    plot = scatter_plot("PSNR, dB", sets)
    assert len(dots_inside(plot)) == sum(map(len, sets.values()))
    ticks = [float(text) for text in texts(plot) if re.fullmatch(r"-?\d+(\.\d+)?(e-?\d+)?", text)]
    assert len(ticks) >= 4


def test_names_cannot_smuggle_in_markup() -> None:
    name = "<script>&'\""
    for plot in (bar_plot(name, {name: (1, 2)}), scatter_plot(name, {name: [(name, 1, 2)], "b": []})):
        assert "<script" not in plot
        assert name in texts(plot)


def test_a_curve_goes_down_as_losses_fall() -> None:
    plot = learning_curves("Loss <nats>", {"falls": [4.0, 2.0, 1.0], "stays": [2.0] * 100})
    assert "steps 1 to 100" in plot
    falls, stays = (path.attrib["d"] for path in parts(plot, "path"))
    heights = [float(point.split()[1]) for point in falls[1:].split("L")]
    assert heights == sorted(heights) and len(heights) == 3  # downwards on a screen
    assert len({point.split()[1] for point in stays[1:].split("L")}) == 1
    assert stays.count("L") == 29
    with pytest.raises(ValueError, match="no step"):
        learning_curves("Loss", {"none": []})


@settings(max_examples=20)
@given(st.dictionaries(names, st.tuples(st.floats(0, 1e3) | st.just(0.0), st.floats(0, 1)), min_size=1))
def test_any_models_make_a_plot_that_fits(models: dict[str, tuple[float, float]]) -> None:
    plot = cost_plot("Costs", models, {"one": list(models.values())}, next(iter(models)))
    assert len(dots_inside(plot)) == len(models) + 1


@pytest.mark.parametrize(("size", "small"), [((100, 7), (100, 7)), ((300, 150), (100, 50)), ((1, 250), (1, 100))])
def test_thumbnails_fit_and_keep_small_pictures(size: tuple[int, int], small: tuple[int, int]) -> None:
    assert thumbnail(torch.rand(3, *size), side=100).shape == (3, *small)


def test_heat_map_is_the_grey_photo_where_nothing_happened_and_coloured_where_much_did() -> None:
    rgb = torch.tensor([1.0, 0.5, 0.0])[:, None, None].expand(3, 8, 8)
    left, right = torch.zeros(8, 4), torch.ones(8, 4)
    pixels = np.asarray(heat_map(rgb, torch.cat([left, right], dim=1))).astype(int)
    assert np.ptp(pixels[:, 0], axis=-1).max() == 0
    red, _, blue = pixels[4, 7]
    assert red > blue + 50


def test_one_heat_map_for_each_expert_that_worked_the_busiest_first_of_the_telling_layer(tmp_path: Path) -> None:
    # Of 4 places, expert 2 has 3, expert 1 has 1 and expert 3 none.
    weights = torch.tensor([[[1.0, 0.0], [0.0, 0.0]], [[0.0, 1.0], [1.0, 1.0]], [[0.0, 0.0], [0.0, 0.0]]])
    figures = expert_figures(torch.rand(3, 16, 16), RoutingMap("layer", weights), tmp_path)
    assert [caption for _, caption in figures] == ["Expert 2 · 75 % of the picture", "Expert 1 · 25 % of the picture"]
    assert len({path for path, _ in figures}) == 2
    even = RoutingMap("even", torch.full((2, 2, 2), 0.5))
    split = RoutingMap("split", torch.tensor([[[1.0, 0.0], [1.0, 0.0]], [[0.0, 1.0], [0.0, 1.0]]]))
    assert telling_layer((even, split)).layer == "split"


def test_legend_of_the_uncertainty_names_its_range(tmp_path: Path) -> None:
    path, legend = uncertainty_figure(torch.rand(3, 8, 8), torch.tensor([[0.1, 0.3], [0.2, 0.45]]), tmp_path)
    assert path.exists() and "0.10" in legend and "0.45" in legend


def test_a_picture_that_does_not_fit_on_the_disk_leaves_no_half_of_it(tmp_path: Path) -> None:
    noise = torch.rand(3, 200, 200, generator=torch.Generator().manual_seed(0))
    with room_for(1000), pytest.raises(OSError):
        save_picture(noise, tmp_path / "small.jpg")
    assert not (tmp_path / "small.jpg").exists()
