"""SMOSE (arXiv 2412.13053): a robot is driven by one linear expert at a time, so that a person can read the policy.

The claim: on MuJoCo's robots such a policy earns nearly what a black box earns. `policy` is the mixture and its file,
`sac` how it learns (soft actor-critic), `training` the run, `trees` what explains it, `experiment` what we measured.

Our readings: the noise of the balance loss stays inside that loss; observations are standardised while it learns; the
batch is half of the paper's.

    python -m mofme control train Hopper --out runs/hopper
    python -m mofme control evaluate runs/
    python -m mofme control explain runs/hopper --picture tree.svg
"""

import math
from dataclasses import replace

from mofme.measure.result import Check, Figure, Judgement, Result, Row

# Mean returns that the paper reports for SMOSE (its main table), after a million steps.
PUBLISHED = {
    "Walker2d": 4224.0,
    "Hopper": 2816.0,
    "Ant": 3245.0,
    "HalfCheetah": 7310.0,
    "Reacher": -5.49,
    "Swimmer": 45.4,
}
NEARLY = 0.9  # of the paper's return
TREE_KEEPS = 90.0  # percent
_NEVER_BELOW_0 = ("Hopper",)  # it earns for every step that it stands
_EARNED = ("return", "kept, %")


def judge(result: Result) -> Result:
    """The same result with its verdict and its row of the ledger, read off its figures."""
    from mofme.measure.statistics import difference_of_means

    result = replace(result, rows=[_possible(row) for row in result.rows])
    robots = result.names("returns")
    returns = {name: result.figure("returns", name, "return") for name in robots}
    earned = {row.name: row.figures for row in result.rows if row.table == "returns"}
    linear = {name: figures["linear policy"] for name, figures in earned.items() if "linear policy" in figures}

    def above(name: str) -> Figure:
        """The mixture's return less that of the linear policy; without an interval where one has a single seed."""
        counts = int(earned[name]["seeds"].value), int(earned[name]["its seeds"].value)
        return difference_of_means(returns[name], linear[name], counts)

    counts = sorted({int(earned[name]["seeds"].value) for name in robots})
    seeds = " to ".join(str(count) for count in dict.fromkeys((counts[0], counts[-1])))
    steps = max(int(earned[name]["steps"].value) for name in robots)
    gates = [
        Check(
            f"return of the mixture in {name} above a linear policy's"
            + (", of which there is a single seed" if earned[name]["its seeds"].value < 2 else ""),
            above(name),
        )
        for name in linear
    ]
    judgement = Judgement(
        "one linear expert at a time drives a robot nearly as well as a black box, and a person can read it",
        "half the batch; observations standardised while learning; of a run its best check is kept",
        f"{len(robots)} of {len(PUBLISHED)} robots, {seeds} seeds and at most {steps:,} steps against 1,000,000",
        [Check(f"return in {name}", returns[name], _nearly(name)) for name in robots],
        gates,
        "a linear policy with as many seeds and steps, and more seeds of both",
    )
    better = [gate for gate in gates if gate.side > 0]
    said = [f"{name}: {returns[name].text()}, the paper {PUBLISHED[name]:,g}." for name in robots]
    if linear:
        fewer = [name for name in linear if earned[name]["its seeds"].value < earned[name]["seeds"].value]
        said.append(
            f"The mixture is above a plain linear policy, beyond the noise, in {len(better)} of {len(gates)} robots"
            + (f"; the linear one has fewer seeds in {len(fewer)}." if fewer else ".")
        )
    depths = [int(name.rsplit(" ", 1)[1]) for name in result.names("trees")]
    trees = [name for name in result.names("trees") if name.endswith(f"depth {max(depths)}")]
    keeping = {name.split(",")[0]: result.figure("trees", name, "kept, %") for name in trees}
    said += [f"In {name} a tree of depth {max(depths)} keeps {kept.value:.0f} %." for name, kept in keeping.items()]
    if keeping:
        certain = [name for name, kept in keeping.items() if kept.side(TREE_KEEPS) > 0]
        said.append(f"That it is over {TREE_KEEPS:.0f} % is beyond the noise for {', '.join(certain) or 'none'}.")
    return result.judged([judgement], said)


def _possible(row: Row) -> Row:
    """Three seeds that lie far apart have a Student's interval that ends where no policy could: it is cut there."""
    from mofme.measure.statistics import clipped

    robot = row.name.split(",")[0]
    figures = {
        name: clipped(
            figure,
            low=0.0 if name == "fidelity, %" or (robot in _NEVER_BELOW_0 and name in _EARNED) else -math.inf,
            high=100.0 if name == "fidelity, %" else math.inf,
        )
        for name, figure in row.figures.items()
    }
    return replace(row, figures=figures)


def _nearly(name: str) -> float:
    """What counts as nearly the paper's return; where returns are losses, a loss that is as much larger."""
    return PUBLISHED[name] * NEARLY if PUBLISHED[name] > 0 else PUBLISHED[name] / NEARLY
