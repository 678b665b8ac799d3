"""`python -m mofme synthesize`: put weather on clean photographs and keep both as aligned pairs."""

import hashlib
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from torch import Tensor

    from mofme.vision.image import Picture


def synthesize(
    clean: Annotated[
        Path, typer.Argument(help="A picture, or a folder of them (with all folders in it).", exists=True)
    ],
    out: Annotated[Path, typer.Argument(help="Folder for the pairs: OUT/input and OUT/target.", file_okay=False)],
    weather: Annotated[
        list[str],
        typer.Option(help="rain, snow, raindrop or haze; several are mixed on one picture; all makes a pair of each."),
    ],
    seed: Annotated[int, typer.Option(help="Another seed makes other weather; the same makes the same.")] = 0,
    count: Annotated[int, typer.Option(help="Pairs to make from every picture.", min=1)] = 1,
) -> None:
    """Write OUT/input/NAME.png with weather and OUT/target/NAME.png without, for every picture of CLEAN."""
    from rich.console import Console
    from rich.progress import Progress

    from mofme.errors import PictureError
    from mofme.vision.image import find_pictures, read_picture, write_picture
    from mofme.vision.weather import WEATHERS

    wanted = frozenset(weather)
    if unknown := wanted - {*WEATHERS, "all"}:
        names = ", ".join((*WEATHERS, "all"))
        raise typer.BadParameter(f"no such weather: {', '.join(sorted(unknown))}. Choose from {names}.")
    if "all" in wanted and len(wanted) > 1:
        raise typer.BadParameter("all makes one pair of every weather; leave the other names out.")
    variants = {f"_{name}": frozenset({name}) for name in WEATHERS} if "all" in wanted else {"": wanted}

    folder = clean if clean.is_dir() else clean.parent
    found = find_pictures(folder) if clean.is_dir() else [clean]
    paths = [path for path in found if not path.resolve().is_relative_to(out.resolve())]
    console = Console(stderr=True)
    if not paths:
        console.print(f"{clean}: no pictures found.", markup=False)
        raise typer.Exit(1)
    failed = 0
    with Progress(console=console, transient=True) as progress:
        for path, name in progress.track(list(zip(paths, _names(paths, folder), strict=True)), description="pairs"):
            try:
                picture = read_picture(path)
                # Weather covers the whole frame and has colour, so transparency and grey go.
                like = replace(picture, alpha=None, grey=False)
                for suffix, weathers in variants.items():
                    for number in range(count):
                        pair = f"{name}{suffix}" + (f"_{number:03d}" if count > 1 else "")
                        weathered = _with_weather(picture, weathers, f"{seed}/{pair}")
                        write_picture(out / "target" / f"{pair}.png", picture.rgb, like, "png")
                        write_picture(out / "input" / f"{pair}.png", weathered, like, "png")
            except PictureError as error:
                failed += 1
                progress.console.print(f"skipped {error}", markup=False)
    console.print(f"{len(paths) - failed} of {len(paths)} pictures done, pairs in {out}", markup=False)
    if failed:
        raise typer.Exit(1)


def _names(paths: list[Path], folder: Path) -> list[str]:
    """Relative names without suffix; where two pictures differ by it alone, it becomes part of the name."""
    stems = [path.relative_to(folder).with_suffix("").as_posix() for path in paths]
    often = Counter(stems)
    return [stem if often[stem] == 1 else f"{stem}_{path.suffix[1:]}" for stem, path in zip(stems, paths, strict=True)]


def _with_weather(picture: "Picture", weathers: frozenset[str], seed: str) -> "Tensor":
    """The picture with weather that depends on `seed` alone, so not on which other pictures are there."""
    import torch

    from mofme.vision import weather

    digest = hashlib.blake2b(seed.encode(), digest_size=7).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest))
    return weather.synthesize(picture.rgb[None], [weathers], generator).image[0]
