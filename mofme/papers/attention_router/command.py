"""`python -m mofme evaluate attention-router`: the attention router beside two others in small language models."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mofme.cli.measuring import Command, measures
from mofme.measure.result import Result


@measures("attention_router.json and its plot")
def attention_router(
    command: Command,
    text: Annotated[list[Path], typer.Option(help="Text as .txt or .jsonl, also .gz; may be given again.")],
    arms: Annotated[Path, typer.Option(file_okay=False, help="Folder for what is finished and not done again.")],
    seeds: Annotated[int, typer.Option(min=1, help="Train every router so many times.")] = 5,
    steps: Annotated[int, typer.Option(min=1, help="Training steps of every model, of 1,024 tokens each.")] = 1000,
    balance: Annotated[float, typer.Option(min=0, help="Weight of a balancing loss, which the paper has not.")] = 0.0,
) -> Result:
    """Train the same small mixture of experts with a linear, a two-layer and an attention router, and compare."""
    import torch

    from mofme.language.small_lm_training import Plan
    from mofme.language.text import read_texts
    from mofme.papers.attention_router.experiment import Setting, as_result, compare, plot_losses

    torch.set_num_threads(1)
    plan = Plan(steps=steps, batch=8, balance=balance)
    setting = Setting(read_texts([(path.name.partition(".")[0], path) for path in text]), plan)
    found = compare(setting, range(seeds), arms, command.tell)
    if command.out is not None:
        plot_losses(found, command.out / "attention_router-loss.png")
    return as_result(found, range(seeds), command.line)
