"""`python -m mofme bench routing-server`: what `route serve` costs in time, and whether it loses answers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from mofme.cli.results import show_result


def routing_server(
    clients: Annotated[int, typer.Option(min=1, help="Clients that ask at once.")] = 50,
    requests: Annotated[int, typer.Option(min=10, help="Requests of all clients together.")] = 500,
    router: Annotated[str, typer.Option(help="Name of a shipped router, or folder of one.")] = "router",
    out: Annotated[Path | None, typer.Option(file_okay=False, help="Folder for llm_serving.json.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON only.")] = False,
) -> None:
    """Measure the routing endpoint on fake backends in this process: time added to a request, lost and doubled answers.

    Each is measured with a router that takes no time and with a trained one. Exit code: 0 all is well, 1 answers were
    lost or doubled, 2 nothing was begun.
    """
    from mofme.errors import MofmeError
    from mofme.language.llm_routing.serving.load_test import DrawingRouter, measure_overhead, measure_storm
    from mofme.language.llm_routing.serving.load_test_result import as_result
    from mofme.language.llm_routing.trained_router import TrainedRouter
    from mofme.measure.result import save_result

    log = Console(stderr=True, highlight=False, soft_wrap=True)
    try:
        routers = {
            "without routing": DrawingRouter(),
            "with a trained router": DrawingRouter(TrainedRouter.from_pretrained(router)),
        }
        overheads = {name: measure_overhead(requests, each) for name, each in routers.items()}
        storms = {name: measure_storm(clients, requests, each) for name, each in routers.items()}
        command = f"python -m mofme bench routing-server --clients {clients} --requests {requests}"
        result = as_result(overheads, storms, f"{command} --router {Path(router).name}")
        if out is not None:
            save_result(result, out)
    except (MofmeError, OSError) as error:
        log.print(f"error: {error}", style="red", markup=False)
        raise typer.Exit(2) from None
    show_result(result, as_json)
    if any(storm.lost or storm.duplicated for storm in storms.values()):
        raise typer.Exit(1)
