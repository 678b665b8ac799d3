"""`python -m mofme control`: robots driven by policies that a person can read (SMOSE)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mofme.cli.measuring import Command, measures, with_exit_codes
from mofme.measure.result import Result

if TYPE_CHECKING:
    from mofme.papers.smose.experiment import ControlProgress


@with_exit_codes
def train(
    command: Command,
    environment: Annotated[str, typer.Argument(help="Walker2d, Hopper, Ant, HalfCheetah, Reacher or Swimmer.")],
    out: Annotated[Path, typer.Option(file_okay=False, help="Folder for the policy and what it takes to go on later.")],
    steps: Annotated[int, typer.Option(min=1, help="Steps of the robot, over all runs together.")] = 1_000_000,
    seed: Annotated[int, typer.Option(help="The same seed learns alike if it is not stopped between.")] = 0,
    experts: Annotated[int, typer.Option(min=1, help="Linear experts, of which 1 makes a plain linear policy.")] = 8,
    balance: Annotated[float, typer.Option(min=0, help="Weight of the loss that keeps all experts in use.")] = 0.1,
) -> None:
    """Train a policy by soft actor-critic, from its last check where it was stopped."""
    import torch

    from mofme.papers.smose.experiment import ControlPlan
    from mofme.papers.smose.experiment import train as learn

    def report(progress: ControlProgress) -> None:
        used = " ".join(f"{share:.0%}" for share in progress.checked.shares_E)
        command.tell(
            f"step {progress.step:,} of {progress.steps:,}, {progress.rate:.0f} a second: "
            f"return {progress.checked.mean:,.1f}, experts {used}"
        )

    torch.set_num_threads(1)  # its matrices are too small to share
    learn(ControlPlan(environment, out, steps, seed, experts, balance), report)


@measures("control.json")
def evaluate(
    command: Command,
    policies: Annotated[Path, typer.Argument(help="Folder that holds trained policies, in folders of their own.")],
    episodes: Annotated[int, typer.Option(min=1, help="Episodes for each policy.")] = 20,
    trees: Annotated[bool, typer.Option(help="Also distil decision trees, and let them drive.")] = True,
) -> Result:
    """Measure every policy below a folder on episodes that training never saw."""
    import torch

    from mofme.papers.smose.experiment import as_result, measure

    torch.set_num_threads(1)
    return as_result(measure(policies, episodes, trees, command.tell), command.line)


@with_exit_codes
def explain(
    command: Command,
    policy: Annotated[Path, typer.Argument(help="Folder of a trained policy.")],
    depth: Annotated[int, typer.Option(min=1, max=12, help="Comparisons in a row that the tree may make.")] = 4,
    seed: Annotated[int, typer.Option(help="Where the episodes begin.")] = 0,
    picture: Annotated[Path | None, typer.Option(help="File for a picture of the tree (.svg).")] = None,
) -> None:
    """Say what each expert does and where it is called, and distil the router into a tree that can be read."""
    import torch

    from mofme.files import atomic_file
    from mofme.papers.smose.environments import TEST_SEED
    from mofme.papers.smose.policy import evaluate as drive
    from mofme.papers.smose.policy import load_policy
    from mofme.papers.smose.trees import describe, distil

    torch.set_num_threads(1)
    loaded, environment = load_policy(policy)
    typer.echo(describe(loaded, environment, seed=seed))
    tree = distil(loaded, environment, depth, seed)
    earned = drive(loaded, environment, seed=TEST_SEED).mean
    if picture is not None:
        with atomic_file(picture, "w") as file:
            file.write(tree.picture(environment))
    typer.echo(f"\nA tree of depth {depth} chooses as the router in {tree.fidelity:.0%} of the states it reaches.")
    typer.echo(f"It earns {tree.evaluation.mean:,.1f} an episode, the router {earned:,.1f}.\n{tree.text(environment)}")
