"""`python -m mofme synthesize`: put weather on clean photographs and keep both as aligned pairs."""

from collections.abc import Collection
from pathlib import Path
from typing import Annotated

import typer

from mofme.cli.measuring import Command, with_exit_codes


@with_exit_codes
def synthesize(
    command: Command,
    clean: Annotated[
        Path, typer.Argument(help="A picture, or a folder of them (with all folders in it).", exists=True)
    ],
    out: Annotated[Path, typer.Argument(help="Folder for the pairs, OUT/input and OUT/target.", file_okay=False)],
    weather: Annotated[
        list[str],
        typer.Option(
            help="rain, snow, raindrop or haze, of which several are mixed on one picture, or all for a pair of each, "
            "or clean to leave pictures as they are."
        ),
    ],
    seed: Annotated[int, typer.Option(help="The same seed makes the same weather.")] = 0,
    count: Annotated[int, typer.Option(help="Pairs to make from every picture.", min=1)] = 1,
) -> None:
    """Write OUT/input/NAME.png with weather and OUT/target/NAME.png without, for every picture of CLEAN."""
    from mofme.errors import PictureError
    from mofme.vision.picture.file import find_pictures, read_picture
    from mofme.vision.weathered import picture_names, write_pair

    variants = _variants(weather)
    folder = clean if clean.is_dir() else clean.parent
    found = find_pictures(folder) if clean.is_dir() else [clean]
    made = [(out / part).resolve() for part in ("input", "target")]
    paths = [path for path in found if not any(path.resolve().is_relative_to(part) for part in made)]
    if not paths:
        pairs = " but those of the pairs themselves" if found else ""
        raise PictureError(f"{clean}: no pictures found{pairs}.")
    failed = 0
    named = list(zip(paths, picture_names(paths, folder), strict=True))
    for path, name in command.track(named, "pairs"):
        try:
            picture = read_picture(path)
            for suffix, weathers in variants.items():
                for number in range(count):
                    pair = f"{name}{suffix}" + (f"_{number:03d}" if count > 1 else "")
                    write_pair(picture, pair, weathers, seed, out)
        except PictureError as error:
            failed += 1
            command.fail(f"skipped {error}")
    command.tell(f"{len(paths) - failed} of {len(paths)} pictures done, pairs in {out}")


def check_weathers(names: Collection[str], also: Collection[str] = ()) -> None:
    """Raises typer.BadParameter for a name that is none of WEATHERS, nor one of `also`."""
    from mofme.vision.weather import WEATHERS

    known = (*WEATHERS, *also)
    if unknown := set(names) - set(known):
        raise typer.BadParameter(f"no such weather: {', '.join(sorted(unknown))}. Choose from {', '.join(known)}.")


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
