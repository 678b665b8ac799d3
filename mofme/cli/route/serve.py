"""`python -m mofme route serve`: an OpenAI-compatible endpoint that routes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console


def serve(
    config: Annotated[Path, typer.Argument(help="YAML file of backends and rule; assets/serve.yaml explains it.")],
    host: Annotated[str | None, typer.Option(help="Address to listen on, in place of the file's.")] = None,
    port: Annotated[int | None, typer.Option(min=0, max=65535, help="Port, in place of the file's.")] = None,
    router: Annotated[str, typer.Option(help="Name of a shipped router, or folder of one that `train` wrote.")] = (
        "router"
    ),
    check: Annotated[bool, typer.Option("--check", help="Check file, keys and router; then exit.")] = False,
) -> None:
    """Answer /v1/chat/completions by the cheapest model expected to answer well; counters at /metrics.

    Exit code: 0 all is well, 2 the file, the keys or the router cannot be used.
    """
    from mofme.errors import MofmeError
    from mofme.language.llm_routing.sentence_encoder import SentenceEncoder
    from mofme.language.llm_routing.serving.app import create_app
    from mofme.language.llm_routing.serving.config import load_config
    from mofme.language.llm_routing.trained_router import TrainedRouter

    log = Console(stderr=True, highlight=False, soft_wrap=True)
    try:
        changes = {name: value for name, value in (("host", host), ("port", port)) if value is not None}
        settings = load_config(config, **changes)
        encoder = SentenceEncoder(remember=False)  # for the cache of answers; nothing is loaded until it is used
        trained = TrainedRouter.from_pretrained(router)
        app = create_app(settings, trained, lambda text: encoder.embed([text])[0])
        trained.route("the first prompt takes longest: let no client wait for it", **settings.rule.dial())
    except MofmeError as error:
        log.print(f"error: {error}", style="red", markup=False)
        raise typer.Exit(2) from None
    names = ", ".join(backend.name for backend in settings.backends)
    if check:
        log.print(f"{config} is fine: {names}", markup=False)
        return
    import uvicorn

    shown = f"[{settings.host}]" if ":" in settings.host else settings.host
    log.print(f"http://{shown}:{settings.port}/v1 routes to {names}; Ctrl+C stops it", markup=False)
    uvicorn.run(
        app,
        host=settings.host,
        port=settings.port,
        log_level="warning",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        ws="none",
        timeout_graceful_shutdown=10,
    )
