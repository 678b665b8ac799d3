"""`python -m mofme bench`: what experts cost, side by side on one backbone."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress, TaskID

from mofme.cli.results import show_result

_EXPERTS = [1, 4, 16, 64, 128]
_BACKBONES = ["small", "small-x4"]


def feed_forwards(
    context: typer.Context,
    side: Annotated[int, typer.Option(help="Side of the picture in pixels, a multiple of 8.", min=8)] = 256,
    experts: Annotated[list[int], typer.Option(help="Number of experts; give it again for more.", min=1)] = _EXPERTS,
    repeats: Annotated[int, typer.Option(help="Times each net runs, all in turn.", min=1)] = 5,
    backbone: Annotated[
        list[str],
        typer.Option(
            help="small: the restoration net; small-x4: with feed-forwards as wide as in transformers; "
            "tiny-x4: the ablation's; vit: the paper's plain ViT. Give it again for more."
        ),
    ] = _BACKBONES,
    out: Annotated[Path | None, typer.Option(help="Folder for bench.json.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON only.")] = False,
) -> None:
    """Compare dense, conventional MoE and MoFME: parameters, MACs, time and peak memory.

    `bench restorers` compares whole restorers on pictures. Time is compared within each repeat; memory is the peak
    above that of a process that only imports. The authors' generators make modulations from the input, as their code.
    """
    if context.invoked_subcommand is not None:
        return
    from mofme.measure.result import save_result
    from mofme.vision.benchmark import BACKBONES, arms, measure
    from mofme.vision.benchmark_result import as_result

    if unknown := set(backbone) - set(BACKBONES):
        names = ", ".join(BACKBONES)
        raise typer.BadParameter(f"no such backbone: {', '.join(sorted(unknown))}. Choose from {names}.")
    if side % 8:
        raise typer.BadParameter(f"the side must be a multiple of 8, got {side}.")
    experts, backbone = sorted(set(experts)), list(dict.fromkeys(backbone))
    costs = {}
    with Progress(console=Console(stderr=True), transient=True) as progress:
        for name in backbone:
            task = progress.add_task(name, total=1.0)

            def show(share: float, task: TaskID = task) -> None:
                progress.update(task, completed=share)

            costs[name] = measure(name, side, arms(experts), repeats, show)
    result = as_result(costs, side, _command(side, experts, repeats, backbone))
    if out is not None:
        save_result(result, out)
    show_result(result, as_json)


def _command(side: int, experts: list[int], repeats: int, backbone: list[str]) -> str:
    words = [f"python -m mofme bench --side {side}", *(f"--experts {count}" for count in experts)]
    return " ".join([*words, f"--repeats {repeats}", *(f"--backbone {name}" for name in backbone)])
