import os

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # tests never call home
os.environ.setdefault("OMP_NUM_THREADS", "1")  # two thread pools on two cores spin against each other

import pytest
import torch
from hypothesis import settings

# The same examples on every machine: more of them would cost in every run, and find something in the first alone.
settings.register_profile("mofme", deadline=None, derandomize=True, max_examples=40)
settings.load_profile("mofme")
torch.set_num_threads(1)

pytest_plugins = ["tests.browser"]
BROWSER = "browser"


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Two processes for the whole suite; none for what is named, which starts sooner."""
    return 2 if config.args_source is pytest.Config.ArgsSource.TESTPATHS else 0


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist reads the marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with tests in a browser go to one process, which shares app and browser; every other file is on its own."""
    shared = {item.path for item in items if {"browser", "url"} & set(getattr(item, "fixturenames", ()))}
    for item in items:
        item.add_marker(pytest.mark.xdist_group(BROWSER if item.path in shared else str(item.path)))
    items.sort(key=lambda item: item.path not in shared)  # the longest first
