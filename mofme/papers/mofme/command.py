"""`python -m mofme evaluate ablation` and `evaluate routers`: what experts and their routers do for the picture."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mofme.cli.evaluate import LpipsWeights, open_lpips
from mofme.cli.measuring import Command, measures
from mofme.measure.result import Result

if TYPE_CHECKING:
    from mofme.papers.mofme.experiment import Setting


@dataclass(frozen=True)
class Training:
    """Options of both."""

    clean: Annotated[
        list[Path], typer.Argument(help="Folders of clean photographs, of which 1 in 20 is held back to measure.")
    ]
    arms: Annotated[Path, typer.Option(file_okay=False, help="Folder for what is finished and not done again.")]
    seeds: Annotated[int, typer.Option(min=1, help="Train every arm so many times.")] = 3
    steps: Annotated[int, typer.Option(min=1, help="Training steps of every arm.")] = 2000
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first N held-back photographs.")] = None

    def setting(self, command: Command) -> Setting:
        from mofme.papers.mofme.experiment import Setting
        from mofme.papers.mofme.training import Recipe

        recipe = Recipe(steps=self.steps)
        return Setting(self.clean, self.arms, recipe, list(range(self.seeds)), self.limit, command.tell)


@measures("ablation.json, or ablation_arms.json of some arms, a page, a table and the plots")
def ablation(
    command: Command,
    training: Training,
    lpips_weights: LpipsWeights = None,
    arm: Annotated[
        list[str] | None, typer.Option(help="Only this arm, as generated-16; may be given again.", show_default="all")
    ] = None,
) -> Result:
    """Train dense, conventional mixture, MoFME with three routers and its authors' variant alike, and compare them."""
    from mofme.papers.mofme.experiment import run_ablation

    lpips = open_lpips(command, lpips_weights)
    return run_ablation(training.setting(command), command.line, lpips, arm or (), command.out)


@measures("routers.json and its plot")
def routers(command: Command, training: Training) -> Result:
    """Train the same small restorer with five routers alike, and compare them."""
    import torch

    from mofme.papers.mofme.experiment import compare_routers

    torch.set_num_threads(1)
    plotted = None if command.out is None else command.out / "routers-quality.png"
    return compare_routers(training.setting(command), command.line, plotted)
