"""Made-up digits that a net can tell apart in seconds."""

from pathlib import Path

import numpy as np
import pytest

from mofme.papers.binaryconnect.net import Mnist, load_mnist


@pytest.fixture(scope="session")
def digits_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Class c is a bright pair of rows in noise: 300 digits to train on, 100 to test with."""
    rng = np.random.default_rng(0)
    parts = {}
    for part, count in (("train", 300), ("test", 100)):
        labels = np.arange(count) % 10
        pixels = rng.integers(0, 50, (count, 28, 28))
        for row in (0, 1):
            pixels[np.arange(count), 2 * labels + row] += 200
        parts |= {f"{part}_x": pixels.astype(np.uint8), f"{part}_y": labels.astype(np.uint8)}
    path = tmp_path_factory.mktemp("digits") / "digits.npz"
    np.savez(path, **parts)
    return path


@pytest.fixture(scope="session")
def mnist(digits_file: Path) -> Mnist:
    return load_mnist(digits_file, held_back=100)
