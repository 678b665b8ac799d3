"""`python -m mofme control explain`: a policy in words, and a decision tree in its router's place."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def explain(
    policy: Annotated[Path, typer.Argument(help="Folder of a trained policy.")],
    depth: Annotated[int, typer.Option(min=1, max=12, help="Comparisons in a row that the tree may make.")] = 4,
    seed: Annotated[int, typer.Option(help="Where the episodes begin.")] = 0,
    picture: Annotated[Path | None, typer.Option(help="File for a picture of the tree (.svg).")] = None,
) -> None:
    """Say what each expert does and where it is called, and distil the router into a tree that can be read.

    Exit code: 0 all is well, 2 nothing could be explained.
    """
    import torch
    from rich.console import Console

    from mofme.control.evaluation import TEST_SEED, evaluate
    from mofme.control.explanation import describe
    from mofme.control.storage import load_policy
    from mofme.control.trees import distil
    from mofme.errors import MofmeError
    from mofme.files import atomic_file

    log = Console(stderr=True, highlight=False, soft_wrap=True)
    torch.set_num_threads(1)
    try:
        loaded, environment = load_policy(policy)
        typer.echo(describe(loaded, environment, seed=seed))
        tree = distil(loaded, environment, depth, seed)
        earned = evaluate(loaded, environment, seed=TEST_SEED).mean
        if picture is not None:
            with atomic_file(picture, "w") as file:
                file.write(tree.picture(environment))
    except (MofmeError, OSError) as error:
        log.print(f"error: {error}", style="red", markup=False)
        raise typer.Exit(2) from None
    typer.echo(f"\nA tree of depth {depth} chooses as the router in {tree.fidelity:.0%} of the states it reaches.")
    typer.echo(f"It earns {tree.evaluation.mean:,.1f} an episode, the router {earned:,.1f}.\n{tree.text(environment)}")
