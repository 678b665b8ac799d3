"""The folder of one running app for what visitors upload and get; what a killed app left is removed by the next."""

import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

if sys.platform != "win32":
    import fcntl

_PREFIX = "mofme-app-"
_LOCK = "running.lock"


@contextmanager
def own_folder() -> Iterator[Path]:
    """A new folder that nobody else may read, gone at the end. Those of this user's apps that were killed go first.

    On Windows, which knows no such locks, they stay.
    """
    for other in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        _remove_if_left(other)
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX))
    # Locked before it gets its name: whoever finds a lock free finds a dead app's.
    with (folder / "starting").open("w") as lock:
        try:
            if sys.platform != "win32":
                fcntl.flock(lock, fcntl.LOCK_EX)
                (folder / "starting").rename(folder / _LOCK)
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _remove_if_left(folder: Path) -> None:
    if sys.platform == "win32":
        return
    try:
        about = folder.lstat()
        if not stat.S_ISDIR(about.st_mode) or about.st_uid != os.getuid():
            return
        with open(os.open(folder / _LOCK, os.O_RDWR | os.O_NOFOLLOW), "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
    except OSError:  # it runs, begins or ends at this moment
        return
