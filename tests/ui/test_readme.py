"""The README's examples of the app's API, word for word, against a running app."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

README = Path(__file__).parents[2] / "README.md"


@pytest.mark.parametrize(
    ("language", "with_", "needed"),
    [
        ("bash", "curl", shutil.which("curl")),
        ("python", "gradio_client", True),
        ("python", "mcp", importlib.util.find_spec("mcp")),
    ],
)
def test_an_example_restores_a_photo(
    language: str, with_: str, needed: object, url: str, photo: Path, tmp_path: Path
) -> None:
    if not needed:
        pytest.skip(f"{with_} is not installed")
    blocks = re.findall(rf"```{language}\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    (example,) = [block for block in blocks if re.search(rf"\$\({with_} |^from {with_} import", block, re.MULTILINE)]
    photo.rename(tmp_path / "photo.jpg")
    command = ["bash", "-euo", "pipefail", "-c"] if language == "bash" else [sys.executable, "-c"]
    code = example.replace("http://127.0.0.1:7860", url.removesuffix("/"))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([*command, code], cwd=tmp_path, env=environment, check=True, timeout=600)
    with Image.open(tmp_path / "clear.jpg") as image:
        assert (image.format, image.size) == ("JPEG", (64, 96))
