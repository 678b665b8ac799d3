"""`python -m mofme evaluate attention-router`: the attention router beside two others in small language models."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def attention_router(
    text: Annotated[list[Path], typer.Option(help="Text: .txt, or .jsonl, also .gz; may be given again.")],
    arms: Annotated[
        Path, typer.Option(file_okay=False, help="Folder for trained models; those found in it are not trained again.")
    ],
    seeds: Annotated[int, typer.Option(min=1, help="Train every router so many times.")] = 5,
    steps: Annotated[int, typer.Option(min=1, help="Training steps of every model, of 1,024 tokens each.")] = 1000,
    balance: Annotated[float, typer.Option(min=0, help="Weight of a balancing loss; the paper has none.")] = 0.0,
    out: Annotated[
        Path | None, typer.Option(file_okay=False, help="Folder for attention_router.json and its plot.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON only.")] = False,
) -> None:
    """Train the same small mixture of experts with a linear, a two-layer and an attention router, and compare.

    The last tenth of every text is held back to measure on. Stopped and started again with the same folders, it goes
    on after the last model that was finished. Exit code: 0 all is well, 2 nothing was measured.
    """
    import torch
    from rich.console import Console

    from mofme.cli.results import show_result
    from mofme.errors import MofmeError
    from mofme.language.attention_router.study import Setting, study
    from mofme.language.attention_router.study_result import as_result, plot_losses
    from mofme.language.small_lm.training import Plan
    from mofme.language.texts import read_texts
    from mofme.measure.result import save_result

    log = Console(stderr=True, highlight=False, soft_wrap=True)
    torch.set_num_threads(1)
    try:
        plan = Plan(steps=steps, batch=8, balance=balance)
        setting = Setting(read_texts([(path.name.partition(".")[0], path) for path in text]), plan)
        found = study(setting, range(seeds), arms, lambda line: log.print(line, markup=False))
        words = ["python -m mofme evaluate attention-router", *(f"--text {path.name}" for path in text)]
        words += [f"--arms {arms.name} --seeds {seeds} --steps {steps}"] + [f"--balance {balance}"] * (balance > 0)
        result = as_result(found, range(seeds), " ".join(words))
        if out is not None:
            plot_losses(found, out / "attention_router-loss.png")
            save_result(result, out)
    except (MofmeError, OSError) as error:
        log.print(f"error: {error}", style="red", markup=False)
        raise typer.Exit(2) from None
    show_result(result, as_json)
