"""Folders of paired pictures: `input/` in bad weather, `target/` clean."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mofme.errors import MofmeError
from mofme.vision.picture.file import find_pictures

# What public sets add to a scene's number: norain-001.png belongs to rain-001.png, 7_clean.png to 7_rain.png.
_TAGS = frozenset({"rain", "norain", "rainy", "snow", "snowy", "haze", "hazy", "clean", "clear", "gt"})


@dataclass(frozen=True)
class Pair:
    """An input and its target; None where the target is missing."""

    name: str  # path below input/, with forward slashes
    input: Path
    target: Path | None


def find_sets(folder: Path) -> dict[str, list[Pair]]:
    """The pairs of a folder that has `input/` and `target/`, or of each such subfolder, by the folder's name.

    Raises MofmeError if there are none.
    """
    folders = [folder] if _is_set(folder) else [path for path in sorted(folder.glob("*/")) if _is_set(path)]
    sets = {path.resolve().name: list(_find_pairs(path)) for path in folders}
    sets = {name: pairs for name, pairs in sets.items() if pairs}
    if not sets:
        raise MofmeError(
            f"{folder}: no pairs found; it, or each of its subfolders, needs pictures in input/ and target/"
        )
    return sets


def _is_set(folder: Path) -> bool:
    return (folder / "input").is_dir() and (folder / "target").is_dir()


def _find_pairs(folder: Path) -> Iterator[Pair]:
    """Every input with the target of the same name, whatever its suffix; else of the same name without tags;
    else of the longest part of that name: 0001_0.8_0.2.jpg belongs to 0001.png."""
    exact: dict[Path, Path] = {}
    untagged: dict[tuple[Path, tuple[str, ...]], Path] = {}
    for path in find_pictures(folder / "target"):
        relative = path.relative_to(folder / "target")
        exact[relative.with_suffix("")] = path
        untagged[relative.parent, _words(relative.stem)] = path
    for path in find_pictures(folder / "input"):
        relative = path.relative_to(folder / "input")
        words = _words(relative.stem)
        candidates = (untagged.get((relative.parent, words[:length])) for length in range(len(words), 0, -1))
        target = exact.get(relative.with_suffix("")) or next(filter(None, candidates), None)
        yield Pair(relative.as_posix(), path, target)


def _words(stem: str) -> tuple[str, ...]:
    words = re.split(r"[-_ ]+", stem.lower())
    return tuple(word for word in words if word not in _TAGS) or tuple(words)
