import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from mofme.ui.uploads import own_folder

RUN = "from mofme.ui.uploads import own_folder\nwith own_folder() as folder: print(folder, flush=True); input()"


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such locks")
def test_only_what_a_killed_app_left_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    apps = [
        subprocess.Popen([sys.executable, "-c", RUN], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    folders = []
    for app in apps:
        assert app.stdout is not None
        folders.append(Path(app.stdout.readline().strip()))
        (folders[-1] / "photo.jpg").write_bytes(b"a visitor's")
    (tmp_path / "else").mkdir()
    for name in ("running.lock", "kept.txt"):
        (tmp_path / "else" / name).touch()
    (tmp_path / "mofme-app-link").symlink_to(tmp_path / "else")
    (tmp_path / "mofme-app-starting").mkdir()

    apps[0].kill()
    apps[0].communicate()
    assert (folders[0] / "photo.jpg").exists()
    with own_folder() as folder:
        assert not folders[0].exists()
        assert (folders[1] / "photo.jpg").exists()
        assert (tmp_path / "else" / "kept.txt").exists()
        assert (tmp_path / "mofme-app-starting").exists()
        assert folder.stat().st_mode & 0o077 == 0
    assert not folder.exists()
    apps[1].communicate("\n")
    assert not folders[1].exists()
