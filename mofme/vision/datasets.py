"""Pictures for training and validation: folders of clean photographs, of pairs, of scenes with their transmission;
and bad weather for clean ones: synthesized, by seed and name alone, or taken from a folder.
"""

import glob
import hashlib
import re
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from mofme.errors import MofmeError, PictureError
from mofme.vision.picture.decode import Picture
from mofme.vision.picture.file import find_pictures, read_whole, write_picture
from mofme.vision.weather import WEATHERS, synthesize

# What public sets add to a scene's number: norain-001.png belongs to rain-001.png, 7_clean.png to 7_rain.png.
_TAGS = frozenset({"rain", "norain", "rainy", "snow", "snowy", "haze", "hazy", "clean", "clear", "gt"})


class Pair(NamedTuple):
    """Two aligned pictures (3, H, W), uint8: as the weather left it, and clean."""

    weathered: Tensor
    clean: Tensor


class HazeScene(NamedTuple):
    """A clear picture (3, H, W) and the share of its light that comes through the air (1, H, W), both uint8."""

    clear: Tensor
    transmission: Tensor


@dataclass(frozen=True)
class PairFiles:
    """An input in bad weather and its clean target; None where the target is missing."""

    name: str  # path below input/, with forward slashes
    input: Path
    target: Path | None

    def read(self, max_megapixels: float = 100) -> tuple[Tensor, Tensor]:
        """Both pictures (3, H, W) in [0, 1]. Raises PictureError if one cannot be read, is missing, or if they differ
        in size.
        """
        if self.target is None:
            raise PictureError(f"{self.input}: target/ has no picture of this name")
        weathered, clean = (read_whole(path, max_megapixels).rgb for path in (self.input, self.target))
        if weathered.shape != clean.shape:
            sizes = " and ".join(f"{picture.shape[2]}x{picture.shape[1]}" for picture in (weathered, clean))
            raise PictureError(f"{self.input} and {self.target} differ in size: {sizes}")
        return weathered, clean


def held_back(path: Path, share: int = 20) -> bool:
    """Whether a photograph is kept for validation: 1 in `share`, by its name alone, the same on every machine."""
    return _name_checksum(path) % share == 0


def load_clean(folders: Sequence[Path], *, validation: bool) -> list[Tensor]:
    """The photographs of some folders as uint8 (3, H, W), held in memory: the training part or the held-back part.

    Broken files are skipped with a line. Raises MofmeError if nothing is left.
    """
    found = [path for folder in folders for path in find_pictures(folder)]
    # Few photographs may all be named for training: then one of them is held back.
    held = set(filter(held_back, found)) or set(sorted(found, key=_name_checksum)[:1])
    pictures = []
    for path in [path for path in found if (path in held) == validation]:
        try:
            pictures.append(_to_uint8(read_whole(path).rgb))
        except PictureError as error:
            print(f"skipped: {error}")
    if not pictures:
        part = "to hold back for validation" if validation else "to train on"
        raise MofmeError(f"no readable photograph {part} in {', '.join(map(str, folders))}: add clean pictures")
    return pictures


def load_pair_sets(folders: Sequence[Path]) -> dict[str, list[Pair]]:
    """The pairs of some folders, as `find_sets` finds them, by the name of each set.

    Raises MofmeError if there are none, or two sets of one name; PictureError for a pair that is none.
    """
    sets: dict[str, list[Pair]] = {}
    for folder in folders:
        for name, members in find_sets(folder).items():
            if name in sets:
                raise MofmeError(f"{folder}: another set is called {name} already; rename one of the folders")
            sets[name] = [Pair(*map(_to_uint8, pair.read())) for pair in members]
    return sets


def find_sets(folder: Path) -> dict[str, list[PairFiles]]:
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


def _find_pairs(folder: Path) -> Iterator[PairFiles]:
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
        yield PairFiles(relative.as_posix(), path, target)


def _words(stem: str) -> tuple[str, ...]:
    words = re.split(r"[-_ ]+", stem.lower())
    return tuple(word for word in words if word not in _TAGS) or tuple(words)


