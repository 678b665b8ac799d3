"""`python app.py`, or `mofme app`: the app in the browser's reach."""

import os
from dataclasses import replace
from typing import Annotated

import typer

from mofme.cli.measuring import Command, with_exit_codes
from mofme.ui.limits import Limits


@with_exit_codes
def open_app(
    command: Command,
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 lets other machines in.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.")] = 7860,
    auth: Annotated[str | None, typer.Option(help="Ask for this user:password.")] = None,
    max_megapixels: Annotated[float, typer.Option(min=0.01, help="Refuse larger pictures.")] = Limits.megapixels,
) -> None:
    """Open the app: restore photos taken in bad weather in your browser."""
    if auth is not None and not all(auth.partition(":")):
        raise typer.BadParameter("write user:password", param_hint="--auth")

    from mofme.ui.models import Engine, Services, shipped_models
    from mofme.ui.window import serve

    # A Hugging Face Space reaches the app from outside its container.
    if os.environ.get("SPACE_ID"):
        host = "0.0.0.0"
    user, _, password = (auth or "").partition(":")
    services = Services(Engine(shipped_models()), limits=replace(Limits(), megapixels=max_megapixels))
    serve(services, host, port, (user, password) if auth else None)
