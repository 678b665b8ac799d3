"""A drawing becomes what MNIST's digits look like."""

import pytest
import torch

from mofme.errors import PictureError
from mofme.vision.digits.drawing import as_digit, ink_of


def test_a_bar_is_cut_out_scaled_and_centred() -> None:
    ink = torch.zeros(280, 280)
    ink[10:210, 30:70] = 0.8  # 200 x 40 becomes 20 x 4, rows 4 to 23, columns 12 to 15
    digit = as_digit(ink).view(28, 28)
    expected = torch.zeros(28, 28)
    expected[4:24, 12:16] = 1
    torch.testing.assert_close(digit, expected)


def test_the_centre_of_mass_is_in_the_middle() -> None:
    ink = torch.zeros(100, 100)
    ink[0:20, 0:40] = 1  # an L upside down: a bar of 20 x 40 above, one of 60 x 20 below it on the left
    ink[20:80, 0:20] = 1
    rows, columns = as_digit(ink).view(28, 28).sum(1), as_digit(ink).view(28, 28).sum(0)
    middles = [(mass * torch.arange(28)).sum() / mass.sum() for mass in (rows, columns)]
    assert all(abs(middle - 13.5) <= 0.5 for middle in middles)


def test_ink_is_what_differs_from_the_border() -> None:
    dark = torch.ones(3, 8, 8)
    dark[:, 3:5, 3:5] = 0
    assert torch.equal(ink_of(dark), ink_of(1 - dark))
    assert ink_of(dark).sum() == 4


@pytest.mark.parametrize("ink", [torch.zeros(10, 10), torch.full((10, 10), 0.1), torch.zeros(0, 0)])
def test_nothing_drawn_is_told(ink: torch.Tensor) -> None:
    with pytest.raises(PictureError, match="Nothing is drawn"):
        as_digit(ink)


def test_a_single_dot_is_a_digit_too() -> None:
    ink = torch.zeros(50, 50)
    ink[7, 7] = 1
    assert as_digit(ink).sum() > 0
