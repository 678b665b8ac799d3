"""`python -m mofme route simulate`: does the plug-in rule learn as fast as any router can?"""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import track

from mofme.cli.results import show_result

_SEEDS = range(20)


def simulate(
    out: Annotated[Path | None, typer.Option(help="Folder for llm_routing_rate.json.")] = None,
    largest: Annotated[
        int, typer.Option(min=4000, help="Most recorded queries: 1,000, 4,000, 16,000, ... up to this many.")
    ] = 1_024_000,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON only.")] = False,
) -> None:
    """Simulate routers where the best choice is known; print how fast the plug-in rule's excess risk falls.

    Exit code: 0 all is well, 2 the result could not be written.
    """
    import numpy as np

    from mofme.errors import MofmeError
    from mofme.language.llm_routing.simulation import WORLDS, simulate
    from mofme.language.llm_routing.simulation_result import as_result
    from mofme.measure.result import save_result

    log = Console(stderr=True, highlight=False, soft_wrap=True)
    sizes = [1000 * 4**power for power in range(10) if 1000 * 4**power <= largest]
    excess = {
        world: np.array([[simulate(world, n, seed) for seed in _SEEDS] for n in sizes])
        for world in track(WORLDS, "worlds", console=log)
    }
    command = "python -m mofme route simulate" + (f" --largest {largest}" if largest != 1_024_000 else "")
    result = as_result(excess, sizes, list(_SEEDS), command)
    if out is not None:
        try:
            save_result(result, out)
        except (MofmeError, OSError) as error:
            log.print(f"error: {error}", style="red", markup=False)
            raise typer.Exit(2) from None
    show_result(result, as_json)
