"""Pictures for training and validation: folders of clean photographs, and folders of pairs (`input/`, `target/`)."""

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from mofme.errors import MofmeError, PictureError
from mofme.vision.evaluation.pairs import find_sets
from mofme.vision.image import find_pictures, read_picture


@dataclass(frozen=True)
class Pair:
    """Two aligned pictures (3, H, W), uint8: as the weather left it, and clean."""

    weathered: Tensor
    clean: Tensor


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
    paths = [path for path in found if (path in held) == validation]
    for path in paths:
        try:
            pictures.append(_to_uint8(read_picture(path).rgb))
        except PictureError as error:
            print(f"skipped: {error}")
    if not pictures:
        part = "to hold back for validation" if validation else "to train on"
        raise MofmeError(f"no readable photograph {part} in {', '.join(map(str, folders))}: add clean pictures")
    return pictures


def load_pairs(folders: Sequence[Path]) -> list[Pair]:
    """The pairs of some folders, matched as `evaluate restoration` matches them.

    Raises MofmeError if there are none, PictureError if one cannot be read, has no partner or another size than it.
    """
    pairs = []
    for found in (pair for folder in folders for members in find_sets(folder).values() for pair in members):
        if found.target is None:
            raise PictureError(f"{found.input}: target/ has no picture of this name")
        pair = Pair(_to_uint8(read_picture(found.input).rgb), _to_uint8(read_picture(found.target).rgb))
        if pair.weathered.shape != pair.clean.shape:
            raise PictureError(f"{found.input} and {found.target} differ in size: the two of a pair must be aligned")
        pairs.append(pair)
    return pairs


def clean_crops(pictures: Sequence[Tensor], crop: int, batch: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Endless batches (batch, 3, crop, crop) in [0, 1]: random picture, scale, place and one of the 8 dihedral views.

    Pictures are drawn by their area's square root, so that large ones, which hold more to see, come up more often.
    """
    areas = torch.tensor([float(p.shape[-1] * p.shape[-2]) ** 0.5 for p in pictures])
    while True:
        chosen = torch.multinomial(areas, batch, replacement=True, generator=generator).tolist()
        yield torch.stack([_crop(pictures[i], crop, generator) for i in chosen])


def pair_crops(
    pairs: Sequence[Pair], crop: int, batch: int, generator: torch.Generator
) -> Iterator[tuple[Tensor, Tensor]]:
    """Endless aligned batches (weathered, clean) like `clean_crops`, at the pairs' own scale."""
    while True:
        chosen = torch.randint(len(pairs), (batch,), generator=generator).tolist()
        both = [_crop(torch.cat([pairs[i].weathered, pairs[i].clean]), crop, generator, rescale=False) for i in chosen]
        weathered, clean = torch.stack(both).chunk(2, dim=1)
        yield weathered, clean


def _crop(picture: Tensor, size: int, generator: torch.Generator, *, rescale: bool = True) -> Tensor:
    height, width = picture.shape[-2:]
    # From the picture's own scale to its shorter side just filling the crop, most often near its own scale.
    largest = min(height, width) / size
    factor = max(1.0, largest ** (torch.rand((), generator=generator).item() ** 3)) if rescale else 1.0
    window = min(round(size * factor), height, width)
    top = int(torch.randint(height - window + 1, (), generator=generator))
    left = int(torch.randint(width - window + 1, (), generator=generator))
    patch = picture[:, top : top + window, left : left + window].float() / 255
    if window != size:
        patch = F.interpolate(patch[None], (size, size), mode="bilinear", antialias=True, align_corners=False)[0]
    return _dihedral(patch, int(torch.randint(8, (), generator=generator)))


def _dihedral(picture: Tensor, view: int) -> Tensor:
    picture = torch.rot90(picture, view % 4, dims=(-2, -1))
    return picture.flip(-1) if view >= 4 else picture


def _name_checksum(path: Path) -> int:
    return zlib.crc32(path.stem.encode("utf-8", "surrogateescape"))  # a name on disk may be any bytes


def _to_uint8(rgb: Tensor) -> Tensor:
    return (rgb * 255).round().to(torch.uint8)
