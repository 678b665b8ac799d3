"""`python -m mofme synthesize`: put weather on clean photographs and keep both as aligned pairs."""

from pathlib import Path
from typing import Annotated

import typer

from mofme.cli.weathers import check_weathers


def synthesize(
    clean: Annotated[
        Path, typer.Argument(help="A picture, or a folder of them (with all folders in it).", exists=True)
    ],
    out: Annotated[Path, typer.Argument(help="Folder for the pairs: OUT/input and OUT/target.", file_okay=False)],
    weather: Annotated[
        list[str],
        typer.Option(
            help="rain, snow, raindrop or haze; several are mixed on one picture; all makes a pair of each; "
            "clean leaves pictures as they are, to see how much of them is kept."
        ),
    ],
    seed: Annotated[int, typer.Option(help="Another seed makes other weather; the same makes the same.")] = 0,
    count: Annotated[int, typer.Option(help="Pairs to make from every picture.", min=1)] = 1,
) -> None:
    """Write OUT/input/NAME.png with weather and OUT/target/NAME.png without, for every picture of CLEAN."""
    from rich.console import Console
    from rich.progress import Progress

    from mofme.errors import PictureError
    from mofme.vision.evaluation.weathered import picture_names, write_pair
    from mofme.vision.picture.file import find_pictures, read_picture

    variants = _variants(weather)
    folder = clean if clean.is_dir() else clean.parent
    found = find_pictures(folder) if clean.is_dir() else [clean]
    made = [(out / part).resolve() for part in ("input", "target")]
    paths = [path for path in found if not any(path.resolve().is_relative_to(part) for part in made)]
    console = Console(stderr=True)
    if not paths:
        pairs = " but those of the pairs themselves" if found else ""
        console.print(f"{clean}: no pictures found{pairs}.", markup=False)
        raise typer.Exit(1)
    failed = 0
    with Progress(console=console, transient=True) as progress:
        named = list(zip(paths, picture_names(paths, folder), strict=True))
        for path, name in progress.track(named, description="pairs"):
            try:
                picture = read_picture(path)
                for suffix, weathers in variants.items():
                    for number in range(count):
                        pair = f"{name}{suffix}" + (f"_{number:03d}" if count > 1 else "")
                        write_pair(picture, pair, weathers, seed, out)
            except PictureError as error:
                failed += 1
                progress.console.print(f"skipped {error}", markup=False)
    console.print(f"{len(paths) - failed} of {len(paths)} pictures done, pairs in {out}", markup=False)
    if failed:
        raise typer.Exit(1)


def _variants(weather: list[str]) -> dict[str, frozenset[str]]:
    """The pairs to make of a picture: what is added to its name, and the weathers on it."""
    from mofme.vision.weather import WEATHERS

    wanted, alone = frozenset(weather), ("all", "clean")
    check_weathers(weather, also=alone)
    if wanted & {*alone} and len(wanted) > 1:
        raise typer.BadParameter("all and clean stand alone; leave the other names out.")
    if "all" in wanted:
        return {f"_{name}": frozenset({name}) for name in WEATHERS}
    return {"": wanted - {*alone}}
