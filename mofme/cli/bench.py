"""`python -m mofme bench`: what experts cost, side by side on one backbone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.table import Table

    from mofme.vision.benchmark import Cost

_EXPERTS = [4, 16, 64]
_NAMES = {"dense": "dense", "moe": "MoE", "mofme": "MoFME", "generated": "MoFME (authors)"}


def bench(
    side: Annotated[int, typer.Option(help="Side of the picture in pixels, a multiple of 8.", min=8)] = 256,
    experts: Annotated[list[int], typer.Option(help="Number of experts; give it again for more.", min=1)] = _EXPERTS,
    repeats: Annotated[int, typer.Option(help="Times each net runs, all in turn.", min=1)] = 5,
    backbone: Annotated[str, typer.Option(help="small: the restoration net; vit: the paper's plain ViT.")] = "small",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON only.")] = False,
) -> None:
    """Compare dense, conventional MoE and MoFME: parameters, MACs, time and peak memory.

    MoFME (authors) generates its modulations from the input, as the published code does.
    """
    import dataclasses
    import json

    from rich.console import Console
    from rich.progress import Progress

    from mofme.vision.benchmark import BACKBONES, machine, measure

    if backbone not in BACKBONES:
        raise typer.BadParameter(f"no such backbone: {backbone}. Choose from {', '.join(BACKBONES)}.")
    if side % 8:
        raise typer.BadParameter(f"the side must be a multiple of 8, got {side}.")
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("bench", total=1.0)
        costs = measure(backbone, side, experts, repeats, lambda share: progress.update(task, completed=share))
    what = machine()
    if as_json:
        arms = [{**dataclasses.asdict(cost), **dataclasses.asdict(cost.arm), "median": cost.median} for cost in costs]
        for arm in arms:
            del arm["arm"]
        answer = {"machine": dataclasses.asdict(what), "backbone": backbone, "side": side, "arms": arms}
        typer.echo(json.dumps(answer, indent=2))
        return
    console = Console(highlight=False)
    console.print(f"{backbone}, one picture of {side} x {side}, {what.precision}, threads: {what.threads}")
    console.print(f"{what.cpu}, torch {what.torch}")
    console.print(_table(costs))
    console.print("M, active: million parameters, in all and at work on one position")
    console.print("ms: median (range); ratio: to dense, in the same repeat")
    console.print("MB: peak memory above a process that only imports")


def _table(costs: list[Cost]) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for heading in ("feed-forward", "E", "M", "active", "GMACs", "ms", "ratio", "MB"):
        table.add_column(heading, justify="left" if heading == "feed-forward" else "right", no_wrap=True)
    for cost in costs:
        least, most = min(cost.milliseconds), max(cost.milliseconds)
        table.add_row(
            _NAMES[cost.arm.feed_forward],
            str(cost.arm.num_experts),
            f"{cost.parameters / 1e6:.3f}",
            f"{cost.activated / 1e6:.3f}",
            f"{cost.macs / 1e9:.3f}",
            f"{cost.median:.0f} ({least:.0f}-{most:.0f})",
            f"{cost.ratio_to(costs[0]):.2f}",
            "unknown" if cost.peak_bytes is None else f"{cost.peak_bytes / 1e6:.0f}",
        )
    return table
