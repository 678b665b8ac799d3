"""`python -m mofme control`: robots driven by policies that a person can read. One file a subcommand."""

import importlib

import typer

app = typer.Typer(no_args_is_help=True, help="Robots driven by one linear expert at a time, which a person can read.")

for _name in ("train", "evaluate", "explain"):
    app.command(_name)(getattr(importlib.import_module(f"mofme.cli.control.{_name}"), _name))
