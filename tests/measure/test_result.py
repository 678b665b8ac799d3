import dataclasses
import json
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy import stats

from mofme.errors import ResultError
from mofme.measure.pages import headline, ledger, refresh, tellings
from mofme.measure.result import (
    Check,
    Figure,
    Judgement,
    Machine,
    Result,
    Row,
    Verdict,
    available_results,
    load_result,
    save_result,
)
from mofme.measure.statistics import clipped, difference_of_means, paired_shares, students_mean

MACHINE = Machine("A CPU", 4, "Linux", "2.13.0", threads=1, precision="bfloat16")


def result(*rows: Row, **changes: object) -> Result:
    plain = Result("room", "a paper", "a claim", "a verdict", "python -m mofme x", rows, machine=MACHINE)
    return dataclasses.replace(plain, date="2026-11-22", **changes)


numbers = st.floats(allow_nan=False, allow_infinity=False)
figures = st.builds(Figure, numbers, st.none() | numbers, st.none() | numbers)
rows = st.builds(Row, st.text(), st.text(), st.dictionaries(st.text(), figures))
machines = st.builds(Machine, st.text(), st.integers(1), st.text(), st.text(), st.none() | st.integers(1), st.text())


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=10)
@given(st.lists(rows), st.lists(st.integers()), machines, st.text())
def test_what_is_saved_is_loaded(
    tmp_path: Path, rows: list[Row], seeds: list[int], machine: Machine, verdict: str
) -> None:
    saved = result(*rows, seeds=seeds, machine=machine, verdict=verdict)
    assert save_result(saved, tmp_path) == tmp_path / "room.json"
    assert dataclasses.asdict(load_result("room", tmp_path)) == {
        **dataclasses.asdict(saved),
        "rows": [*map(dataclasses.asdict, rows)],
    }
    assert available_results(tmp_path) == ["room"]


@pytest.mark.parametrize("bad", [Figure(float("nan")), Figure(1, float("-inf"), 2), Figure(1, 0, float("inf"))])
def test_what_is_no_number_is_neither_saved_nor_loaded(tmp_path: Path, bad: Figure) -> None:
    path = save_result(result(Row("t", "rain", {"gain, dB": Figure(1, 0, 2)})), tmp_path)
    before = path.read_bytes()
    wrong = result(Row("t", "rain", {"gain, dB": bad}))
    with pytest.raises(ResultError, match="rain, gain, dB"):
        save_result(wrong, tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["room.json"]
    assert path.read_bytes() == before
    path.write_text(json.dumps(dataclasses.asdict(wrong)), encoding="utf-8")
    with pytest.raises(ResultError, match="rain, gain, dB"):
        load_result("room", tmp_path)


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", "null", "{}", '{"rows": []}', '{"rows": [{"table": "t", "name": "n"}], "machine": {}}', "\xff"],
)
def test_a_file_that_is_no_result_is_refused_by_name(tmp_path: Path, content: str) -> None:
    with pytest.raises(ResultError, match="'room'"):
        load_result("room", tmp_path)
    (tmp_path / "room.json").write_text(content, encoding="latin-1")
    with pytest.raises(ResultError, match=r"room\.json"):
        load_result("room", tmp_path)


def test_a_result_with_something_else_inside_is_refused(tmp_path: Path) -> None:
    path = save_result(result(), tmp_path)
    good = json.loads(path.read_text(encoding="utf-8"))
    wrong = [{"rows": [{"table": "t", "name": "n", "figures": {"dB": one}}]} for one in ({"value": "many"}, {"it": 1})]
    for change in (*wrong, {"machine": {"cpu": "A CPU"}}, {"surprise": 1}):
        path.write_text(json.dumps({**good, **change}), encoding="utf-8")
        with pytest.raises(ResultError, match=r"room\.json is not a result"):
            load_result("room", tmp_path)


@pytest.mark.parametrize(
    ("figure", "signed", "text"),
    [
        (Figure(27.391), False, "27.39"),
        (Figure(0.0512), False, "0.051"),
        (Figure(123.46), False, "123.5"),
        (Figure(1_372_188), False, "1,372,188"),
        (Figure(4), True, "+4.00"),
        (Figure(4.631, 3.84, 5.43), True, "+4.63 (+3.84 to +5.43)"),
        # As many digits in the interval as in the figure, by the largest of the three.
        (Figure(0.63, -0.449, 1.391), True, "+0.63 (-0.45 to +1.39)"),
        (Figure(20, 18.5, 25), False, "20.00 (18.50 to 25.00)"),
    ],
)
def test_figures_as_people_write_them(figure: Figure, signed: bool, text: str) -> None:
    assert figure.text(signed) == text


