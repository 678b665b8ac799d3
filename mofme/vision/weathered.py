"""Bad weather for clean photographs: synthesized, by seed and name alone, or taken from a folder."""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from mofme.errors import MofmeError, PictureError
from mofme.vision.datasets import PairFiles, held_back
from mofme.vision.picture.decode import Picture
from mofme.vision.picture.file import find_pictures, read_picture, write_picture
from mofme.vision.weather import WEATHERS, synthesize

CLEAN = "clean photographs"
# (clean picture (3, H, W), its name below its folder, without suffix) -> the picture in bad weather.
Degrade = Callable[[Tensor, str], Tensor]
HELD_BACK_SETS = {f"synthesized {name}": frozenset({name}) for name in WEATHERS} | {CLEAN: frozenset[str]()}


def with_weather(clean: Tensor, name: str, weathers: frozenset[str] | str, seed: int) -> Tensor:
    """The photograph (3, H, W) in weather that `seed` and `name` decide, whatever other photographs there are."""
    named = f"{seed}/{name}".encode("utf-8", "surrogateescape")  # a name on disk may be any bytes
    digest = hashlib.blake2b(named, digest_size=7).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest))
    return synthesize(clean[None], [weathers], generator).image[0]


def synthesized(weathers: Iterable[str], seed: int) -> dict[str, Degrade]:
    """By name the weathers that `synthesize --weather all --seed SEED` puts on pictures."""

    def degrade(weather: str) -> Degrade:
        return lambda clean, name: with_weather(clean, f"{name}_{weather}", weather, seed)

    return {weather: degrade(weather) for weather in weathers}


def taken_from(folder: Path) -> dict[str, Degrade]:
    """The pictures of `folder`, by the names of the clean ones, whatever their suffix; the weather is its name.

    They raise PictureError for a picture that is missing, or of another size than the clean one.
    """
    found = find_pictures(folder)
    paths = dict(zip(picture_names(found, folder), found, strict=True))

    def degrade(clean: Tensor, name: str) -> Tensor:
        if name not in paths:
            raise PictureError(f"{folder}: no picture is called {name}")
        degraded = read_picture(paths[name]).rgb
        if degraded.shape != clean.shape:
            raise PictureError(
                f"{paths[name]}: {degraded.shape[2]}x{degraded.shape[1]} pixels, "
                f"but the clean picture has {clean.shape[2]}x{clean.shape[1]}"
            )
        return degraded

    return {folder.resolve().name: degrade}


def write_pair(picture: Picture, name: str, weathers: frozenset[str], seed: int, folder: Path) -> PairFiles:
    """Write `folder/input/NAME.png` with weather and `folder/target/NAME.png` without; no weather leaves both equal."""
    # Weather covers the whole frame and has colour, so transparency and grey go.
    like = replace(picture, alpha=None, grey=False)
    weathered = with_weather(picture.rgb, name, weathers, seed)
    pair = PairFiles(f"{name}.png", folder / "input" / f"{name}.png", folder / "target" / f"{name}.png")
    write_picture(folder / "target" / pair.name, picture.rgb, like, "png")
    write_picture(pair.input, weathered, like, "png")
    return pair


def held_back_sets(
    photographs: Sequence[Path], seed: int, folder: Path, limit: int | None
) -> dict[str, list[PairFiles]]:
    """The photographs that training holds back, written to `folder` in every weather and as they are.

    At most `limit` of each of the folders `photographs`. Raises MofmeError if none of them is held back.
    """
    sets: dict[str, list[PairFiles]] = {name: [] for name in HELD_BACK_SETS}
    for number, source in enumerate(photographs):
        paths = [path for path in find_pictures(source) if held_back(path)][:limit]
        for path, name in zip(paths, picture_names(paths, source), strict=True):
            for title, weathers in HELD_BACK_SETS.items():
                try:
                    pair = write_pair(read_picture(path), name, weathers, seed, folder / str(number) / title)
                except PictureError:
                    pair = PairFiles(name, path, path)  # measuring reports what is wrong with it
                sets[title].append(replace(pair, name=f"{source.resolve().name}/{pair.name}"))
    if not any(sets.values()):
        raise MofmeError(
            f"{', '.join(map(str, photographs))}: training holds none of these photographs back. "
            "Make pairs of your own with `python -m mofme synthesize`."
        )
    return sets


def picture_names(paths: Sequence[Path], folder: Path) -> list[str]:
    """Relative names without suffix; where two pictures differ by it alone, it becomes part of the name."""
    stems = [path.relative_to(folder).with_suffix("").as_posix() for path in paths]
    often = Counter(stems)
    return [stem if often[stem] == 1 else f"{stem}_{path.suffix[1:]}" for stem, path in zip(stems, paths, strict=True)]
