"""How the commands that train a net for pictures run it."""

from collections.abc import Callable

import typer

from mofme.errors import MofmeError


def launch(train: Callable[..., object], plan: object, **options: object) -> None:
    """Train by the plan, telling on standard error how it goes; exit with 1 for what a user can mend."""
    try:
        train(plan, report=lambda line: typer.echo(line, err=True), **options)
    except MofmeError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from None