@pytest.mark.parametrize(
    ("figure", "level", "side"),
    [
        (Figure(1, 0.5, 2), 0, 1),
        (Figure(-1, -2, -0.5), 0, -1),
        (Figure(1, -0.5, 2), 0, 0),
        (Figure(1, 0, 2), 0, 0),  # the end itself may be the truth
        (Figure(60, 55, 65), 50, 1),
        (Figure(1), 0, 0),  # nobody knows
    ],
)
def test_sides(figure: Figure, level: float, side: int) -> None:
    assert figure.side(level) == side
    assert figure.noise() == ("beyond the noise" if figure.side() else "within the noise")


def test_tables_keep_the_order_and_leave_gaps_empty() -> None:
    tables = result(
        Row("Cost", "dense", {"time, s": Figure(0.5)}),
        Row("Quality", "dense", {"PSNR gain, dB": Figure(1), "time against dense": Figure(1.25)}),
        Row("Cost", "MoFME", {"time, s": Figure(0.25), "memory, MB": Figure(47)}),
    ).tables()
    assert tables == {
        "Cost": (["", "time, s", "memory, MB"], [["dense", "0.500", ""], ["MoFME", "0.250", "47"]]),
        "Quality": (["", "PSNR gain, dB", "time against dense"], [["dense", "+1.00", "1.25"]]),
    }


def test_the_source_says_all_one_needs_to_measure_again() -> None:
    source = result(seeds=[0, 1], interval="95 % bootstrap").source()
    assert source == (
        "`python -m mofme x`; 2026-11-22; A CPU; 1 of 4 cores; bfloat16; torch 2.13.0; seeds 0, 1; "
        "intervals: 95 % bootstrap"
    )


ABOVE, BELOW, AROUND = Figure(2, 1, 3), Figure(-2, -3, -1), Figure(0.5, -1, 2)


def judgement(*parts: Figure, gates: tuple[Figure, ...] = ()) -> Judgement:
    checks = [Check("gain, dB", figure) for figure in parts]
    return Judgement("it helps", "exact", "small", checks, [Check("oracle", one) for one in gates], "more of it")


@pytest.mark.parametrize(
    ("parts", "gates", "verdict"),
    [
        ((ABOVE, ABOVE), (), Verdict.REPRODUCED),
        ((ABOVE, BELOW), (), Verdict.CONTRADICTED),  # a claim of two parts is as good as the worse
        ((ABOVE, AROUND), (), Verdict.UNSEEN),
        ((AROUND, BELOW), (), Verdict.CONTRADICTED),
        ((Figure(9),), (), Verdict.UNSEEN),  # nobody knows how sure it is
        ((ABOVE,), (ABOVE,), Verdict.REPRODUCED),
        ((ABOVE,), (AROUND,), Verdict.UNSEEN),
        ((BELOW,), (ABOVE, BELOW), Verdict.UNSEEN),
        ((), (), Verdict.UNSEEN),
    ],
)
def test_verdicts(parts: tuple[Figure, ...], gates: tuple[Figure, ...], verdict: Verdict) -> None:
    assert judgement(*parts, gates=gates).verdict == verdict
    assert Check("error, points", Figure(0.4, 0.35, 0.5), 0.3, below=True).side == -1


def test_the_sentences_tell_what_the_verdict_hangs_on() -> None:
    assert judgement(ABOVE, gates=(AROUND,)).sentences() == (
        "Cannot be seen here: it helps. Oracle: 0.50 (-1.00 to 2.00), where it had to be above 0. "
        "It would take more of it."
    )
    assert judgement(BELOW).sentences() == (
        "Contradicted: it helps. Gain, dB: -2.00 (-3.00 to -1.00), where the claim wants it above 0."
    )
    assert judgement(AROUND).least() == "1.50 (gain, dB)"  # half of -1 to 2


