"""`python -m mofme route`: which language model to ask (CARROT), and the endpoint that asks it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from typer.core import TyperGroup

from mofme.cli.measuring import Command, measures, with_exit_codes
from mofme.measure.result import Result

if TYPE_CHECKING:
    from mofme.language.tables.table import RoutingTable
    from mofme.papers.carrot.experiment import Measured
    from mofme.papers.carrot.trained_router import Routed

Router = Annotated[str, typer.Option(help="Name of a shipped router, or folder of one that `train` wrote.")]
Repair = Annotated[bool, typer.Option(help="Leave out rows that cannot be used, and say which.")]

_TIMED = 50  # prompts, one by one
_SIMULATED = range(20)  # seeds


class PromptGroup(TyperGroup):
    """`route "some prompt"` is `route prompt "some prompt"`: a first word that is no subcommand is the prompt."""

    def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:  # type: ignore[override]
        if args and args[0] not in self.commands and args[0] not in ctx.help_option_names:
            args = ["prompt", *args]
        return super().parse_args(ctx, args)


@with_exit_codes
def prompt(
    command: Command,
    prompt: Annotated[str, typer.Argument(help="The prompt, in quotes.")],
    budget: Annotated[float | None, typer.Option(min=0, help="Most dollars that this prompt may cost.")] = None,
    cost_weight: Annotated[
        float | None, typer.Option(min=0, max=1, help="0 where quality alone counts, 1 where cost alone does.")
    ] = None,
    quality: Annotated[
        float | None, typer.Option(min=0, max=1, help="Least quality to expect, at the lowest cost.")
    ] = None,
    router: Router = "router",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON only.")] = False,
) -> None:
    """Choose a model for a prompt by --budget, --cost-weight or --quality, or else the best."""
    from mofme.papers.carrot.trained_router import TrainedRouter

    if sum(given is not None for given in (budget, cost_weight, quality)) > 1:
        raise typer.BadParameter("give one of --budget, --cost-weight and --quality")
    if not prompt.strip():
        raise typer.BadParameter("the prompt is blank")
    routed = TrainedRouter.from_pretrained(router).route(prompt, cost_weight, budget, quality)
    if as_json:
        typer.echo(json.dumps(routed.as_json(), indent=1))
    else:
        _show(routed)
    if routed.missed:
        command.tell(routed.missed)


def _show(routed: Routed) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("model", "expected quality", "expected cost, $", box=None)
    for index in (-routed.quality_M).argsort():
        name = routed.models[index]
        chosen = "bold green" if name == routed.model else None
        table.add_row(name, f"{routed.quality_M[index]:.3f}", f"{routed.cost_M[index]:.6f}", style=chosen)
    console = Console(highlight=False, markup=False)
    console.print(f"ask {routed.model}")
    console.print(table)


@with_exit_codes
def train(
    command: Command,
    table: Annotated[
        Path, typer.Argument(help="CSV, Parquet or JSON, or a folder, of prompts with each model's quality and cost.")
    ],
    out: Annotated[Path, typer.Option(file_okay=False, help="Folder for the router.")],
    estimator: Annotated[str, typer.Option(help="ensemble, knn, linear or network.")] = "ensemble",
    seed: Annotated[int, typer.Option(help="The same seed trains the same router.")] = 0,
    prices: Annotated[
        Path | None, typer.Option(help="JSON of dollars per million tokens, in place of those of the table.")
    ] = None,
    repair: Repair = False,
    licence: Annotated[str, typer.Option(help="Licence of the table, for the card.")] = "unknown",
) -> None:
    """Train a router and write it with its card, but none of the prompts."""
    from mofme.language.tables.formats import load_table
    from mofme.language.tables.published import Prices
    from mofme.papers.carrot.trained_router import train_router

    loaded = load_table(table, repair, prices=Prices.load(prices) if prices else None)
    for sentence in loaded.repairs:
        command.tell(sentence)
    card = train_router(loaded, out, estimator, seed, licence, command.tell)
    for name, figure in card.metrics.items():
        command.tell(f"{name}: {figure}")
    command.tell(f"{out}: {card.parameters:,} numbers")


@with_exit_codes
def serve(
    command: Command,
    config: Annotated[Path, typer.Argument(help="YAML file of backends and rule, as assets/serve.yaml explains.")],
    host: Annotated[str | None, typer.Option(help="Address to listen on, in place of the file's.")] = None,
    port: Annotated[int | None, typer.Option(min=1, max=65535, help="Port, in place of the file's.")] = None,
    router: Router = "router",
    check: Annotated[bool, typer.Option("--check", help="Check file, keys and router, then exit.")] = False,
) -> None:
    """Answer /v1/chat/completions by the cheapest model expected to answer well, with counters at /metrics."""
    from mofme.errors import ConfigError
    from mofme.language.sentence_encoder import SentenceEncoder
    from mofme.papers.carrot.serving.config import load_config
    from mofme.papers.carrot.serving.endpoint import KEEP_ALIVE, create_app
    from mofme.papers.carrot.trained_router import TrainedRouter

    changes = {name: value for name, value in (("host", host), ("port", port)) if value is not None}
    settings = load_config(config, **changes)
    encoder = SentenceEncoder(remember=False)  # for the cache of answers; nothing is loaded until it is used
    trained = TrainedRouter.from_pretrained(router)
    app = create_app(settings, trained, lambda text: encoder.embed([text])[0])
    trained.route("the first prompt takes longest: let no client wait for it", **settings.rule.dial())
    names = ", ".join(backend.name for backend in settings.backends)
    if check:
        command.tell(f"{config} is fine: {names}")
        return
    import uvicorn

    shown = f"[{settings.host}]" if ":" in settings.host else settings.host
    command.tell(f"http://{shown}:{settings.port}/v1 routes to {names}; Ctrl+C stops it")
    try:
        uvicorn.run(
            app,
            host=settings.host,
            port=settings.port,
            log_level="warning",
            access_log=False,
            proxy_headers=False,
            server_header=False,
            ws="none",
            timeout_keep_alive=KEEP_ALIVE,
            timeout_graceful_shutdown=10,
        )
    except SystemExit:  # it has said why
        raise ConfigError(f"{shown}:{settings.port} cannot be listened on: choose another --port or --host") from None


@measures("llm_serving.json")
def routing_server(
    command: Command,
    clients: Annotated[int, typer.Option(min=1, help="Clients that ask at once.")] = 50,
    requests: Annotated[int, typer.Option(min=10, help="Requests of all clients together.")] = 500,
    router: Router = "router",
) -> Result:
    """Measure what `route serve` adds to a request's time, and whether it loses answers, on fake backends."""
    from mofme.papers.carrot.serving.load_test import DrawingRouter, as_result, measure_overhead, measure_storm
    from mofme.papers.carrot.trained_router import TrainedRouter

    routers = {
        "without routing": DrawingRouter(),
        "with a trained router": DrawingRouter(TrainedRouter.from_pretrained(router)),
    }
    overheads = {name: measure_overhead(requests, each) for name, each in routers.items()}
    storms = {name: measure_storm(clients, requests, each) for name, each in routers.items()}
    for name, storm in storms.items():
        lost, doubled = storm["lost"].value, storm["doubled"].value
        if lost or doubled:
            command.fail(f"{name}: {lost:.0f} answers were lost, {doubled:.0f} came twice")
    return as_result(overheads, storms, clients, command.line)


