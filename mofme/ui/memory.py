"""How much memory the app may use: work that would go past it waits for others to end, or is refused in plain words."""

import ctypes
import math
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
from PIL import Image

from mofme.errors import MofmeError
from mofme.ui.service import REFUSED

SHARE = 0.8
"""Of the memory of the machine, or of its container, that the app uses by default."""
WORK_BYTES = 400e6
"""What work of any kind needs besides its pictures: half of it was measured, for the features of a tile."""
PIXEL_BYTES = 60
"""What each pixel needs: 34 were measured of a photo with alpha, and an evaluation holds two pictures more."""
_LATER = 400e6  # for models and visitors' pages, which come after the limit is set
_TEXTS = {".txt", ".csv", ".json", ".jsonl"}


class Memory:
    """The bytes that the process may use, the largest picture it takes, in megapixels, and the bytes that work under
    way may come to need.
    """

    def __init__(self) -> None:
        self.limit, self.megapixels, self.held = math.inf, 0.0, 0.0
        self._lock = threading.Lock()

    def is_full(self) -> bool:
        return resident() > self.limit

    def bound(self, limit: float, megapixels: float) -> float:
        """Set the limit, for pictures of so many megapixels; returns those that fit, by themselves. Raises MofmeError
        where not even one does.
        """
        fits = (limit - resident() - _LATER - WORK_BYTES) / PIXEL_BYTES / 1e6
        if fits < 1:
            least = (limit - (fits - 1) * PIXEL_BYTES * 1e6) / 1e9
            raise MofmeError(f"{limit / 1e9:.1f} GB of memory are too few: the app needs {least:.1f} (--max-memory).")
        self.limit, self.megapixels = limit, megapixels if fits >= megapixels else math.floor(fits)
        return self.megapixels

    @contextmanager
    def room(self, needed: float, check: Callable[[], Any]) -> Iterator[None]:
        """Hold so many bytes, once others have given theirs back, for what happens inside. `check` is called while it
        waits, to raise where it should not. Raises MofmeError where nobody else holds any and it is too much still.
        """
        while not self._take(needed):
            check()
            time.sleep(0.1)
        try:
            yield
        finally:
            with self._lock:
                self.held -= needed
            give_back()

    def _take(self, needed: float) -> bool:
        with self._lock:
            if resident() + self.held + needed > self.limit:
                if self.held:
                    return False
                give_back()
                if resident() + needed > self.limit:
                    REFUSED.labels("memory").inc()
                    raise MofmeError(
                        "The app lacks the memory for this: try a smaller picture, or again in a few minutes."
                    )
            self.held += needed
            return True


def needed(values: Iterable[Any]) -> float:
    """Bytes for work with these inputs, of which some may be files: the largest picture decides. Where none is told by
    a file's first bytes, as of a ZIP, it counts as the largest that the app takes.
    """
    paths = [path for value in values for path in (value if isinstance(value, list) else [value])]
    files = [path for path in paths if isinstance(path, str) and Path(path).is_file()]
    return WORK_BYTES + PIXEL_BYTES * 1e6 * max(
        (min(MEMORY.megapixels, _megapixels(path)) for path in files), default=0
    )


def _megapixels(path: str) -> float:
    if Path(path).suffix.lower() in _TEXTS:
        return 0.0
    try:
        with Image.open(path) as image:
            return image.width * image.height * getattr(image, "n_frames", 1) / 1e6
    except Exception:  # it is no picture, or is refused as one later
        return math.inf


def resident() -> float:
    """Bytes of memory that this process has."""
    return float(psutil.Process().memory_info().rss)


def give_back() -> None:
    """Let the system have what the allocator keeps for later: glibc, for every thread that ever asked for some."""
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):
            ctypes.CDLL("libc.so.6").malloc_trim(0)


def of_this_machine(root: Path = Path("/")) -> float:
    """Bytes of memory of the machine, or of the container or unit that this runs in, where that is less."""
    limits = [float(psutil.virtual_memory().total)]
    groups = []
    with suppress(OSError):
        groups = (root / "proc/self/cgroup").read_text().splitlines()
    for group in groups:
        _, kinds, path = group.split(":", 2)
        if kinds not in ("", "memory"):  # version 2, version 1
            continue
        place, file = ("", "memory.max") if not kinds else ("memory", "memory.limit_in_bytes")
        inner = root / "sys/fs/cgroup" / place / path.lstrip("/")
        for folder in (inner, *inner.parents):  # a group is bound by those around it
            with suppress(OSError, ValueError):  # "max" is none
                limits.append(int((folder / file).read_text()))
    return min(limits)


MEMORY = Memory()
"""That of this process; without a limit until the app is served."""
