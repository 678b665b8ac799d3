"""`python -m mofme train-segmenter`: train the segmenter that `evaluate segmentation` measures with."""

from pathlib import Path
from typing import Annotated

import typer

from mofme.cli.measuring import Command, with_exit_codes


@with_exit_codes
def train_segmenter(
    command: Command,
    frames: Annotated[Path, typer.Argument(help="Folder of clean frames.", exists=True, file_okay=False)],
    labels: Annotated[Path, typer.Argument(help="Folder of their label pictures.", exists=True, file_okay=False)],
    out: Annotated[Path, typer.Option(help="Where the model and the state to resume from go.")],
    label_set: Annotated[str, typer.Option(help="What the labels mean: a built-in name, or a JSON file.")] = "camvid",
    steps: Annotated[int, typer.Option(min=1, help="Steps to train.")] = 800,
    batch: Annotated[int, typer.Option(min=2, help="Parts of frames a step.")] = 8,
    learning_rate: Annotated[float, typer.Option(help="Highest learning rate.")] = 2e-3,
    seed: Annotated[int, typer.Option(help="Seed of the weights and the parts of frames.")] = 0,
    from_scratch: Annotated[bool, typer.Option("--from-scratch", help="Without ImageNet's features.")] = False,
    sources: Annotated[str, typer.Option(help="The training data and its licences, for the card.")] = "",
    licence: Annotated[str, typer.Option(help="Licence of the weights, for the card.")] = "",
) -> None:
    """Train on clean frames, no weather; stopped at any time, the same command goes on where it was."""
    from mofme.vision.segmenter_training import SegmenterPlan
    from mofme.vision.segmenter_training import train_segmenter as learn

    plan = SegmenterPlan(
        frames=frames,
        labels=labels,
        out=out,
        label_set=label_set,
        steps=steps,
        batch=batch,
        learning_rate=learning_rate,
        seed=seed,
        pretrained=not from_scratch,
        sources=sources,
        licence=licence,
    )
    learn(plan, report=command.tell)
