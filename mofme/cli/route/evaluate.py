"""`python -m mofme route evaluate`: routers side by side on tables of models' answers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

if TYPE_CHECKING:
    from collections.abc import Callable

    from mofme.language.llm_routing.comparison_figures import Measured
    from mofme.language.llm_routing.table import RoutingTable

_TIMED = 50  # prompts, one by one


def evaluate(
    tables: Annotated[
        list[Path],
        typer.Argument(help="CSV, Parquet or JSON files, or folders, of prompts with each model's quality and cost."),
    ],
    splits: Annotated[int, typer.Option(min=1, help="How often to part the prompts anew into training and test.")] = 5,
    seed: Annotated[int, typer.Option(help="The same seed makes the same splits and routers.")] = 0,
    repair: Annotated[bool, typer.Option(help="Leave out rows that cannot be used, and say which.")] = False,
    models: Annotated[str, typer.Option(help="Only these models, with commas between; all for every one.")] = "",
    out: Annotated[
        Path | None, typer.Option(file_okay=False, help="Folder for llm_routing.json, curves as CSV and PNG.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON only.")] = False,
) -> None:
    """Compare CARROT with the hull of single models, a task table, routers between two models and the oracle.

    Every router learns from the same four fifths of the prompts and is judged on the rest; near copies are never
    parted. Exit code: 0 all is well, 2 nothing was measured.
    """
    from mofme.cli.results import show_result
    from mofme.errors import MofmeError
    from mofme.language.llm_routing.comparison_figures import as_plain
    from mofme.language.llm_routing.comparison_plot import plot_curves, write_curves
    from mofme.language.llm_routing.comparison_result import as_result
    from mofme.language.llm_routing.comparison_verdict import title
    from mofme.language.llm_routing.loaders import load_table
    from mofme.measure.result import save_result

    log = Console(stderr=True, highlight=False, soft_wrap=True)

    def report(message: str) -> None:
        log.print(message, markup=False)

    try:
        names = [name.strip() for name in models.split(",") if name.strip()] or None
        loaded = [load_table(path, repair=repair, models=names) for path in tables]
        _check_names([table.name for table in loaded])
        measured = [_measured(table, splits, seed, report) for table in loaded]
        result = as_result(measured, _command(tables, splits, seed, repair, models), seed)
        if out is not None:
            for one in measured:
                name = f"llm_routing-{one.comparison.table.name}"
                plot_curves(one.comparison, title(one), out / f"{name}.png")
                write_curves(one.comparison, out / f"{name}.csv")
            save_result(result, out)
    except (MofmeError, OSError) as error:
        log.print(f"error: {error}", style="red", markup=False)
        raise typer.Exit(2) from None
    if as_json:
        plain = [as_plain(one) for one in measured]
        by_table = {"tables": {one["table"]: one for one in plain}}
        typer.echo(
            json.dumps({**(plain[0] if len(plain) == 1 else {}), **by_table, "verdict": result.verdict}, indent=2)
        )
    else:
        show_result(result, as_json=False)


def _check_names(names: list[str]) -> None:
    from mofme.errors import TableError

    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise TableError(f"two tables are called {', '.join(twice)}: evaluate them one after the other")


def _measured(table: RoutingTable, splits: int, seed: int, report: Callable[[str], None]) -> Measured:
    from mofme.language.llm_routing.baselines import BestSingle, ComplexityRule, Hull, Oracle, PairRouter, TaskTable
    from mofme.language.llm_routing.carrot import CarrotRouter
    from mofme.language.llm_routing.comparison import compare
    from mofme.language.llm_routing.comparison_figures import measure
    from mofme.language.llm_routing.routing_time import milliseconds_to_choose, milliseconds_to_embed
    from mofme.language.llm_routing.sentence_encoder import SentenceEncoder
    from mofme.language.llm_routing.twins import groups_of
    from mofme.language.llm_routing.worth_routing import worth_routing

    for repaired in table.repairs:
        report(f"{table.name}: {repaired}")
    worth = worth_routing(table, seed)
    report(f"{table.name}: {worth.verdict}")
    report(f"{table.name}: embedding {len(table)} prompts")
    queries = SentenceEncoder().queries(table.prompts)
    carrots = [CarrotRouter(estimator, seed) for estimator in ("ensemble", "knn", "linear", "network")]
    pairs = [PairRouter(kind) for kind in ("logistic", "neighbours", "network", "forest")]
    routers = [BestSingle(), Hull(), TaskTable(), *carrots, *pairs, ComplexityRule(), Oracle(table)]
    comparison = compare(table, queries, routers, splits, seed, groups_of(queries), report)
    report(f"{table.name}: intervals and times")
    timed = queries.rows(comparison.trials[-1].test_n[:_TIMED])
    encoder = SentenceEncoder(remember=False)
    return measure(
        comparison,
        worth,
        milliseconds_to_embed(encoder.queries, timed.prompts),
        {router.name: milliseconds_to_choose(router, timed) for router in routers},
        judged=["carrot", "pair, logistic"],
        seed=seed,
    )


def _command(tables: list[Path], splits: int, seed: int, repair: bool, models: str) -> str:
    """What was typed, with the files' names only: where they lie differs from machine to machine."""
    words = ["python -m mofme route evaluate", *(path.resolve().name for path in tables)]
    words += [f"--splits {splits} --seed {seed}"] + ["--repair"] * repair
    words += [f"--models '{models}'"] if models else []
    return " ".join(words)
