"""The command line: every command by its name, and the one that opens the app."""

import os
import ssl
from collections.abc import Callable
from dataclasses import replace
from typing import Annotated, Literal

import typer

from mofme import __version__
from mofme.cli import bench, evaluate
from mofme.cli.measuring import Command, NamedPlaces, with_exit_codes
from mofme.cli.models import export, models
from mofme.cli.restore import restore, stream
from mofme.cli.results import results
from mofme.cli.train import synthesize, train, train_segmenter, train_tone
from mofme.errors import MofmeError
from mofme.papers.attention_router.command import attention_router
from mofme.papers.binaryconnect import command as binary
from mofme.papers.carrot import command as route
from mofme.papers.ladimo import command as moefy
from mofme.papers.mixture_of_routers.command import mixture_of_routers
from mofme.papers.moe_distillation import command as distil
from mofme.papers.mofme.command import ablation, routers
from mofme.papers.r2t2 import command as rerouting
from mofme.papers.router_robustness.command import robustness
from mofme.papers.smose import command as control
from mofme.ui.limits import Limits


@with_exit_codes
def open_app(
    command: Command,
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 lets other machines in.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = 7860,
    auth: Annotated[str | None, typer.Option(help="Ask for this user:password.")] = None,
    max_megapixels: Annotated[float, typer.Option(min=0.01, help="Refuse larger pictures.")] = Limits.megapixels,
    max_memory: Annotated[
        float | None,
        typer.Option(min=0.1, help="Gigabytes it may use; by default 80 % of the machine's, or of the container's."),
    ] = None,
    max_results: Annotated[
        float,
        typer.Option(
            min=0, help="Keep so many gigabytes of results; the oldest are removed first, and all after two hours."
        ),
    ] = 10,
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
        open(file).close()  # Gradio would look for another port instead of telling, here and below
    if certificate and key:
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key, password="")
        except ssl.SSLError as error:
            raise MofmeError(f"{certificate} and {key} are no certificate and its key ({error.reason}).") from error

    from mofme.ui.memory import MEMORY, SHARE, of_this_machine
    from mofme.ui.models import Engine, Services, shipped_models
    from mofme.ui.service import log_json
    from mofme.ui.uploads import RESULTS
    from mofme.ui.window import serve
    from mofme.vision.restorer import Restorer

    if os.environ.get("SPACE_ID"):  # Hugging Face reaches the app from outside its container
        host = "0.0.0.0"
    user, _, password = (auth or "").partition(":")
    bytes_of_memory = SHARE * of_this_machine() if max_memory is None else 1e9 * max_memory
    megapixels = MEMORY.bound(bytes_of_memory, max_megapixels)
    RESULTS.most_bytes = 1e9 * max_results
    engine = Engine(shipped_models(), speed_up=Restorer.fastest)
    services = Services(engine, limits=replace(Limits(), megapixels=megapixels))
    if log_format == "json":
        log_json()
    serve(services, host, port, (user, password) if auth else None, root_path, certificate, key)


app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    epilog="Exit codes: 0 all is well, 1 some items failed, 2 nothing was begun, 130 cancelled by Ctrl-C. "
    "A command that keeps what is finished goes on from there when it is started again.",
)

GROUPS = {
    "": app,
    "evaluate": typer.Typer(no_args_is_help=True, help="Measure on data with a known answer."),
    "evaluate rerouting": typer.Typer(
        no_args_is_help=True, help="Measure what test-time re-routing gains, beside its oracle and its controls."
    ),
    "bench": typer.Typer(),
    "binary": typer.Typer(no_args_is_help=True, help="Nets whose weights are one bit (BinaryConnect)."),
    "control": typer.Typer(no_args_is_help=True, help="Robots driven by one linear expert at a time (SMOSE)."),
    "route": typer.Typer(
        cls=route.PromptGroup,
        no_args_is_help=True,
        help='Choose the cheapest language model that will answer well, as in route "some prompt".',
    ),
}
COMMANDS: dict[str, Callable[..., None]] = {
    "app": open_app,
    "restore": restore,
    "stream": stream,
    "models": models,
    "export": export,
    "synthesize": synthesize,
    "train": train,
    "train-tone": train_tone,
    "train-segmenter": train_segmenter,
    "build-references": rerouting.build_references,
    "results": results,
    "moefy": moefy.moefy,
    "distil": distil.distil,
    "evaluate restoration": evaluate.restoration,
    "evaluate segmentation": evaluate.segmentation,
    "evaluate classification": evaluate.classification,
    "evaluate ablation": ablation,
    "evaluate routers": routers,
    "evaluate dense-to-moe": moefy.dense_to_moe,
    "evaluate distillation": distil.distillation,
    "evaluate attention-router": attention_router,
    "evaluate mixture-of-routers": mixture_of_routers,
    "evaluate rerouting pictures": rerouting.pictures,
    "evaluate rerouting text": rerouting.text,
    "bench restorers": bench.restorers,
    "bench runtimes": bench.runtimes,
    "bench cluster": bench.cluster,
    "bench service": bench.service,
    "bench routing-server": route.routing_server,
    "binary train": binary.train,
    "binary evaluate": binary.evaluate,
    "binary pack": binary.pack,
    "binary restorer": binary.restorer,
    "control train": control.train,
    "control evaluate": control.evaluate,
    "control explain": control.explain,
    "route prompt": route.prompt,
    "route train": route.train,
    "route evaluate": route.evaluate,
    "route robustness": robustness,
    "route simulate": route.simulate,
    "route serve": route.serve,
}


def _tell_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"mofme {__version__}")
        raise typer.Exit


@app.callback()
def mofme(
    version: Annotated[
        bool, typer.Option("--version", callback=_tell_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Clear pictures from rain, snow, raindrops and haze, by a mixture of feature-modulation experts."""


def main() -> None:
    """What an installed `mofme` runs."""
    app(prog_name="mofme")


for _name, _command in COMMANDS.items():
    _group, _, _word = _name.rpartition(" ")
    GROUPS[_group].command(_word, cls=NamedPlaces)(_command)
for _name in list(GROUPS)[1:]:
    _group, _, _word = _name.rpartition(" ")
    GROUPS[_group].add_typer(GROUPS[_name], name=_word)
GROUPS["bench"].callback(invoke_without_command=True)(bench.feed_forwards)
