"""A running app with an untrained net, as its ways do not depend on weights, and a browser: for tests of every room."""

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import ExifTags, Image
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from mofme.ui.load_test import free_port, running

if TYPE_CHECKING:
    from mofme.ui.models import Engine

PATIENCE = 90_000  # milliseconds: a busy machine is no failure
expect.set_options(timeout=PATIENCE)

FLAGS = "no-sandbox disable-gpu disable-dev-shm-usage disable-quic no-first-run disable-background-networking"
FLAGS += " disable-component-update disable-sync use-fake-device-for-media-stream use-fake-ui-for-media-stream"


@pytest.fixture(scope="session", autouse=True)
def temporary(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Temporary files of the app go where pytest cleans up."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_TEMP_DIR", str(tmp_path_factory.mktemp("gradio")))
        yield


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """So do what it caches."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MOFME_CACHE", raising=False)
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def engine() -> "Engine":
    # Imported here, as every test reads this file: Gradio takes seconds.
    from mofme.ui.models import Engine
    from mofme.vision.models import build_net
    from mofme.vision.restorer import Restorer

    return Engine(["small"], lambda name: Restorer(build_net(name), name))


@pytest.fixture(scope="session")
def url(folders: None) -> Iterator[str]:
    """Address of a running app, in a process of its own as in real life; it serves MCP where that is installed."""
    port = free_port()
    address = f"http://127.0.0.1:{port}/"
    command = [sys.executable, str(Path(__file__).with_name("ui") / "untrained_app.py"), str(port)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_MCP_SERVER", "true")
        with running(command, address):
            yield address


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    """A JPEG of 96 x 64 pixels as a camera held upright would store it: lying, with its orientation in EXIF."""
    pixels = np.linspace(0, 255, 64 * 96 * 3).reshape(64, 96, 3).astype(np.uint8)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation], exif[ExifTags.Base.Make] = 6, "A camera"
    path = tmp_path / "my photo.jpg"
    Image.fromarray(pixels).save(path, quality=95, exif=exif)
    return path


@pytest.fixture
def broken(photo: Path) -> Path:
    """The first half of a JPEG."""
    path = photo.with_name("broken.jpg")
    path.write_bytes(photo.read_bytes()[: photo.stat().st_size // 2])
    return path


@pytest.fixture(scope="session")
def chromium() -> str:
    """Path of a Chromium. Without one, browser tests are skipped, except in CI, where they must run."""
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        message = "no Chromium is installed: apt-get install chromium"
        pytest.fail(message) if os.environ.get("CI") else pytest.skip(message)
    return path


@pytest.fixture(scope="session")
def browser(chromium: str) -> Iterator[Browser]:
    with sync_playwright() as playwright:
        flags = [f"--{flag}" for flag in FLAGS.split()]
        browser = playwright.chromium.launch(executable_path=chromium, headless=True, args=flags)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def visitor(browser: Browser) -> Iterator[BrowserContext]:
    """Whose pages share what was fetched before, and a camera."""
    with browser.new_context(permissions=["camera"]) as context:
        context.set_default_timeout(PATIENCE)
        yield context


@pytest.fixture
def visit(visitor: BrowserContext) -> Iterator[Callable[..., Page]]:
    """Opens an address in a page of so many pixels, by default those of a phone; closes it after the test."""
    pages = []

    def visit(address: str, width: int = 390, height: int = 844) -> Page:
        pages.append(page := visitor.new_page())
        page.set_viewport_size({"width": width, "height": height})
        page.goto(address)
        return page

    yield visit
    for page in pages:
        page.close()
