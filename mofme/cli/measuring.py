"""What all commands share: a log on standard error, one table of exit codes, and for those that measure `--out`,
`--json` and the command line that is recorded with the result.

    @measures("llm_routing_rate.json")
    def simulate(command: Command, largest: Annotated[int, typer.Option()] = 1_024_000) -> Result:
        excess = [...]
        return as_result(excess, command.line)

Options that several commands have are the fields of a dataclass, which they take as one parameter.
"""

from __future__ import annotations

import inspect
import json
import os
import shlex
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from enum import IntEnum
from functools import update_wrapper
from pathlib import Path
from typing import Annotated, Any, Concatenate, ParamSpec, TypeVar, get_args

import typer
from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from typer.core import TyperCommand

from mofme.errors import Cancelled, MofmeError
from mofme.files import check_can_hold, in_words, printable
from mofme.measure.result import Result

P = ParamSpec("P")
T = TypeVar("T")


class ExitCode(IntEnum):
    """How a command ends: the same for all of them."""

    ALL_WELL = 0
    SOME_FAILED = 1
    NOTHING_BEGUN = 2
    CANCELLED = 130


class Command:
    """A command that runs: its log, the folder for its files, and `line`, which anyone types to run it again."""

    def __init__(self, line: str = "", out: Path | None = None) -> None:
        self.line = line
        self.out = out
        self.failed = False
        self.console = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)

    def tell(self, line: str) -> None:
        """Log a line."""
        self.console.print(printable(line))

    def fail(self, line: str) -> None:
        """Log what became of one item; the command goes on with the others and ends with SOME_FAILED."""
        self.failed = True
        self.console.print(printable(line), style="red")

    def progress(self) -> Progress:
        """Bars below the log, to be entered by `with`."""
        title = TextColumn("{task.description}", markup=False)
        columns = (title, BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        return Progress(*columns, console=self.console, transient=True)

    def track(self, items: Iterable[T], title: str, total: int | None = None) -> Iterator[T]:
        """The items, with a bar for how many have come."""
        with self.progress() as progress:
            yield from progress.track(items, total, description=title)

    @contextmanager
    def counting(self, title: str) -> Iterator[Callable[..., None]]:
        """A bar, as what is to be called with how much is done and of how much, or with the share that is done."""
        with self.progress() as progress:
            task = progress.add_task(title, total=None)

            def show(done: float, total: float = 1.0) -> None:
                progress.update(task, completed=done, total=total)

            yield show

    @contextmanager
    def exit_codes(self) -> Iterator[None]:
        """Turn what happens inside into one of the exit codes, and errors meant for the user into a line."""
        try:
            yield
        except (KeyboardInterrupt, Cancelled):
            self.tell("cancelled")
            raise typer.Exit(ExitCode.CANCELLED) from None
        except (MofmeError, OSError) as error:
            why = in_words(error) if isinstance(error, OSError) else error
            for line in f"error: {why}".split("\n"):  # some name several faults, one a line
                self.console.print(printable(line), style="red")
            raise typer.Exit(ExitCode.NOTHING_BEGUN) from None
        if self.failed:
            raise typer.Exit(ExitCode.SOME_FAILED)


class NamedPlaces(TyperCommand):
    """A command that takes no file or folder called "", as of an unset variable: Path would make this folder of it."""

    def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:  # type: ignore[override]
        typed, _, _ = self.make_parser(ctx).parse_args([*args])
        parameter: Any
        for parameter in self.params:
            kind, value = parameter.type_descriptor.annotation, typed.get(parameter.name)
            if Path in (kind, *get_args(kind)) and "" in (value if isinstance(value, (list, tuple)) else [value]):
                raise typer.BadParameter("this name is empty; write . for the folder you are in.", ctx, parameter)
        return super().parse_args(ctx, args)


def with_exit_codes(function: Callable[Concatenate[Command, P], None]) -> Callable[..., None]:
    """Make a command of a function that takes its Command first."""

    def run(context: typer.Context, **options: Any) -> None:
        command = Command()
        with command.exit_codes():
            function(command, **_grouped(function, options))  # type: ignore[call-arg]

    return _with_parameters(run, function)


def measures(
    files: str, around: Collection[str] = ()
) -> Callable[[Callable[Concatenate[Command, P], Result]], Callable[..., None]]:
    """Make a command of a function that measures: adds `--out`, a folder for `files`, and `--json`.

    Its folders are recorded by their names alone; those of the parameters `around` with the folder around them, as
    `val/images` says more than `images`.
    """

    def decorate(function: Callable[Concatenate[Command, P], Result]) -> Callable[..., None]:
        def run(context: typer.Context, out: Path | None, as_json: bool, **options: Any) -> None:
            from mofme.measure.result import as_plain, save_result

            if context.invoked_subcommand is not None:  # this one stands at the top of a group
                return
            command = Command(recorded_line(context, around), out)
            with command.exit_codes():
                if out is not None:  # before hours of work
                    check_can_hold(out / "result.json")
                result = function(command, **_grouped(function, options))  # type: ignore[call-arg]
                if out is not None:
                    save_result(result, out)
                if as_json:
                    typer.echo(json.dumps(as_plain(result), indent=2))
                else:
                    print_result(result)

        folder = Annotated[Path | None, typer.Option(file_okay=False, help=f"Folder for {files}.")]
        switch = Annotated[bool, typer.Option("--json", help="Print JSON only.")]
        return _with_parameters(run, function, _parameter("out", folder, None), _parameter("as_json", switch, False))

    return decorate


def print_result(result: Result) -> None:
    """Tables, verdict and source, for people."""
    console = Console(highlight=False, markup=False)
    for title, (headings, lines) in result.tables().items():
        table = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left", padding=(0, 1, 0, 0))
        for column, heading in enumerate(headings):
            table.add_column(heading, justify="right" if column else "left")
        for line in lines:
            table.add_row(*line)
        console.print(table)
    console.print(result.verdict)
    console.print(result.source(), style="dim")


def recorded_line(context: typer.Context, around: Collection[str] = ()) -> str:
    """The command and every option that was typed, but for where the result goes and how it is shown; files by name."""
    words: list[str] = []
    for parameter in context.command.params:
        name = str(parameter.name)
        source = context.get_parameter_source(name)
        if name in ("out", "as_json") or source is None or source.name != "COMMANDLINE":
            continue
        value = context.params[name]
        if isinstance(value, bool):
            words.append((parameter.opts if value else parameter.secondary_opts)[0])
            continue
        for one in value if isinstance(value, list) else [value]:
            words += [parameter.opts[0]] * (parameter.param_type_name == "option")
            words.append(_without_place(one, parts=2 if name in around else 1))
    names: list[str] = []
    level: Any = context
    while level.parent is not None:
        names.insert(0, str(level.info_name))
        level = level.parent
    return " ".join(["python -m mofme", shlex.join([*names, *words])])


def _without_place(value: object, parts: int) -> str:
    if isinstance(value, Path) or (isinstance(value, str) and os.path.exists(value)):
        return "/".join(Path(os.path.abspath(value)).parts[-parts:])
    return str(value)


def _with_parameters(
    run: Callable[..., None], function: Callable[..., Any], *added: inspect.Parameter
) -> Callable[..., None]:
    """`run` as typer is to see it: with the parameters of `function`, less its Command, and those that are added."""
    own = [option for parameter in _parameters(function) for option in _options(parameter)]
    parameters = [_parameter("context", typer.Context), *own, *added]
    update_wrapper(run, function)
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return run


def _parameters(function: Callable[..., Any]) -> list[inspect.Parameter]:
    return list(inspect.signature(function, eval_str=True).parameters.values())[1:]


def _options(parameter: inspect.Parameter) -> list[inspect.Parameter]:
    """The parameter itself, or of a dataclass its fields. In a signature of keywords alone those may stand anywhere."""
    group = _group(parameter)
    options = [parameter] if group is None else inspect.signature(group, eval_str=True).parameters.values()
    return [option.replace(kind=inspect.Parameter.POSITIONAL_OR_KEYWORD) for option in options]


def _grouped(function: Callable[..., Any], options: dict[str, Any]) -> dict[str, Any]:
    """The options as `function` takes them."""
    for parameter in _parameters(function):
        if (group := _group(parameter)) is not None:
            options[parameter.name] = group(**{one.name: options.pop(one.name) for one in _options(parameter)})
    return options


def _group(parameter: inspect.Parameter) -> Callable[..., Any] | None:
    kind: Callable[..., Any] = parameter.annotation
    return kind if hasattr(kind, "__dataclass_fields__") else None


def _parameter(name: str, annotation: Any, default: Any = inspect.Parameter.empty) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=default, annotation=annotation)
