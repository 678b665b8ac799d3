import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mofme.files import (
    _machine,
    atomic_file,
    cache_root,
    find_files,
    in_words,
    passed_by,
    printable,
    without_name,
)
from tests.full_disk import room_for


def test_bytes_and_text_appear_whole_in_folders_that_are_made(tmp_path: Path) -> None:
    data, text = tmp_path / "a" / "b" / f"{'n' * 250}.bin", tmp_path / "c" / "text.csv"
    with atomic_file(data) as file:
        (part,) = data.parent.iterdir()
        assert part.match(f".mofme-{os.getpid()}-*.part")  # it tells whose it is
        file.write(b"\x00\xff")
        file.close()  # as writers of archives may
    with atomic_file(text, "w", errors="backslashreplace") as lines:
        lines.write("雨,1\r\n2\na\udcff")
    assert data.read_bytes() == b"\x00\xff"
    assert text.read_bytes() == "雨,1\r\n2\na\\udcff".encode()
    with pytest.raises(UnicodeEncodeError), atomic_file(text, "w") as lines:
        lines.write("a\udcff")
    assert sorted(path for path in tmp_path.rglob("*") if path.is_file()) == [data, text]


@pytest.mark.parametrize("mode", ["w", "wb"])
@pytest.mark.parametrize("size", [10, 1_500, 100_000])  # within Python's buffer, so that closing fails; and above it
def test_an_error_or_a_full_disk_leaves_the_earlier_file_and_nothing_else(tmp_path: Path, mode: str, size: int) -> None:
    path = tmp_path / "kept"
    path.write_bytes(b"earlier")
    with room_for(1_000), pytest.raises((OSError, KeyboardInterrupt)) as failed, atomic_file(path, mode) as file:
        file.write(size * ("x" if mode == "w" else b"x"))
        if size == 10:
            raise KeyboardInterrupt
    assert size == 10 or "File too large" in str(failed.value)
    assert path.read_bytes() == b"earlier"
    assert list(tmp_path.iterdir()) == [path]


def test_files_are_found_by_suffix_without_hidden_ones(tmp_path: Path) -> None:
    for name in ("b/B.TXT", "a.txt", "a.png", ".hidden/c.txt", ".mofme-1-2.part"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "folder.txt").mkdir()
    assert find_files(tmp_path, {".txt", ".part"}) == [tmp_path / "a.txt", tmp_path / "b" / "B.TXT"]


def test_a_folder_whose_names_alone_may_be_read_is_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("in/a.jpg", "in/listed/b.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    stat, access = os.stat, os.access

    def refuse(path: str, *more: object, **how: object) -> object:
        if Path(path).parent.name == "listed":  # as for anybody but an administrator
            raise PermissionError(13, "Permission denied", path)
        return stat(path, *more, **how)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "stat", refuse)
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path).name != "listed" and access(path, mode))
    assert find_files(tmp_path / "in", {".jpg"}) == [tmp_path / "in/a.jpg"]
    assert passed_by(tmp_path / "in") == "folders that cannot be opened (listed)"


def test_what_a_walk_passes_by_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("in", "in/closed", "in/.hidden", "elsewhere"):
        (tmp_path / name).mkdir()
    (tmp_path / "in" / "fine.jpg").touch()
    (tmp_path / "in" / "to-file.jpg").symlink_to("fine.jpg")
    assert passed_by(tmp_path / "in") == ""
    (tmp_path / "in" / "broken.jpg").symlink_to("nowhere.jpg")
    os.mkfifo(tmp_path / "in" / "pipe.png")
    (tmp_path / "in" / "more").symlink_to(tmp_path / "elsewhere")
    scandir = os.scandir

    def refuse(path: str) -> object:
        if Path(path).name == "closed":  # by its rights, which do not hold for an administrator
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    assert passed_by(tmp_path / "in").split("; ") == [
        "folders that cannot be opened (closed)",
        "links to folders (more)",
        "links and pipes without a file (broken.jpg, pipe.png)",
    ]


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(errno.ESTALE, "Stale file handle", "x/a"), "x/a: the network drive that it lies on was lost"),
        (OSError(errno.EACCES, "Permission denied"), "b: no permission"),
        (OSError(errno.EXDEV, "Cross-device link", "a"), "a: Cross-device link."),
        (OSError("a: is damaged."), "a: is damaged."),
    ],
)
def test_errors_of_the_system_are_put_in_words(error: OSError, words: str) -> None:
    assert in_words(error, Path("b")).startswith(words)


def test_there_is_one_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("MOFME_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert cache_root() == Path.home() / ".cache" / "mofme"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_root() == tmp_path / "mofme"
    monkeypatch.setenv("MOFME_CACHE", str(tmp_path / "own"))
    assert cache_root() == tmp_path / "own"


def test_what_killed_processes_left_is_cleared_and_no_more(tmp_path: Path) -> None:
    dead = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True)
    number = int(dead.stdout)
    left = [f".mofme-{number}-{'a' * 32}.part", f".mofme-{number}-{_machine()}-{'b' * 32}.part"]
    old = f".mofme-1-00000000-{'c' * 32}.part"  # of another machine
    kept = [f".mofme-{os.getpid()}-{_machine()}-{'d' * 32}.part", f".mofme-{number}-00000000-{'e' * 32}.part"]
    kept += [".mofme-notes.part", "photo.part"]
    for name in (*left, old, *kept):
        (tmp_path / name).touch()
    os.utime(tmp_path / old, (0, 0))
    with atomic_file(tmp_path / "card.json"):  # whoever writes into a folder clears it
        pass
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*kept, "card.json"])


def test_codes_in_a_name_are_shown_not_sent() -> None:
    assert printable("a\x1b[31m\x07\n\u202eb [red] ü 漢.png") == "a\\x1b[31m\\x07\\n\\u202eb [red] ü 漢.png"
    kept = "Shot 10.00\u202fAM\xa0\u3000.png \U0001f469\u200d\U0001f467 \u0645\u06cc\u200c\u0634\u0648\u062f \u05d0.png"
    assert printable(kept) == kept
    assert printable("a\u2066b\u200b\x85\u2028\udcff") == "a\\u2066b\\u200b\\x85\\u2028\\udcff"


@pytest.mark.parametrize(
    ("error", "name", "left"),
    [
        ("/tmp/in/x.jpg: damaged.", "sub/x.jpg", "damaged."),
        ("x.jpg: damaged.", "x.jpg", "damaged."),
        ("in/12: 30.jpg: damaged: twice.", "12: 30.jpg", "damaged: twice."),
        ("pairs/input/x.png: damaged.", "x", "pairs/input/x.png: damaged."),  # a pair has two files
        ("in/a\nb.jpg: damaged.", "a\nb.jpg", "damaged."),
        ("cannot be kept: out/x.jpg: no room.", "x.jpg", "cannot be kept: out/x.jpg: no room."),
        ("/tmp/in/xx.jpg: damaged.", "x.jpg", "/tmp/in/xx.jpg: damaged."),
        ("three workers ended at it.", "x.jpg", "three workers ended at it."),
    ],
)
def test_a_name_is_said_once(error: str, name: str, left: str) -> None:
    assert without_name(error, name) == left