def load_haze(folder: Path) -> list[HazeScene]:
    """Scenes of a folder that holds `clear/` and, by the same names, `trans/`: transmission as grey, of any size.

    Raises MofmeError if there are none, PictureError if one cannot be read or has no transmission.
    """
    scenes = []
    for path in find_pictures(folder / "clear") if (folder / "clear").is_dir() else ():
        transmission = next((folder / "trans").glob(f"{glob.escape(path.stem)}.*"), None)
        if transmission is None:
            raise PictureError(f"{path}: trans/ has no picture of this name")
        clear = read_whole(path).rgb
        grey = F.interpolate(read_whole(transmission).rgb[None, :1], clear.shape[-2:], mode="bilinear")[0]
        scenes.append(HazeScene(_to_uint8(clear), _to_uint8(grey)))
    if not scenes:
        raise MofmeError(
            f"{folder}: no scenes with haze found; it needs pictures in clear/ and, of the same names, trans/"
        )
    return scenes


def clean_crops(pictures: Sequence[Tensor], crop: int, batch: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Endless batches (batch, 3, crop, crop) in [0, 1]: random picture, scale, place and one of the 8 dihedral views.

    Pictures are drawn by their area's square root, so that large ones, which hold more to see, come up more often.
    """
    while True:
        yield torch.stack([_crop(one, crop, generator) for one in drawn_by_size(pictures, batch, generator)])


def drawn_by_size(pictures: Sequence[Tensor], count: int, generator: torch.Generator) -> list[Tensor]:
    """So many of them, with replacement: the larger the oftener, by the square root of the area."""
    areas = torch.tensor([float(picture.shape[-1] * picture.shape[-2]) ** 0.5 for picture in pictures])
    chosen = torch.multinomial(areas, count, replacement=True, generator=generator).tolist()
    return [pictures[i] for i in chosen]


def _crop(picture: Tensor, size: int, generator: torch.Generator) -> Tensor:
    height, width = picture.shape[-2:]
    # From the picture's own scale to its shorter side just filling the crop, most often near its own scale.
    largest = min(height, width) / size
    factor = max(1.0, largest ** (torch.rand((), generator=generator).item() ** 3))
    window = min(round(size * factor), height, width)
    top = int(torch.randint(height - window + 1, (), generator=generator))
    left = int(torch.randint(width - window + 1, (), generator=generator))
    patch = picture[:, top : top + window, left : left + window].float() / 255
    if window != size:
        patch = F.interpolate(patch[None], (size, size), mode="bilinear", antialias=True, align_corners=False)[0]
    view = int(torch.randint(8, (), generator=generator))
    patch = torch.rot90(patch, view % 4, dims=(-2, -1))
    return patch.flip(-1) if view >= 4 else patch


def centre(picture: Tensor, height: int, width: int) -> Tensor:
    """The middle of a uint8 picture (..., H, W), in [0, 1]."""
    top, left = (picture.shape[-2] - height) // 2, (picture.shape[-1] - width) // 2
    return picture[..., top : top + height, left : left + width].float() / 255


def _name_checksum(path: Path) -> int:
    return zlib.crc32(path.stem.encode("utf-8", "surrogateescape"))  # a name on disk may be any bytes


def _to_uint8(rgb: Tensor) -> Tensor:
    return (rgb * 255).round().to(torch.uint8)


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

    def degrade(weather: str, clean: Tensor, name: str) -> Tensor:
        return with_weather(clean, f"{name}_{weather}", weather, seed)

    return {weather: partial(degrade, weather) for weather in weathers}


def taken_from(folder: Path) -> dict[str, Degrade]:
    """The pictures of `folder`, by the names of the clean ones, whatever their suffix; the weather is its name.

    They raise PictureError for a picture that is missing, or of another size than the clean one.
    """
    found = find_pictures(folder)
    paths = dict(zip(picture_names(found, folder), found, strict=True))

    def degrade(clean: Tensor, name: str) -> Tensor:
        if name not in paths:
            raise PictureError(f"{folder}: no picture is called {name}")
        degraded = read_whole(paths[name]).rgb
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
                    pair = write_pair(read_whole(path), name, weathers, seed, folder / str(number) / title)
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
