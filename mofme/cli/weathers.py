"""The weathers that a command is given by name."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from mofme.vision.evaluation.weathered import Degrade


def check_weathers(names: Collection[str], also: Collection[str] = ()) -> None:
    """Raises typer.BadParameter for a name that is none of WEATHERS, nor one of `also`."""
    from mofme.vision.weather import WEATHERS

    known = (*WEATHERS, *also)
    if unknown := set(names) - set(known):
        raise typer.BadParameter(f"no such weather: {', '.join(sorted(unknown))}. Choose from {', '.join(known)}.")


def chosen_weathers(names: Collection[str], seed: int, degraded: Path | None) -> dict[str, Degrade]:
    """What puts clean pictures into bad weather: those of the folder `degraded`, or else synthesized by name.

    Raises typer.BadParameter for a name that is none of WEATHERS.
    """
    from mofme.vision.evaluation.weathered import synthesized, taken_from

    if degraded is not None:
        return taken_from(degraded)
    check_weathers(names)
    return synthesized(names, seed)
