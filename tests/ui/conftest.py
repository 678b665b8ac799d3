"""A running app with an untrained net: the ways of the app do not depend on weights."""

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import ExifTags, Image
from playwright.sync_api import Browser, expect, sync_playwright

from mofme.ui.models import Engine
from mofme.vision.models import build_net
from mofme.vision.restorer import Restorer

expect.set_options(timeout=30_000)  # a busy machine is no failure

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture(scope="session", autouse=True)
def folders(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Temporary and cached files of the app go where pytest cleans up."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_TEMP_DIR", str(tmp_path_factory.mktemp("gradio")))
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def engine() -> Engine:
    return Engine(["small"], lambda name: Restorer(build_net(name), name))


@pytest.fixture(scope="session")
def url(folders: None) -> Iterator[str]:
    """Address of a running app, in a process of its own as in real life."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"http://127.0.0.1:{port}/"
    root = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    command = [sys.executable, str(Path(__file__).with_name("untrained_app.py")), str(port)]
    app = subprocess.Popen(command, cwd=root, env=environment)
    try:
        for _ in range(300):
            assert app.poll() is None, "the app ended before it answered"
            try:
                httpx.get(address)
                break
            except httpx.TransportError:
                time.sleep(0.2)
        yield address
    finally:
        app.terminate()
        app.wait(timeout=60)


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
        browser = playwright.chromium.launch(executable_path=chromium, headless=True, args=FLAGS)
        yield browser
        browser.close()
