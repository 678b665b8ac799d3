"""A visitor's own table of answers: read within limits, and a router trained on it beside the usual ones."""

import html
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet

from mofme.errors import TableError
from mofme.language.sentence_encoder import Queries, SentenceEncoder, groups_of
from mofme.language.tables.columns import is_parquet
from mofme.language.tables.formats import load_table
from mofme.language.tables.table import RoutingTable
from mofme.papers.carrot import JUDGED
from mofme.papers.carrot.baselines import BestSingle, Hull, TaskTable
from mofme.papers.carrot.carrot import CarrotRouter, PromptRouter
from mofme.papers.carrot.comparison import compare, milliseconds
from mofme.papers.carrot.curve import worth_routing
from mofme.papers.carrot.experiment import Measured, as_result, measure
from mofme.papers.carrot.trained_router import TrainedRouter
from mofme.ui.html import result_tables
from mofme.ui.limits import Limits
from mofme.ui.runs import Job

SPLITS = 3

_BATCH = 64
_UNPACKED = 10  # times the size of a file: Parquet is packed
_FEWEST = 50  # prompts below which a comparison says nothing
_TIMED = 10  # prompts


@dataclass(eq=False)
class OwnRouter:
    """A router trained on a visitor's table, and how it did beside others on prompts held back."""

    router: TrainedRouter
    measured: Measured


def read_own(path: Path, limits: Limits) -> RoutingTable:
    """A visitor's table without the rows that cannot be used: its `repairs` tell of them. Raises TableError."""
    _check_size(path, limits)
    table = load_table(path, repair=True)
    for count, most, what in (
        (len(table), limits.table_prompts, "prompts"),
        (len(table.models), limits.table_models, "models"),
    ):
        if count > most:
            raise TableError(f"{count:,} {what} are more than the limit of {most:,}: leave some out")
    if len(table.models) < 2:
        left_out = "".join(f"; {words}" for words in table.repairs)
        raise TableError(f"one model leaves nothing to choose{left_out}")
    return table


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
    carrot.name = JUDGED if estimator == "knn" else "your router"  # the paper's verdict is said of no other
    routers: list[PromptRouter] = [carrot, BestSingle(), Hull(), TaskTable()]
    done = 0

    def compared(_: str) -> None:
        nonlocal done
        job.report(0.6 + 0.35 * done / (SPLITS * len(routers)), "Training, and judging on prompts held back")
        done += 1

    comparison = compare(table, queries, routers, SPLITS, groups=groups_of(queries), report=compared)
    job.report(0.95, "Intervals")
    timed = queries.rows(comparison.trials[-1].test_n[:_TIMED])
    times = milliseconds(routers, timed, encoder.queries)
    measured = measure(comparison, worth_routing(table), *times, judged=[JUDGED])
    job.check()
    carrot.fit(table, queries)
    return OwnRouter(TrainedRouter(carrot, encoder), measured)


def own_html(own: OwnRouter) -> str:
    """What was left out of the table, whether routing pays for its models, and how their router did beside others."""
    table, result = own.measured.comparison.table, as_result([own.measured], "the app, tab LLM routing", seed=0)
    repairs = "".join(f"<li>{html.escape(words)}</li>" for words in table.repairs)
    verdict = own.measured.worth.verdict
    return (
        "<p><b>The prompt box above now asks your router.</b></p>"
        f"<p>{len(table):,} prompts, {len(table.models)} models: {html.escape(verdict)}.</p>"
        f"{repairs and f'<p>Repaired:</p><ul>{repairs}</ul>'}<p><b>{html.escape(result.verdict)}</b></p>"
        f"{result_tables(result)}<p class='note'>Intervals: {html.escape(result.interval)}.</p>"
    )


def _embed(encoder: SentenceEncoder, prompts: tuple[str, ...], job: Job) -> Queries:
    parts = []
    for start in range(0, len(prompts), _BATCH):
        job.report(0.6 * start / len(prompts), "Reading the prompts")
        parts.append(encoder.embed(prompts[start : start + _BATCH]))
    return Queries(prompts, np.concatenate(parts))


def _check_size(path: Path, limits: Limits) -> None:
    """Before anything is unpacked."""
    if path.suffix.lower() == ".gz":
        raise TableError(f"{path.name} is packed: unpack it first")
    size = path.stat().st_size
    if is_parquet(path):
        try:
            size = max(size, _unpacked(path, limits) // _UNPACKED)
        except (OSError, pyarrow.ArrowException) as error:
            raise TableError(f"{path.name} is no Parquet file: {error}") from error
    if size > limits.table_megabytes * 1e6:
        raise TableError(f"{path.name} is larger than the limit of {limits.table_megabytes:g} MB")


def _unpacked(path: Path, limits: Limits) -> int:
    """Bytes of all cells, as far as they matter: what the file tells counts once what repeats."""
    with pyarrow.parquet.ParquetFile(path) as packed:
        rows, most = packed.metadata.num_rows, limits.table_prompts * limits.table_models  # a row an answer at most
        if rows > most:
            raise TableError(f"{path.name} has {rows:,} rows, more than the limit of {most:,}: leave some out")
        size = 0
        for batch in packed.iter_batches(batch_size=32):
            size += batch.nbytes
            if size > _UNPACKED * limits.table_megabytes * 1e6:
                break
    return size
