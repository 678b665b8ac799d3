"""The cure is tried in a fresh interpreter, against stand-in torchvision packages on its path."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def run(code: str, *extra_path: Path) -> str:
    env = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, (*extra_path, ROOT)))}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], env=env, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def stand_in(folder: Path, source: str) -> Path:
    package = folder / "torchvision"
    package.mkdir()
    (package / "__init__.py").write_text(source, encoding="utf-8")
    (package / "half.py").write_text("", encoding="utf-8")
    return folder


def test_missing_operators_are_declared_and_the_import_is_tried_again(tmp_path: Path) -> None:
    stand_in(
        tmp_path,
        "import torch, torchvision.half\n"
        "first = not hasattr(torchvision.half, 'seen')\n"
        "torchvision.half.seen = True\n"
        "if not hasattr(torch.ops.torchvision, 'nms'):\n"
        "    raise RuntimeError('operator torchvision::nms does not exist')\n",
    )
    code = "import mofme._torchvision, torchvision, torch\nprint(torchvision.first, torch.ops.torchvision.qnms)"
    # `first` is True: the half-imported submodule was dropped before the second try.
    assert run(code, tmp_path) == "True torchvision.qnms"


def test_a_healthy_torchvision_is_left_as_it_is(tmp_path: Path) -> None:
    stand_in(tmp_path, "import sys\nsys.stdout.write('once ')\n")
    code = "import sys, mofme._torchvision, torchvision; print('torch' in sys.modules, torchvision.__name__)"
    assert run(code, tmp_path) == "once False torchvision"


def test_other_errors_are_not_swallowed(tmp_path: Path) -> None:
    stand_in(tmp_path, "raise RuntimeError('something else')\n")
    code = "import mofme._torchvision\ntry:\n    import torchvision\nexcept RuntimeError as e:\n    print(e)"
    assert run(code, tmp_path) == "something else"


def test_it_imports_nothing_heavy_and_needs_no_torchvision() -> None:
    code = (
        "import sys, mofme._torchvision; print('torch' in sys.modules, 'torchvision' in sys.modules)\n"
        "sys.path = [p for p in sys.path if 'site-packages' not in p]\n"
        "try:\n    import torchvision\nexcept ModuleNotFoundError:\n    print('absent')"
    )
    assert run(code).split("\n") == ["False False", "absent"]
