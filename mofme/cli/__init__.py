"""The command line: one file a command, registered here."""

import importlib

import typer

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Clear pictures from rain, snow, raindrops and haze, by a mixture of feature-modulation experts.",
)

for _name in ("restore", "models", "synthesize", "train", "results", "moefy", "distil"):
    app.command(_name)(getattr(importlib.import_module(f"mofme.cli.{_name}"), _name))
app.command("train-segmenter")(importlib.import_module("mofme.cli.train_segmenter").train_segmenter)
app.command("train-tone")(importlib.import_module("mofme.cli.train_tone").train_tone)
app.command("build-references")(importlib.import_module("mofme.cli.build_references").build_references)
app.add_typer(importlib.import_module("mofme.cli.binary").app, name="binary")
app.add_typer(importlib.import_module("mofme.cli.bench").app, name="bench")
app.add_typer(importlib.import_module("mofme.cli.evaluate").app, name="evaluate")
app.add_typer(importlib.import_module("mofme.cli.route").app, name="route")
app.add_typer(importlib.import_module("mofme.cli.control").app, name="control")
