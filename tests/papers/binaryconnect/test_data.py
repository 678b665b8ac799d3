"""Digits from a file: how they are split, and what is said of a file that holds none; drawings become such digits."""

from pathlib import Path

import numpy as np
import pytest
import torch

from mofme.errors import PictureError, TableError
from mofme.papers.binaryconnect.data import as_digit, ink_of, load_mnist


def test_the_last_digits_are_held_back_and_pixels_go_from_0_to_1(digits_file: Path) -> None:
    mnist = load_mnist(digits_file, held_back=100)
    assert [len(part) for part in (mnist.training, mnist.validation, mnist.test)] == [200, 100, 100]
    with np.load(digits_file) as file:
        expected = file["train_x"][200].reshape(-1) / 255
        assert mnist.validation.labels_N[0] == file["train_y"][200]
    np.testing.assert_allclose(mnist.validation.inputs_ND()[0].numpy(), expected, rtol=1e-6)


def save(path: Path, **changed: np.ndarray) -> Path:
    parts = {"train_x": np.zeros((4, 28, 28), np.uint8), "train_y": np.zeros(4, np.uint8)}
    parts |= {"test_x": np.zeros((2, 28, 28), np.uint8), "test_y": np.zeros(2, np.uint8)}
    np.savez(path, **(parts | changed))
    return path


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"train_x": np.zeros((4, 28, 28))}, "float64"),
        ({"test_x": np.zeros((3, 28, 28), np.uint8)}, r"\(3, 28, 28\), not uint8 \(2, 28, 28\)"),
        ({"test_y": np.full(2, 10, np.uint8)}, "not from 0 to 9"),
        ({"train_y": np.zeros((4, 1), np.uint8)}, r"labels are uint8 \(4, 1\)"),
        ({"test_y": np.full(2, np.nan)}, r"labels are float64 \(2,\)"),
        ({"test_y": np.uint8(3)}, r"labels are uint8 \(\)"),
        ({"test_x": np.zeros((0, 28, 28), np.uint8), "test_y": np.zeros(0, np.uint8)}, "none to test with"),
        ({}, "more than 4 are needed"),
    ],
)
def test_what_is_wrong_with_a_file_is_said(tmp_path: Path, changed: dict[str, np.ndarray], words: str) -> None:
    with pytest.raises(TableError, match=words):
        load_mnist(save(tmp_path / "digits.npz", **changed), held_back=4)


def test_files_that_are_missing_or_something_else_are_refused(tmp_path: Path) -> None:
    with pytest.raises(TableError, match="missing"):
        load_mnist(tmp_path / "digits.npz")
    (tmp_path / "digits.npz").write_text("no archive")
    with pytest.raises(TableError, match="no digits"):
        load_mnist(tmp_path / "digits.npz")
    np.savez(tmp_path / "digits.npz", train_x=np.zeros(1))
    with pytest.raises(TableError, match="train_y"):
        load_mnist(tmp_path / "digits.npz")


def test_single_arrays_and_damaged_archives_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "digits.npz"
    with path.open("wb") as file:
        np.save(file, np.zeros(3))
    with pytest.raises(TableError, match="no digits"):
        load_mnist(path)
    path.write_bytes(b"")
    with pytest.raises(TableError, match="no digits"):
        load_mnist(path)
    np.savez_compressed(path, train_x=np.random.default_rng(0).integers(0, 255, (9, 28, 28), np.uint8))
    content = bytearray(path.read_bytes())
    content[200:230] = b"\xff" * 30
    path.write_bytes(content)
    with pytest.raises(TableError, match="no digits"):
        load_mnist(path)


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
