"""`python -m mofme control evaluate`: what trained policies earn, beside the paper's figures."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def evaluate(
    policies: Annotated[Path, typer.Argument(help="Folder that holds trained policies, in folders of their own.")],
    episodes: Annotated[int, typer.Option(min=1, help="Episodes for each policy.")] = 20,
    trees: Annotated[bool, typer.Option(help="Also distil decision trees, and let them drive.")] = True,
    out: Annotated[Path | None, typer.Option(help="Folder for control.json.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON only.")] = False,
) -> None:
    """Measure every policy below a folder on episodes that training never saw.

    Exit code: 0 all is well, 2 nothing was measured.
    """
    import torch
    from rich.console import Console

    from mofme.cli.results import show_result
    from mofme.control.comparison import as_result, measure
    from mofme.errors import MofmeError
    from mofme.measure.result import save_result

    log = Console(stderr=True, highlight=False, soft_wrap=True)
    torch.set_num_threads(1)
    try:
        measured = measure(policies, episodes, trees, lambda line: log.print(line, markup=False))
        words = f"python -m mofme control evaluate {policies.name} --episodes {episodes}"
        result = as_result(measured, words + ("" if trees else " --no-trees"))
        if out is not None:
            save_result(result, out)
    except (MofmeError, OSError) as error:
        log.print(f"error: {error}", style="red", markup=False)
        raise typer.Exit(2) from None
    show_result(result, as_json)
