"""What users build on: a change here is a change for them, and belongs in the changelog."""

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import mofme


def test_top_level_names_are_sorted_documented_and_there() -> None:
    assert mofme.__all__ == sorted(mofme._HOME_OF)
    for name in mofme.__all__:
        found = getattr(mofme, name)
        # A dataclass without a docstring is given its own signature for one.
        assert found.__doc__ and not found.__doc__.startswith(f"{name}(")
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        mofme.nonsense  # noqa: B018


def test_importing_the_package_loads_nothing_slow() -> None:
    check = "import sys, mofme; assert not {'torch', 'numpy', 'gradio'} & sys.modules.keys(); mofme.ModelError"
    subprocess.run([sys.executable, "-c", check], check=True, cwd=Path(__file__).parents[1])


def test_the_tree_of_errors_and_the_weathers_in_their_order() -> None:
    bases = {name: getattr(mofme, name).__base__ for name in mofme.__all__ if name.endswith(("Error", "Cancelled"))}
    assert bases.pop("MofmeError") is Exception and bases.pop("PictureTooLargeError") is mofme.PictureError
    assert set(bases.values()) == {mofme.MofmeError} and len(bases) == 7
    assert importlib.import_module("mofme.vision.weather").WEATHERS == ("rain", "snow", "raindrop", "haze")
