"""What `pip install` carries: the package works from any folder, without a clone beside it and without a network."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mofme.files import ASSETS, WEIGHTS

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, unpacked as pip unpacks it."""
    folder = tmp_path_factory.mktemp("package")
    build = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    with zipfile.ZipFile(next(folder.glob("*.whl"))) as wheel:
        wheel.extractall(folder / "site")
    return folder / "site"


def names(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_it_carries_all_that_is_needed_and_no_tests(installed: Path) -> None:
    assert names(installed / "mofme" / "weights") == names(WEIGHTS)
    assert names(installed / "mofme" / "assets" / "results") <= names(ASSETS / "results")
    assert (installed / "mofme" / "ui" / "app.css").is_file()
    assert [path.name for path in installed.iterdir() if not path.name.endswith(".dist-info")] == ["mofme"]


def test_it_restores_from_any_folder(installed: Path, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (48, 64, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "rainy.png")
    environment = {**os.environ, "PYTHONPATH": str(installed), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    # What the console script does; before it, where the weights are.
    command = "import mofme.files; print(mofme.files.WEIGHTS); from mofme.cli.app import main; main()"
    arguments = ["restore", "rainy.png", "clear.png"]
    done = subprocess.run(
        [sys.executable, "-P", "-c", command, *arguments], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    with Image.open(tmp_path / "clear.png") as restored:
        assert restored.size == (64, 48)
    assert Path(done.stdout.strip()) == installed / "mofme" / "weights"