def test_a_file_cannot_claim_what_its_figures_do_not(tmp_path: Path) -> None:
    saved = Result("room", "a paper", "a claim", "words", "x --steps 400", [], [], judgements=[judgement(AROUND)])
    path = save_result(saved, tmp_path)
    assert load_result("room", tmp_path) == saved and saved.option("--steps") == "400"
    plain = json.loads(path.read_text(encoding="utf-8"))
    assert plain["judgements"][0]["verdict"] == "cannot be seen here"
    plain["judgements"][0]["verdict"] = "reproduced"
    path.write_text(json.dumps(plain), encoding="utf-8")
    assert ledger(False, tmp_path)[1] == [["a paper", "it helps", "cannot be seen here"]]
    assert [len(ledger(whole, tmp_path)[1][0]) for whole in (True, False)] == [9, 3]


def test_the_seeds_are_told_and_old_files_are_read(tmp_path: Path) -> None:
    figure = students_mean(np.array([1.0, 2.0, 3.0]))
    path = save_result(Result("room", "p", "c", "v", "x", [Row("t", "n", {"a": figure, "b": Figure(1)})]), tmp_path)
    plain = json.loads(path.read_text(encoding="utf-8"))["rows"][0]["figures"]
    assert plain["a"]["values"] == [1, 2, 3] and "values" not in plain["b"]
    assert load_result("room", tmp_path).rows[0].figures["a"] == dataclasses.replace(figure, values=())


def test_two_means_apart_are_compared_as_scipy_does() -> None:
    one, other = np.array([1.26, 1.38, 1.24]), np.array([1.2, 1.4, 1.3])
    figure = difference_of_means(students_mean(one), students_mean(other), (3, 3))
    low, high = stats.ttest_ind(one, other, equal_var=False).confidence_interval()
    assert (figure.low, figure.high) == pytest.approx((low, high))
    assert difference_of_means(figure, Figure(1.3, 1.1, 1.5), (3, 1)).low is None  # of a single net
    assert clipped(Figure(90, 70, 110), high=100) == Figure(90, 70, 100)


def result_headlines(gain: Figure) -> Result:
    rows = [Row("whole photographs", "all weathers", {"gain, dB": gain}), Row("others", "x", {"gain, dB": Figure(9)})]
    return Result("rerouting_pictures", "A paper", "a claim", "Numbers.", "python -m mofme x", rows)


@pytest.mark.parametrize(
    ("gain", "words"),
    [
        (Figure(0.4, 0.1, 0.7), "makes photos clearer"),
        (Figure(-0.4, -0.7, -0.1), "makes photos worse"),
        (Figure(0.4, -0.1, 0.9), "neither better nor worse"),
    ],
)
def test_the_sentence_changes_with_the_figure(gain: Figure, words: str) -> None:
    told = headline(result_headlines(gain))
    assert told is not None
    assert words in told.sentence
    assert told.figures == {"all weathers": gain}
    assert headline(Result("rerouting_pictures", "", "", "", "", [])) is None


@pytest.mark.parametrize("room", tellings())
def test_no_sentence_takes_a_side_that_its_figure_does_not_take(room: str) -> None:
    telling = tellings()[room]
    if telling.below or telling.neither:
        assert telling.below and "as far as can be told" in telling.neither
        assert "as far as can be told" not in telling.above + telling.below
    else:
        assert not re.search(r"better|worse|less|more|closer|fewer|longer", telling.above)  # without its opposite


def test_pages_quote_the_sentence_and_quoting_again_changes_nothing(tmp_path: Path) -> None:
    save_result(result_headlines(Figure(0.4, 0.1, 0.7)), tmp_path)
    page = refresh("So: <!-- plain: rerouting_pictures -->old<!-- /plain --> Yes.", tmp_path)
    assert "makes photos clearer.<!-- /plain --> Yes." in page
    assert refresh(page, tmp_path) == page


def test_no_change_is_no_certainty() -> None:
    same = paired_shares(np.ones(10), np.ones(10))
    # Half a question in each of four ways: (0.5 + 0.5) / 12 of variance, over 12.
    assert (same.value, same.high) == (0, pytest.approx(100 * 1.959964 / 12, abs=1e-4))
    better = paired_shares(np.array([1, 1, 1, 0.0]), np.array([0, 0, 1, 0.0]))
    centre, variance = 2 / 6, (2 + 1) / 6 - (2 / 6) ** 2
    low = 100 * (centre - 1.959964 * (variance / 6) ** 0.5)
    assert (better.value, better.low) == (50, pytest.approx(low, abs=1e-4))


def test_every_shipped_result_has_a_plain_sentence() -> None:
    assert [room for room in available_results() if headline(load_result(room)) is None] == []
