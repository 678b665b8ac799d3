"""`python -m mofme train-tone`: train the last step of a restorer, the tone of hazy pictures."""

from pathlib import Path
from typing import Annotated

import typer

from mofme.cli.measuring import Command, with_exit_codes


@with_exit_codes
def train_tone(
    command: Command,
    clean: Annotated[list[Path], typer.Argument(help="Folders of clean photographs.")],
    out: Annotated[Path, typer.Option(help="Where it goes: the folder `tone` in the restorer's own makes it used.")],
    model: Annotated[str, typer.Option(help="The restorer: a shipped model, or a folder `train` wrote.")] = "small",
    samples: Annotated[int, typer.Option(min=1, help="Pictures to restore and learn from.")] = 16_000,
    steps: Annotated[int, typer.Option(min=1, help="Training steps.")] = 1500,
    batch: Annotated[int, typer.Option(min=2, help="Pictures a step.")] = 64,
    learning_rate: Annotated[float, typer.Option(help="Highest learning rate.")] = 4e-3,
    seed: Annotated[int, typer.Option(help="Seed of the weights, the pictures and their weather.")] = 0,
    sources: Annotated[str, typer.Option(help="The training data and its licences, for the card.")] = "",
    licence: Annotated[str, typer.Option(help="Licence of the weights, for the card.")] = "",
) -> None:
    """Learn what gain and offset a restorer's hazy pictures still lack; the restorer stays as it is."""
    import torch

    from mofme.vision.tone_training import TonePlan
    from mofme.vision.tone_training import train_tone as learn

    torch.set_num_threads(1)
    plan = TonePlan(
        out=out,
        clean=clean,
        model=model,
        samples=samples,
        steps=steps,
        batch=batch,
        learning_rate=learning_rate,
        seed=seed,
        sources=sources,
        licence=licence,
    )
    learn(plan, report=command.tell)
