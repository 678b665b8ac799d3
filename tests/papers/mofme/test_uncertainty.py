import numpy as np
import pytest
import torch

from mofme.papers.mofme.result import ErrorMaps, ause, calibration, error_maps, rank_correlation, sparsification
from mofme.vision.nets.unet import RestorationNet
from mofme.vision.restorer import Restorer

ERRORS = np.array([4.0, 1.0, 3.0, 2.0])


def test_the_order_of_the_errors_is_all_that_counts() -> None:
    guess, constant = np.array([0.9, 0.1, 0.8, 0.7]), np.full(4, 0.2)
    assert rank_correlation(guess, ERRORS) == pytest.approx(1) and ause(guess, ERRORS) == pytest.approx(0)
    assert rank_correlation(-ERRORS, ERRORS) == pytest.approx(-1) and ause(-ERRORS, ERRORS) > 1  # worse than chance
    # Of equal guesses none comes first: what is left always has the mean error.
    np.testing.assert_allclose(sparsification(constant, ERRORS)[0], 1)
    assert rank_correlation(constant, ERRORS) == 0 and ause(constant, ERRORS) == pytest.approx(1)
    assert ause(guess, np.zeros(4)) == 1  # no error leaves nothing to rank


def test_sparsification_by_hand() -> None:
    # The mean is 2.5. A quarter is one of four: taking away the guess's largest (error 1) leaves (4 + 3 + 2) / 3 = 3;
    # taking away the largest error leaves (1 + 3 + 2) / 3 = 2.
    guess = np.array([1.0, 9.0, 2.0, 3.0])
    curve, best = sparsification(guess, ERRORS)
    assert curve[0] == best[0] == pytest.approx(1)
    assert curve[5] == pytest.approx(3 / 2.5)
    assert best[5] == pytest.approx(2 / 2.5)
    for seed in range(20):
        guess, error = np.random.default_rng(seed).random((2, 2 + 3 * seed))
        curve, best = sparsification(guess, error)
        assert (curve >= best - 1e-9).all()  # nothing beats the error itself


def test_calibration_sorts_into_equal_bins() -> None:
    # Two pictures, four parts: the lower half has the errors 3 and 4, root mean square sqrt(12.5); the upper 0 and 1.
    maps = [
        ErrorMaps(np.array([0.1, 0.9]), np.zeros(2), np.array([3.0, 0.0])),
        ErrorMaps(np.array([0.8, 0.3]), np.zeros(2), np.array([1.0, 4.0])),
    ]
    (low, low_error), (high, high_error) = calibration([maps[:1], maps[1:]], bins=2)
    assert (low, high) == (pytest.approx(0.2), pytest.approx(0.85))
    assert (low_error, high_error) == (pytest.approx(12.5**0.5), pytest.approx(0.5**0.5))


def test_maps_have_a_cell_for_every_8_pixels() -> None:
    # An untrained net returns its input, so the change is 0, and the error that of the input: 0.25 in one cell of six.
    net = RestorationNet(widths=(8, 8, 8), blocks=(1, 1, 1), num_experts=4)
    clean = torch.full((3, 16, 24), 0.5)
    weathered = clean.clone()
    weathered[:, :8, 8:16] += 0.25
    maps = error_maps(Restorer(net, "untrained"), weathered, clean)
    np.testing.assert_allclose(maps.error, [0, 0.25, 0, 0, 0, 0], atol=2e-3)
    np.testing.assert_allclose(maps.change, 0, atol=2e-3)
    assert maps.uncertainty.shape == (6,)
    assert ((maps.uncertainty >= 0) & (maps.uncertainty <= 1)).all()
