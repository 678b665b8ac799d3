"""`python -m mofme control train`: a policy of linear experts learns to drive a robot."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def train(
    environment: Annotated[str, typer.Argument(help="Walker2d, Hopper, Ant, HalfCheetah, Reacher or Swimmer.")],
    out: Annotated[Path, typer.Option(help="Folder for the policy and what it takes to go on later.")],
    steps: Annotated[int, typer.Option(min=1, help="Steps of the robot, over all runs together.")] = 1_000_000,
    seed: Annotated[int, typer.Option(help="The same seed learns alike, if it is not stopped between.")] = 0,
    experts: Annotated[int, typer.Option(min=1, help="Linear experts; 1 makes a plain linear policy.")] = 8,
    balance: Annotated[float, typer.Option(min=0, help="Weight of the loss that keeps all experts in use.")] = 0.1,
) -> None:
    """Train by soft actor-critic; stopped with Ctrl+C and started again, it goes on from its last check.

    Exit code: 0 all is well, 2 nothing could be trained.
    """
    import torch
    from rich.console import Console

    from mofme.control.training import ControlPlan, ControlProgress
    from mofme.control.training import train as learn
    from mofme.errors import MofmeError

    log = Console(stderr=True, highlight=False, soft_wrap=True)
    torch.set_num_threads(1)  # its matrices are too small to share

    def report(progress: ControlProgress) -> None:
        used = " ".join(f"{share:.0%}" for share in progress.checked.shares_E)
        log.print(
            f"step {progress.step:,} of {progress.steps:,}, {progress.rate:.0f} a second: "
            f"return {progress.checked.mean:,.1f}, experts {used}"
        )

    try:
        learn(ControlPlan(environment, out, steps, seed, experts, balance), report)
    except KeyboardInterrupt:
        log.print(f"stopped; the same command goes on from the last check in {out}")
        raise typer.Exit(130) from None
    except (MofmeError, OSError) as error:
        log.print(f"error: {error}", style="red", markup=False)
        raise typer.Exit(2) from None
