"""What the app may use: work waits for it or is refused in words, and nothing is kept that is not used."""

import threading
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from PIL import Image

from mofme.errors import MofmeError
from mofme.ui import memory
from mofme.ui.memory import PIXEL_BYTES, WORK_BYTES, Memory, needed, of_this_machine, resident
from mofme.ui.runs import Job, Runs


@pytest.fixture
def ten(monkeypatch: pytest.MonkeyPatch) -> Memory:
    """10 bytes, of which the process has 2."""
    monkeypatch.setattr(memory, "resident", lambda: 2.0)
    monkeypatch.setattr(memory, "give_back", lambda: None)
    ten = Memory()
    ten.limit = 10
    return ten


def never() -> None:
    pytest.fail("it had to wait")


def test_work_waits_until_others_end(ten: Memory) -> None:
    others = ten.room(5, never)
    others.__enter__()
    with ten.room(3, never):  # 2, 5 and 3
        assert ten.held == 8
    with ten.room(4, lambda: others.__exit__(None, None, None)):
        assert ten.held == 4
    assert ten.held == 0


def test_what_never_fits_is_refused_in_words_and_what_fails_or_is_stopped_holds_nothing(ten: Memory) -> None:
    with pytest.raises(MofmeError, match="smaller picture"), ten.room(9, never):
        never()
    with pytest.raises(OSError), ten.room(5, never):
        raise OSError
    assert ten.held == 0 and not ten.is_full()
    with ten.room(5, never):
        with pytest.raises(MofmeError, match="longer than the limit"), ten.room(5, Job(0).wait):
            never()
        assert ten.held == 5
    ten.limit = 1
    assert ten.is_full()


def test_the_largest_picture_is_what_fits(ten: Memory) -> None:
    fits = 2 + 400e6 + WORK_BYTES + 7.5e6 * PIXEL_BYTES
    assert ten.bound(fits, megapixels=50) == 7
    assert ten.bound(fits, megapixels=5) == 5
    assert (ten.limit, ten.megapixels) == (fits, 5)
    with pytest.raises(MofmeError, match=r"0\.4 GB of memory are too few: the app needs 0\.9"):
        ten.bound(WORK_BYTES, 50)


def test_the_largest_picture_decides_and_what_is_not_known_counts_as_the_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory.MEMORY, "megapixels", 0.5)

    def pixels(*values: object) -> float:
        return round((needed(values) - WORK_BYTES) / PIXEL_BYTES)

    small, large, archive, text = (str(tmp_path / name) for name in ("a.png", "b.png", "c.zip", "d.txt"))
    Image.new("RGB", (30, 20)).save(small)
    Image.new("RGB", (1000, 900)).save(large)
    for path in archive, text:
        Path(path).write_text("neither")
    frames = [Image.new("L", (10, 10), shade) for shade in (0, 100, 200)]
    frames[0].save(tmp_path / "e.tiff", save_all=True, append_images=frames[1:])
    assert pixels() == pixels("a word", None, 3, text) == 0
    assert pixels(small, 0.5) == pixels([text, small]) == 600
    assert pixels(large) == pixels([small, large]) == pixels(archive) == 500_000  # more is refused when it is read
    assert pixels(str(tmp_path / "e.tiff")) == 300


def test_memory_that_was_freed_goes_back_to_the_system() -> None:
    def fill() -> None:
        kept.extend(torch.zeros(25_000) for _ in range(2000))  # 100 KB each: below what glibc maps by itself

    kept: list[torch.Tensor] = []
    thread = threading.Thread(target=fill)
    thread.start()
    thread.join()
    last = torch.zeros(25_000)  # keeps the end of the heap in use
    filled = resident()
    kept.clear()
    memory.give_back()
    assert filled - resident() > 100e6 and last.numel()


def test_a_run_waits_for_memory_and_tells_so(ten: Memory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mofme.ui.runs.MEMORY", ten)
    runs, told = Runs(away=60), threading.Event()
    with ten.room(5, never):
        run = runs.begin("link", lambda job: iter([1]), seconds=60, needed=4)
        words = run.follow("one", lambda share, words: told.set())
        steps: list[int] = []
        following = threading.Thread(target=lambda: steps.extend(words))
        following.start()
        assert told.wait(30) and not steps
    following.join(30)
    assert steps == [1]


@pytest.mark.parametrize(
    ("files", "limit"),
    [
        ({}, 16_384_000),
        ({"proc/self/cgroup": "0::/app.slice\n", "sys/fs/cgroup/app.slice/memory.max": "max\n"}, 16_384_000),
        # A unit is bound by the slice around it.
        (
            {
                "proc/self/cgroup": "0::/app.slice/mofme.service\n",
                "sys/fs/cgroup/app.slice/memory.max": "5000\n",
                "sys/fs/cgroup/app.slice/mofme.service/memory.max": "7000\n",
            },
            5000,
        ),
        # In a container the group's path is that of the host, and what is mounted is its own.
        (
            {
                "proc/self/cgroup": "4:memory:/docker/f00\n2:cpu:/x\n",
                "sys/fs/cgroup/memory/memory.limit_in_bytes": "9000\n",
            },
            9000,
        ),
    ],
)
def test_the_limit_is_that_of_the_machine_or_the_container(
    files: dict[str, str], limit: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory.psutil, "virtual_memory", lambda: SimpleNamespace(total=16_384_000))
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert of_this_machine(tmp_path) == limit