@measures("llm_routing_rate.json")
def simulate(
    command: Command,
    largest: Annotated[
        int, typer.Option(min=4000, help="Most recorded queries, of 1,000, 4,000, 16,000 and so on.")
    ] = 1_024_000,
) -> Result:
    """Simulate routers where the best choice is known, and print how fast the plug-in rule's excess risk falls."""
    import numpy as np

    from mofme.papers.carrot.simulation import WORLDS, as_result, simulate

    sizes = [1000 * 4**power for power in range(10) if 1000 * 4**power <= largest]
    excess = {
        world: np.array([[simulate(world, n, seed) for seed in _SIMULATED] for n in sizes])
        for world in command.track(WORLDS, "worlds")
    }
    return as_result(excess, sizes, list(_SIMULATED), command.line)


@measures("llm_routing.json, and a plot of each table")
def evaluate(
    command: Command,
    tables: Annotated[
        list[Path],
        typer.Argument(help="CSV, Parquet or JSON files, or folders, of prompts with each model's quality and cost."),
    ],
    splits: Annotated[int, typer.Option(min=1, help="How often to part the prompts anew into training and test.")] = 5,
    seed: Annotated[int, typer.Option(help="The same seed makes the same splits and routers.")] = 0,
    repair: Repair = False,
    models: Annotated[str, typer.Option(help="Only these models, with commas between.")] = "",
) -> Result:
    """Compare CARROT with the hull of single models, a task table, routers between two models and the oracle."""
    from mofme.errors import TableError
    from mofme.language.tables.formats import load_table
    from mofme.papers.carrot.experiment import as_result, plot_curves

    only = [name.strip() for name in models.split(",") if name.strip()] or None
    loaded = [load_table(path, repair=repair, models=only) for path in tables]
    names = [table.name for table in loaded]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise TableError(f"two tables are called {', '.join(twice)}: evaluate them one after the other")
    measured = [_measured(command, table, splits, seed) for table in loaded]
    if command.out is not None:
        for one in measured:
            plot_curves(one, command.out / f"llm_routing-{one.comparison.table.name}.png")
    return as_result(measured, command.line, seed)


def _measured(command: Command, table: RoutingTable, splits: int, seed: int) -> Measured:
    from mofme.language.sentence_encoder import SentenceEncoder, groups_of
    from mofme.papers.carrot.baselines import BestSingle, ComplexityRule, Hull, Oracle, PairRouter, TaskTable
    from mofme.papers.carrot.carrot import CarrotRouter
    from mofme.papers.carrot.comparison import compare, milliseconds
    from mofme.papers.carrot.curve import worth_routing
    from mofme.papers.carrot.experiment import measure

    for repaired in table.repairs:
        command.tell(f"{table.name}: {repaired}")
    worth = worth_routing(table, seed)
    command.tell(f"{table.name}: {worth.verdict}")
    command.tell(f"{table.name}: embedding {len(table)} prompts")
    queries = SentenceEncoder().queries(table.prompts)
    carrots = [
        CarrotRouter("knn", seed, "knn"),
        CarrotRouter("knn", seed, "means", "carrot, mean costs"),
        *(CarrotRouter(estimator, seed) for estimator in ("ensemble", "linear", "network")),
    ]
    pairs = [PairRouter(kind) for kind in ("logistic", "neighbours", "network", "forest")]
    routers = [BestSingle(), Hull(), TaskTable(), *carrots, *pairs, ComplexityRule(), Oracle(table)]
    comparison = compare(table, queries, routers, splits, seed, groups_of(queries), command.tell)
    command.tell(f"{table.name}: intervals and times")
    timed = queries.rows(comparison.trials[-1].test_n[:_TIMED])
    return measure(
        comparison,
        worth,
        *milliseconds(routers, timed, SentenceEncoder(remember=False).queries),
        judged=["carrot", "stacked ensemble", "pair, logistic"],
        seed=seed,
    )
