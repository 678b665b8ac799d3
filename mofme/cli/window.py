"""`python app.py`, or `mofme app`: the app in the browser's reach."""

import os
from dataclasses import replace
from typing import Annotated, Literal

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
    max_memory: Annotated[
        float | None,
        typer.Option(min=0.1, help="Gigabytes it may use; by default 80 % of the machine's, or of the container's."),
    ] = None,
    root_path: Annotated[
        str | None, typer.Option(envvar="GRADIO_ROOT_PATH", help="Path, or address, by which a reverse proxy shows it.")
    ] = None,
    certificate: Annotated[str | None, typer.Option(help="File of a TLS certificate (PEM); needs --key.")] = None,
    key: Annotated[str | None, typer.Option(help="File of the certificate's private key (PEM).")] = None,
    log_format: Annotated[
        Literal["plain", "json"],
        typer.Option(help="json logs each request and piece of work as a line; plain only errors."),
    ] = "plain",
) -> None:
    """Open the app: restore photos taken in bad weather in your browser."""
    if auth is not None and not all(auth.partition(":")):
        raise typer.BadParameter("write user:password", param_hint="--auth")

    if (certificate is None) != (key is None):
        raise typer.BadParameter("a certificate and its key go together", param_hint="--certificate and --key")

    for file in filter(None, (certificate, key)):
        open(file).close()  # Gradio would look for another port instead of telling

    from mofme.ui.memory import MEMORY, SHARE, of_this_machine
    from mofme.ui.models import Engine, Services, shipped_models
    from mofme.ui.service import log_json
    from mofme.ui.window import Address, serve

    # A Hugging Face Space reaches the app from outside its container.
    if os.environ.get("SPACE_ID"):
        host = "0.0.0.0"
    user, _, password = (auth or "").partition(":")
    bytes_of_memory = SHARE * of_this_machine() if max_memory is None else 1e9 * max_memory
    megapixels = MEMORY.bound(bytes_of_memory, max_megapixels)
    services = Services(Engine(shipped_models()), limits=replace(Limits(), megapixels=megapixels))
    if log_format == "json":
        log_json()
    serve(services, Address(host, port, root_path, certificate, key), (user, password) if auth else None)
