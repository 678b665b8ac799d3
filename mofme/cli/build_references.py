"""`python -m mofme build-references`: what `restore --reroute` looks up, made from photographs for one model."""

from pathlib import Path
from typing import Annotated

import typer


def build_references(
    photographs: Annotated[
        list[Path], typer.Argument(help="Folders of clean photographs, best those of training.", exists=True)
    ],
    out: Annotated[Path, typer.Option(file_okay=False, help="Folder for the references.")],
    model: Annotated[str, typer.Option(help="A shipped model (see `models`), or a folder from `train`.")] = "small",
    limit: Annotated[int, typer.Option(min=2, help="Photographs to take at most.")] = 120,
    pairs: Annotated[
        bool, typer.Option("--pairs", help="Keep the pictures too, as gradient descent needs: not to be passed on.")
    ] = False,
    seed: Annotated[int, typer.Option(help="Decides crops and weather.")] = 0,
    sources: Annotated[str, typer.Option(help="The photographs and their licences, for the card.")] = "",
    licence: Annotated[str, typer.Option(help="Licence of the references, for the card.")] = "",
) -> None:
    """Put weather on photographs, keep what the model solves, and choose on other photographs how to re-route.

    Held-back photographs are never taken. Exit code: 0 all is well, 2 nothing was made.
    """
    from dataclasses import asdict, replace

    from rich.console import Console
    from rich.progress import Progress

    from mofme.core.weights import check_replaceable
    from mofme.errors import MofmeError
    from mofme.vision.models import load_net
    from mofme.vision.rerouting.building import build
    from mofme.vision.rerouting.references import NET
    from mofme.vision.restorer import Restorer

    console = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)
    try:
        check_replaceable(out, NET)
        net, card = load_net(model)  # without the tone at the end: routings are judged by what they do to the net
        with Progress(console=console, transient=True) as progress:
            task = progress.add_task("looking at photographs", total=None)
            made = build(
                Restorer(net, card.name),
                photographs,
                limit,
                seed,
                lambda done, total: progress.update(task, completed=done, total=total),
            )
        kept = made if pairs else replace(made, weathered_NCHW=None, clean_NCHW=None)
        training = {"data": sources or ", ".join(path.resolve().name for path in photographs), "seed": seed}
        kept.save(out, licence, {**training, "photographs": limit, "pairs": len(made)})
    except (MofmeError, OSError) as error:
        console.print(f"error: {error}", style="red")
        raise typer.Exit(2) from None
    chosen = ", ".join(f"{name} {value}" for name, value in asdict(made.choices).items())
    console.print(f"{len(made)} pairs that {made.model} solved are in {out}; chosen: {chosen}")
