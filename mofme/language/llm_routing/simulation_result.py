"""From the simulated excess risks to the tables and the verdict beside CARROT's claim."""

from collections.abc import Mapping, Sequence

import numpy as np

from mofme.language.llm_routing.simulation import POLICIES, World, slope_of
from mofme.language.llm_routing.table import FloatArray
from mofme.measure.result import Figure, Result, Row

SLOPES = "Exponent of n in the excess risk"
THEORY = "best possible"
LATE = f"{POLICIES[0]}, three largest n"


def as_result(excess: Mapping[World, FloatArray], sizes: Sequence[int], seeds: Sequence[int], command: str) -> Result:
    """`excess` holds for each world an array (sizes, seeds, policies)."""
    slopes = {
        world: [slope_of(sizes, excess_NSP[:, :, p]) for p in range(len(POLICIES))]
        + [slope_of(sizes[-3:], excess_NSP[-3:, :, 0])]
        for world, excess_NSP in excess.items()
    }
    rows = [
        Row(SLOPES, world.name, {THEORY: Figure(world.rate), **dict(zip([*POLICIES, LATE], figures, strict=True))})
        for world, figures in slopes.items()
    ]
    for world, excess_NSP in excess.items():
        mean_NP = 1000 * excess_NSP.mean(1)
        error_NP = 1.96 * 1000 * excess_NSP.std(1, ddof=1) / np.sqrt(len(seeds))
        for n, mean_P, error_P in zip(sizes, mean_NP, error_NP, strict=True):
            figures = {
                policy: Figure(float(mean), float(mean - error), float(mean + error))
                for policy, mean, error in zip(POLICIES, mean_P, error_P, strict=True)
            }
            rows.append(Row(f"Excess risk x 1000, {world.name}", f"n = {n:,}", figures))
    return Result(
        room="llm_routing_rate",
        paper="CARROT, arXiv 2502.03261",
        claim="The plug-in rule is minimax rate-optimal: for smoothness g, margin a and d dimensions its excess risk "
        "falls as n^(-g (1 + a) / (2 g + d)), the best possible.",
        verdict=_verdict(slopes),
        command=command,
        rows=rows,
        seeds=seeds,
        interval="95 %, over the seeds: bootstrap for exponents, normal for risks",
    )


def _verdict(slopes: Mapping[World, Sequence[Figure]]) -> str:
    best = ", ".join(f"{figures[0].value:.2f} (best possible {world.rate:.2f})" for world, figures in slopes.items())
    short, late = (max(figures[i].value - world.rate for world, figures in slopes.items()) for i in (0, -1))
    faster = sum(figures[1].value <= world.rate for world, figures in slopes.items())
    controls = [figure.value for figures in slopes.values() for figure in (figures[2], figures[4])]
    return (
        f"With windows of the optimal order the plug-in rule's excess risk falls with n to the power of {best}: at "
        f"most {short:.2f} short of it over all n, {late:.2f} over the three largest; with windows found by hold-out "
        f"it falls at least as fast in {faster} of {len(slopes)} worlds, these being smoother than the worst of their "
        f"kind; with windows that never gather more than 64 queries, and with one model for all, it hardly falls "
        f"({min(controls):.2f} to {max(controls):.2f})."
    )
