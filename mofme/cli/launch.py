"""How `train` runs, until it is a command like the others."""

from collections.abc import Callable

from mofme.cli.measuring import Command


def launch(train: Callable[..., object], plan: object, **options: object) -> None:
    """Train by the plan, with the log and the exit codes of every command."""
    command = Command()
    with command.exit_codes():
        train(plan, report=command.tell, **options)
