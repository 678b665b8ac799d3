"""Every shipped result has one plain sentence, which follows from its figures."""

import re
from pathlib import Path

import pytest

from mofme.measure.headlines import _ROOMS, headline
from mofme.measure.pages import refresh
from mofme.measure.result import Figure, Result, Row, available_results, load_result, save_result


def result(gain: Figure) -> Result:
    rows = [Row("whole photographs", "all weathers", {"gain, dB": gain}), Row("others", "x", {"gain, dB": Figure(9)})]
    return Result("rerouting_pictures", "A paper", "a claim", "Numbers.", "python -m mofme x", rows)


@pytest.mark.parametrize("room", available_results())
def test_every_shipped_result_has_a_short_sentence_with_at_most_one_figure_of_its_own(room: str) -> None:
    told = headline(load_result(room))
    assert told is not None
    assert len(told.sentence) < 120 and told.sentence.count(". ") == 0
    assert len(re.findall(r"\d+(?:\.\d+)?", told.sentence)) <= 2
    assert told.telling in told.figures


@pytest.mark.parametrize(
    ("gain", "words"),
    [
        (Figure(0.4, 0.1, 0.7), "makes photos clearer"),
        (Figure(-0.4, -0.7, -0.1), "makes photos worse"),
        (Figure(0.4, -0.1, 0.9), "neither better nor worse"),
    ],
)
def test_the_sentence_changes_with_the_figure(gain: Figure, words: str) -> None:
    told = headline(result(gain))
    assert told is not None
    assert words in told.sentence
    assert told.figures == {"all weathers": gain}


@pytest.mark.parametrize("room", _ROOMS)
def test_no_sentence_takes_a_side_that_its_figure_does_not_take(room: str) -> None:
    telling = _ROOMS[room]
    if telling.below or telling.neither:
        assert telling.below and "as far as can be told" in telling.neither
        assert "as far as can be told" not in telling.above + telling.below
    else:
        assert not re.search(r"better|worse|less|more|closer|fewer|longer", telling.above)  # without its opposite


def test_a_result_without_the_telling_figure_has_no_sentence() -> None:
    assert headline(Result("rerouting_pictures", "", "", "", "", [])) is None
    assert headline(Result("unheard_of", "", "", "", "", [])) is None


def test_pages_quote_the_sentence_and_quoting_again_changes_nothing(tmp_path: Path) -> None:
    save_result(result(Figure(0.4, 0.1, 0.7)), tmp_path)
    page = refresh("So: <!-- plain: rerouting_pictures -->old<!-- /plain --> Yes.", tmp_path)
    assert "makes photos clearer.<!-- /plain --> Yes." in page
    assert refresh(page, tmp_path) == page
