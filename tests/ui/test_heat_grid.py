"""Grids of numbers and learning curves."""

import re
from xml.etree import ElementTree

import numpy as np
import pytest

from mofme.ui.heat_grid import Block, heat_grid, numbered
from mofme.ui.learning_curves import learning_curves


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
