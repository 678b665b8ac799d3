"""`python -m mofme route`: which language model to ask. One file a subcommand, registered here."""

import importlib

import typer
from typer.core import TyperGroup


class _PromptGroup(TyperGroup):
    """`route "some prompt"` is `route prompt "some prompt"`: a first word that is no subcommand is the prompt."""

    def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:  # type: ignore[override]
        if args and args[0] not in self.commands and args[0] not in ctx.help_option_names:
            args = ["prompt", *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    cls=_PromptGroup,
    no_args_is_help=True,
    help='Choose the cheapest language model that will answer a prompt well: route "some prompt".',
)

for _name in (
    "prompt",
    "train",
    "robustness",
    "serve",
    "evaluate",
    "simulate",
):
    app.command(_name)(getattr(importlib.import_module(f"mofme.cli.route.{_name}"), _name))
