"""`python -m mofme bench`: what experts cost; `bench restorers`: whole restorers on the same pictures; and more."""

import typer

from mofme.cli.bench.feed_forwards import feed_forwards
from mofme.cli.bench.restorers import restorers
from mofme.cli.bench.routing_server import routing_server

app = typer.Typer()
app.callback(invoke_without_command=True)(feed_forwards)
app.command()(restorers)
app.command()(routing_server)
