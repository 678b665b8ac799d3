"""A visitor's own table: read within limits, judged, and a router trained on it beside the usual ones."""

import html
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet

from mofme.errors import TableError
from mofme.language.sentence_encoder import Queries, SentenceEncoder, groups_of
from mofme.language.tables.formats import load_table
from mofme.language.tables.table import RoutingTable
from mofme.measure.result import Result
from mofme.papers.carrot.baselines import BestSingle, Hull, TaskTable
from mofme.papers.carrot.carrot import CarrotRouter, PromptRouter
from mofme.papers.carrot.claim import JUDGED
from mofme.papers.carrot.comparison import Comparison, compare, milliseconds_to_choose, milliseconds_to_embed
from mofme.papers.carrot.curve import Curve, hull_of, worth_routing
from mofme.papers.carrot.experiment import as_result, mean_curve, measure
from mofme.papers.carrot.trained_router import TrainedRouter
from mofme.ui.chart import Point, cost_plot
from mofme.ui.html import result_tables
from mofme.ui.limits import Limits
from mofme.ui.runs import Job
from mofme.ui.uploads import without_folders

SPLITS = 3

_BATCH = 64
_UNPACKED = 10  # times the size of a file: Parquet is packed
_FEWEST = 50  # prompts below which a comparison says nothing
_TIMED = 10  # prompts


@dataclass(eq=False)
class CheckedTable:
    """An uploaded table, or what is wrong with it and what repairing it would leave."""

    table: RoutingTable | None = None
    problem: str = ""
    repaired: RoutingTable | None = None


@dataclass(eq=False)
class OwnRouter:
    """A router trained on a visitor's table, and how it did beside others on prompts held back."""

    router: TrainedRouter
    table: RoutingTable
    result: Result
    plot: str


def check_table(path: Path, repair: bool, limits: Limits) -> CheckedTable:
    """The uploaded table, if it can be used as it is or `repair` is asked for; else its problem."""
    try:
        return CheckedTable(_read(path, repair, limits))
    except TableError as error:
        problem = without_folders(str(error)).removesuffix(". Mend the file, or give --repair")
    try:
        return CheckedTable(problem=problem, repaired=_read(path, True, limits))
    except TableError:
        return CheckedTable(problem=problem)


def table_html(checked: CheckedTable) -> str:
    """What the table holds and whether routing can pay for it; or what is wrong, and what a repair would do."""
    if checked.table is None:
        offer = ""
        if checked.repaired is not None:
            done = "".join(f"<li>{html.escape(words)}</li>" for words in checked.repaired.repairs)
            offer = f"<p>It can be repaired, leaving {_size(checked.repaired)}:</p><ul>{done}</ul>"
        return f"<p class='problem'>{html.escape(checked.problem)}.</p>{offer}"
    table = checked.table
    verdict = worth_routing(table).verdict
    repairs = "".join(f"<li>{html.escape(words)}</li>" for words in table.repairs)
    return f"<p><b>{_size(table)}.</b> {html.escape(verdict[:1].upper() + verdict[1:])}.</p>" + (
        f"<p class='note'>Repaired:</p><ul class='note'>{repairs}</ul>" if repairs else ""
    )


