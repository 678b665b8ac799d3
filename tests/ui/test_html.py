"""Tables, bars, coloured numbers and the shipped results."""

import re
from pathlib import Path

import numpy as np

from mofme.measure.result import Figure, Result, Row, available_results, save_result
from mofme.papers.attention_router import tab as attention_router
from mofme.papers.carrot import tab as llm_routing
from mofme.papers.mixture_of_routers import tab as lora_mixture
from mofme.papers.r2t2 import tab as rerouting
from mofme.papers.router_robustness import tab as router_robustness
from mofme.ui.html import Block, bars, heat_grid, heat_table, measured_by_us, numbered, result_tables
from mofme.ui.tabs import evaluate


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


def test_a_tab_shows_its_own_rooms_only(tmp_path: Path) -> None:
    for room in ("ablation", "llm_routing", "llm_routing_rate", "restorers"):
        save(tmp_path, room, f"Verdict of {room}.")
    (tmp_path / "llm_routing_rate-slope.png").write_bytes(b"a plot")
    page = measured_by_us("ablation", "restor", folder=tmp_path)
    assert re.findall(r"Verdict of (\w+)", page) == ["ablation", "restorers"]
    page = measured_by_us("llm_routing", folder=tmp_path)
    assert re.findall(r"Verdict of (\w+)", page) == ["llm_routing", "llm_routing_rate"]
    assert page.count("<img") == 1


def test_no_shipped_result_is_in_two_tabs_and_those_of_routing_are_in_one() -> None:
    tabs = (evaluate, llm_routing, router_robustness, lora_mixture, attention_router, rerouting)
    shown = {room: [tab.__name__ for tab in tabs if room.startswith(tab.MEASURED)] for room in available_results()}
    assert {room: names for room, names in shown.items() if len(names) > 1} == {}
    assert [room for room, names in shown.items() if room.startswith("llm_") and not names] == []


def test_a_damaged_result_is_said_and_the_others_are_shown(tmp_path: Path) -> None:
    save(tmp_path, "restoration")
    (tmp_path / "bench.json").write_text("{", encoding="utf-8")
    page = measured_by_us("", folder=tmp_path)
    assert "The result bench cannot be read" in page
    assert "Clearer." in page


def test_plots_of_a_room_are_fetched_when_it_is_opened(tmp_path: Path) -> None:
    save(tmp_path, "ablation")
    save(tmp_path, "bench")
    (tmp_path / "ablation-cost.png").write_bytes(b"a plot")
    page = measured_by_us("", folder=tmp_path)
    assert re.findall(r'<img src="(.*?)" loading="lazy"', page) == ["plots/ablation-cost.png"]
    assert page.index("<img") < page.index("Bench<")


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


def test_no_results_are_told_as_such(tmp_path: Path) -> None:
    assert "<p class='note'>Nothing yet.</p>" in measured_by_us("", folder=tmp_path)


def test_tables_of_one_result() -> None:
    rows = [Row("Time", "a", {"s": Figure(2)}), Row("Time", "b", {})]
    table = result_tables(Result("x", "", "", "", "", rows))
    assert re.findall(r"<t[hd]>(.*?)</t[hd]>", table) == ["", "s", "a", "2", "b", ""]


def test_bars_are_as_long_as_the_weather_is_likely() -> None:
    page = bars({"rain": 0.87, "haze": 0.02})
    assert "width: 87%" in page
    assert "width: 2%" in page


def test_larger_numbers_are_more_coloured_and_gaps_are_left_empty() -> None:
    page = heat_grid("<word>", ["a", "a"], [Block("<one>", numbered(2), np.array([[0.5, 0.0], [np.nan, 1.0]]))])
    assert "<th>&lt;word&gt;</th><th colspan='2'>&lt;one&gt;</th>" in page
    assert "<th>1</th><th>2</th>" in page
    # Half of the strongest colour is 25 of at most 50 %.
    assert "<tr><td>a</td><td class='first' style='--heat: 25%'>50</td><td></td></tr>" in page
    assert "<tr><td>a</td><td class='first'></td><td style='--heat: 50%'>100</td></tr>" in page


def test_numbers_have_a_scale_digits_and_a_sign() -> None:
    changes = Block("change", ["1", "2"], np.array([[0.021, -0.5]]), most=0.1, digits=1, signed=True)
    nats = Block("loss", ["3"], np.array([[2.345]]), most=10, scale=1, digits=2)
    cells = re.findall(r"--heat: (\d+)%'>(.*?)<", heat_grid("Layer", ["x"], [changes, nats]))
    assert cells == [("10", "+2.1"), ("50", "-50.0"), ("12", "2.35")]  # beyond the strongest colour is no stronger


def test_larger_shares_are_more_coloured_and_gaps_are_left_empty() -> None:
    columns = {"<one>": ["simple", "hard"]}
    page = heat_table(columns, {"maths": [Figure(80, 70, 90), None]})
    assert "<th colspan='2'>&lt;one&gt;</th>" in page
    assert "<td style='--heat: 40%' title='70 to 90 %'>80</td><td></td>" in page
    assert "simple" not in heat_table({"one": [""]}, {"maths": [Figure(1)]})
