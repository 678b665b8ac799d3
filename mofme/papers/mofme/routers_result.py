"""From the scores of every router, seed and picture to the tables and the verdict."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mofme.measure.result import Figure, Result, Row, this_machine
from mofme.measure.statistics import FloatArray, bootstrap, students_mean
from mofme.papers.mofme.ablation import Recipe
from mofme.papers.mofme.ablation_result import MEAN, METRICS, Measured, difference
from mofme.vision.benchmark import Arm
from mofme.vision.weather import WEATHERS

LINEAR = Arm("mofme-linear", 16)
ROUTERS: Mapping[Arm, str] = {
    LINEAR: "linear",
    Arm("mofme-sampled", 16): "uncertainty-aware, sampled",
    Arm("mofme", 16): "uncertainty-aware, closed form",
    Arm("mofme-attention", 16): "attention",
    Arm("mofme-mixture", 16): "mixture of two",
}
PSNR = METRICS["psnr_rgb"]
_OVER_SEEDS = "gain, dB (seeds)"


@dataclass(frozen=True)
class Cost:
    """Parameters of a net and of its routers alone, and the CPU time of one picture in every repeat."""

    parameters: int
    router_parameters: int
    milliseconds: FloatArray


@dataclass(frozen=True)
class Comparison:
    """What every router measured, in the order of `ROUTERS`, and what it costs. `pictures` were measured."""

    measured: Sequence[Measured]
    costs: Mapping[Arm, Cost]
    recipe: Recipe
    pictures: int


def as_result(found: Comparison, seeds: Sequence[int], command: str) -> Result:
    """All of it, beside what the papers claim of their routers."""
    return Result(
        room="routers",
        paper="MoFME, Mixture of Routers, Yuan 2.0-M32 (arXiv 2312.16610, 2503.23362, 2405.17976)",
        claim="Each of the three papers finds its router better than a linear one: by 0.1 to 0.2 dB in restoration, by "
        "about 1 % on average, by 0.008 nats",
        verdict=_verdict(found),
        command=command,
        rows=[*quality_rows(found), *difference_rows(found), *_cost_rows(found)],
        seeds=list(seeds),
        interval="95 %; Student's over the seeds, bootstrap over pictures, bootstrap of the median over the repeats "
        "for times",
        machine=this_machine(threads=1),
    )


def quality_rows(found: Comparison) -> list[Row]:
    """PSNR of each router on each weather; the interval is over the seeds."""
    rows = []
    for one in found.measured:
        psnr_SWP = _psnr(one)
        columns = {**dict(zip(WEATHERS, psnr_SWP.mean(axis=2).T, strict=True)), MEAN: psnr_SWP.mean((1, 2))}
        figures = {name: students_mean(values_S) for name, values_S in columns.items()}
        rows.append(Row(PSNR, ROUTERS[one.arm], figures))
    return rows


def difference_rows(found: Comparison) -> list[Row]:
    """What each router gains over the linear one, and each of the others over the paper's closed form."""
    by_arm = {one.arm: one for one in found.measured}
    pairs = [(arm, LINEAR) for arm in ROUTERS if arm != LINEAR]
    pairs += [(arm, Arm("mofme", 16)) for arm in ROUTERS if arm not in (LINEAR, Arm("mofme", 16))]
    return [
        Row("differences", f"{ROUTERS[first]} minus {ROUTERS[second]}", difference(by_arm[first], by_arm[second]))
        for first, second in pairs
    ]


def _cost_rows(found: Comparison) -> list[Row]:
    linear = found.costs[LINEAR].milliseconds
    return [
        Row(
            "cost",
            ROUTERS[arm],
            {
                "parameters": Figure(cost.parameters),
                "of these in routers": Figure(cost.router_parameters),
                "CPU time of a picture, ms": bootstrap(cost.milliseconds, np.median),
                "time against linear": bootstrap(cost.milliseconds / linear, np.median),
            },
        )
        for arm, cost in found.costs.items()
    ]


def _psnr(one: Measured) -> FloatArray:
    psnr_SWP = one.values("psnr_rgb")
    if psnr_SWP is None:
        raise ValueError("PSNR is always measured")
    return psnr_SWP


def _verdict(found: Comparison) -> str:
    by_arm = {one.arm: one for one in found.measured}
    gains = {arm: difference(by_arm[arm], by_arm[LINEAR])[_OVER_SEEDS] for arm in ROUTERS if arm != LINEAR}
    said = ", ".join(f"{ROUTERS[arm]} {figure.text(signed=True, digits=2)}" for arm, figure in gains.items())
    best = max(gains, key=lambda arm: gains[arm].value)
    time = float(np.median(found.costs[best].milliseconds / found.costs[LINEAR].milliseconds))
    certain = [arm for arm, figure in gains.items() if figure.side() > 0]
    conclusion = (
        f"{ROUTERS[best]} has the highest mean, at {time:.2f} times the linear router's CPU time"
        if gains[best].value > 0
        else "none has a higher mean than the linear router"
    )
    return (
        f"Against the linear router's {_psnr(by_arm[LINEAR]).mean():.2f} dB after {found.recipe.steps} steps, the mean "
        f"of {len(by_arm[LINEAR].scores)} seeds and of four weathers on {found.pictures} held-back photographs, the "
        f"others gain, in dB: {said}; {conclusion}, and {_number(len(certain))} gains beyond the noise of the seeds."
    )


def _number(count: int) -> str:
    return "none" if count == 0 else f"{count} of {len(ROUTERS) - 1}"
