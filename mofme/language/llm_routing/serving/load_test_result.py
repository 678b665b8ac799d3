"""What was measured of the endpoint, in the schema of all results."""

from collections.abc import Mapping

import numpy as np
import torch

from mofme.language.llm_routing.serving.load_test import Overhead, Storm
from mofme.language.tables.table import FloatArray
from mofme.measure.result import Figure, Result, Row, this_machine
from mofme.measure.statistics import bootstrap

_RESAMPLES = 1000


def as_result(overheads: Mapping[str, Overhead], storms: Mapping[str, Storm], command: str) -> Result:
    """Overheads and storms by the name of what routed."""
    total = sum(storm.requests for storm in storms.values())
    lost, doubled = (sum(getattr(storm, what) for storm in storms.values()) for what in ("lost", "duplicated"))
    parts = [f"{_added(o).value:.1f} ms {name} ({_added_cpu(o).value:.1f} of CPU)" for name, o in overheads.items()]
    clients = next(iter(storms.values())).clients
    return Result(
        room="llm_serving",
        paper="CARROT (arXiv 2502.03261)",
        claim="None about serving; ours: 50 clients lose no answer and get none twice while a backend dies.",
        verdict=f"Of {total} requests of {clients} clients at once, {lost} were lost and {doubled} doubled while one "
        f"of two backends died; the endpoint added {' and '.join(parts)} to a request at the median.",
        command=command,
        rows=[_overhead_row(name, overhead) for name, overhead in overheads.items()]
        + [_storm_row(name, storm) for name, storm in storms.items()],
        seeds=(0,),
        machine=this_machine(threads=torch.get_num_threads()),
        interval=f"95 %, of the median, {_RESAMPLES} bootstrap resamples of the requests",
    )


def _overhead_row(name: str, overhead: Overhead) -> Row:
    return Row(
        "one request at a time",
        name,
        {
            "backend alone, ms": _median(overhead.direct * 1e3),
            "added by the endpoint, ms": _added(overhead),
            "added at the 95th percentile, ms": Figure(
                float(np.quantile(overhead.through - overhead.direct, 0.95)) * 1e3
            ),
            "CPU added, ms": _added_cpu(overhead),
        },
    )


def _storm_row(name: str, storm: Storm) -> Row:
    return Row(
        f"{storm.clients} clients at once, one of two backends dies",
        name,
        {
            "requests": Figure(storm.requests),
            "lost": Figure(storm.lost),
            "doubled": Figure(storm.duplicated),
            "answered by the other backend": Figure(storm.fallbacks),
            "requests per second": Figure(storm.requests / storm.seconds),
            "median time, ms": Figure(float(np.median(storm.latencies)) * 1e3),
        },
    )


def _added(overhead: Overhead) -> Figure:
    return _median((overhead.through - overhead.direct) * 1e3)


def _added_cpu(overhead: Overhead) -> Figure:
    return _median((overhead.cpu_through - overhead.cpu_direct) * 1e3)


def _median(values: FloatArray) -> Figure:
    return bootstrap(values, np.median, _RESAMPLES)
