"""`python -m mofme evaluate distillation`: six ways to distil a mixture of experts, on equal terms."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def distillation(
    texts: Annotated[
        list[Path], typer.Argument(help="Texts to learn from, .txt or .jsonl, also .gz, or their folder.")
    ],
    arms: Annotated[
        Path, typer.Option(file_okay=False, help="Folder for what is finished; what is found in it is not done again.")
    ],
    seeds: Annotated[int, typer.Option(min=1, help="Distil so many times by every method.")] = 3,
    steps: Annotated[int, typer.Option(min=1, help="Batches to distil on.")] = 60,
    pair_steps: Annotated[int, typer.Option(min=2, help="Batches the teacher learns from; the student, half.")] = 800,
    learning_rate: Annotated[float, typer.Option(min=0, help="Of the student, in every method.")] = 1e-3,
    licence: Annotated[str, typer.Option(help="Licence of the texts, for the models' cards.")] = "unknown",
    out: Annotated[Path | None, typer.Option(file_okay=False, help="Folder for moe_distillation.json.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON only.")] = False,
) -> None:
    """Train a mixture and a smaller student on the texts, distil by every method with every seed, and compare.

    Stopped and started again with the same folders, it goes on from there. Exit code: 0 all is well, 2 nothing was
    measured.
    """
    import torch
    from rich.console import Console

    from mofme.cli.results import show_result
    from mofme.errors import MofmeError
    from mofme.language.moe_distillation.distillation import Plan
    from mofme.language.moe_distillation.study import compare
    from mofme.language.moe_distillation.study_result import as_result
    from mofme.language.texts import read_texts
    from mofme.measure.result import save_result

    log = Console(stderr=True, highlight=False, soft_wrap=True)
    torch.set_num_threads(1)
    try:
        files = [file for path in texts for file in (sorted(path.iterdir()) if path.is_dir() else [path])]
        arms.mkdir(parents=True, exist_ok=True)
        measured = compare(
            read_texts([(file.name, file) for file in files]),
            range(seeds),
            Plan("gkd", steps=steps, learning_rate=learning_rate),
            pair_steps,
            arms,
            licence,
            lambda line: log.print(line, markup=False),
        )
        names = " ".join(path.name for path in texts)
        words = [f"python -m mofme evaluate distillation {names} --arms {arms.name} --seeds {seeds} --steps {steps}"]
        words += [f"--pair-steps {pair_steps} --learning-rate {learning_rate}"]
        result = as_result(measured, range(seeds), " ".join(words))
        if out is not None:
            save_result(result, out)
    except (MofmeError, OSError) as error:
        log.print(f"error: {error}", style="red", markup=False)
        raise typer.Exit(2) from None
    show_result(result, as_json)
