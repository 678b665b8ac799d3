"""`python -m mofme evaluate mixture-of-routers`: mixtures of routers on LoRA experts beside routers of equal size."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def mixture_of_routers(
    tables: Annotated[
        list[Path],
        typer.Argument(help="CSV files with text and label, or tables of models' answers: which task is it from?"),
    ],
    arms: Annotated[
        Path, typer.Option(file_okay=False, help="Folder for what is finished; what is found in it is not done again.")
    ],
    steps: Annotated[int, typer.Option(min=1, help="Training steps of every arm.")] = 200,
    batch: Annotated[int, typer.Option(min=1, help="Texts a step.")] = 16,
    limit: Annotated[int | None, typer.Option(min=10, help="Texts of each table, drawn at random.")] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Train every arm so many times.")] = 5,
    adapters: Annotated[
        Path | None,
        typer.Option(file_okay=False, help="Folder for the adapters of the first mixture of 2 that is trained."),
    ] = None,
    licence: Annotated[str, typer.Option(help="Licence of these adapters, for their card.")] = "unknown",
    out: Annotated[Path | None, typer.Option(file_okay=False, help="Folder for mixture_of_routers.json.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON only.")] = False,
) -> None:
    """Compare mixtures of 2 and of 4 routers with a single router and with wide ones that have as many parameters.

    Stopped and started again with the same folders, it goes on from there. Exit code: 0 all is well, 2 nothing was
    measured.
    """
    import torch
    from rich.console import Console

    from mofme.cli.results import show_result
    from mofme.errors import MofmeError
    from mofme.files import CARD_FILE
    from mofme.language.lora_mixture.study import Setting, Shipping, compare
    from mofme.language.lora_mixture.study_result import as_result, plot_gains
    from mofme.measure.result import save_result

    log = Console(stderr=True, highlight=False, soft_wrap=True)
    torch.set_num_threads(1)
    setting = Setting(steps, batch, limit=limit)
    try:
        shipping = None if adapters is None else Shipping(adapters, licence)
        measured = compare(tables, setting, range(seeds), arms, lambda line: log.print(line, markup=False), shipping)
        if adapters is not None and not (adapters / CARD_FILE).is_file():
            log.print(
                f"warning: no adapters were written to {adapters}, as the mixtures of 2 in {arms} were trained before: "
                "choose another folder for --arms",
                style="yellow",
                markup=False,
            )
        words = ["python -m mofme evaluate mixture-of-routers", *(table.name for table in tables)]
        words += [f"--arms {arms.name} --steps {steps} --batch {batch}"]
        words += [f"--limit {limit}"] * (limit is not None) + [f"--seeds {seeds}"]
        result = as_result(measured, range(seeds), " ".join(words))
        if out is not None:
            save_result(result, out)
            plot_gains(measured, out / f"{result.room}-gain.png")
    except (MofmeError, OSError) as error:
        log.print(f"error: {error}", style="red", markup=False)
        raise typer.Exit(2) from None
    show_result(result, as_json)