def train_own(table: RoutingTable, estimator: str, job: Job) -> OwnRouter:
    """Train CARROT on the table and compare it on prompts held back. `estimator` is one of CARROT's.

    Raises TableError for too few prompts, ModelError for another estimator, MofmeError when the job is stopped or its
    time is up.
    """
    if len(table) < _FEWEST:
        raise TableError(f"{len(table)} prompts are too few to learn from and to be judged by: {_FEWEST} are needed.")
    encoder = SentenceEncoder(remember=False)  # a visitor's prompts leave no trace
    queries = _embed(encoder, table.prompts, job)
    carrot = CarrotRouter(estimator)
    carrot.name = JUDGED  # whichever way it estimates
    routers: list[PromptRouter] = [carrot, BestSingle(), Hull(), TaskTable()]
    done = 0

    def compared(_: str) -> None:
        nonlocal done
        job.report(0.6 + 0.35 * done / (SPLITS * len(routers)), "Training, and judging on prompts held back")
        done += 1

    comparison = compare(table, queries, routers, SPLITS, groups=groups_of(queries), report=compared)
    job.report(0.95, "Intervals")
    timed = queries.rows(comparison.trials[-1].test_n[:_TIMED])
    measured = measure(
        comparison,
        worth_routing(table),
        milliseconds_to_embed(encoder.queries, timed.prompts),
        {router.name: milliseconds_to_choose(router, timed) for router in routers},
        judged=[JUDGED],
    )
    job.check()
    carrot.fit(table, queries)
    result = as_result([measured], "the app, tab LLM routing", seed=0)
    return OwnRouter(TrainedRouter(carrot, encoder), table, result, _plot(comparison))


def own_html(own: OwnRouter) -> str:
    """How the visitor's router did beside others on prompts held back."""
    return (
        f"<p><b>{html.escape(own.result.verdict)}</b></p><div class='plots'>{own.plot}</div>"
        f"{result_tables(own.result)}<p class='note'>Intervals: {html.escape(own.result.interval)}.</p>"
    )


def _plot(comparison: Comparison) -> str:
    """Every model, and the curves of the routers that have a dial, on the prompts held back."""
    curves = {name: _points(hull_of(mean_curve(comparison, name))) for name in comparison.routers}
    models = dict(zip(comparison.table.models, _points(mean_curve(comparison, Hull.name)), strict=True))
    return cost_plot("Prompts held back", models, {name: curve for name, curve in curves.items() if len(curve) > 1})


def _points(curve: Curve) -> list[Point]:
    return [
        (1000 * cost, quality) for cost, quality in zip(curve.cost_S.tolist(), curve.quality_S.tolist(), strict=True)
    ]


def _embed(encoder: SentenceEncoder, prompts: tuple[str, ...], job: Job) -> Queries:
    parts = []
    for start in range(0, len(prompts), _BATCH):
        job.report(0.6 * start / len(prompts), "Reading the prompts")
        parts.append(encoder.embed(prompts[start : start + _BATCH]))
    return Queries(prompts, np.concatenate(parts))


def _read(path: Path, repair: bool, limits: Limits) -> RoutingTable:
    _check_size(path, limits)
    return _within(load_table(path, repair), limits)


def _check_size(path: Path, limits: Limits) -> None:
    """Before anything is unpacked."""
    if path.suffix.lower() not in (".csv", ".parquet"):
        raise TableError(f"{path.name} is neither CSV nor Parquet")
    size = path.stat().st_size
    if path.suffix.lower() == ".parquet":
        try:
            packed = pyarrow.parquet.read_metadata(path)
        except pyarrow.ArrowException as error:
            raise TableError(f"{path.name} is no Parquet file: {error}") from error
        size = max(
            size, sum(packed.row_group(group).total_byte_size for group in range(packed.num_row_groups)) // _UNPACKED
        )
    if size > limits.table_megabytes * 1e6:
        raise TableError(f"{path.name} is larger than the limit of {limits.table_megabytes:g} MB")


def _within(table: RoutingTable, limits: Limits) -> RoutingTable:
    if len(table) > limits.table_prompts:
        raise TableError(f"{len(table):,} prompts are more than the limit of {limits.table_prompts:,}: take a sample")
    if len(table.models) > limits.table_models:
        raise TableError(f"{len(table.models)} models are more than the limit of {limits.table_models}")
    if len(table.models) < 2:
        raise TableError("one model leaves nothing to choose")
    return table


def _size(table: RoutingTable) -> str:
    tasks = len(set(table.tasks))
    return f"{len(table):,} prompts, {len(table.models)} models" + (f", {tasks} tasks" if tasks > 1 else "")
