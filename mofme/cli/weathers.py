"""The weathers that a command is given by name."""

from collections.abc import Collection

import typer


def check_weathers(names: Collection[str], also: Collection[str] = ()) -> None:
    """Raises typer.BadParameter for a name that is none of WEATHERS, nor one of `also`."""
    from mofme.vision.weather import WEATHERS

    known = (*WEATHERS, *also)
    if unknown := set(names) - set(known):
        raise typer.BadParameter(f"no such weather: {', '.join(sorted(unknown))}. Choose from {', '.join(known)}.")
