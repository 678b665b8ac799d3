"""What the measured costs say beside the paper's claim."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from mofme.measure.result import Figure, Result, Row, this_machine
from mofme.measure.statistics import bootstrap
from mofme.vision.benchmark import Arm, Cost, precision
from mofme.vision.nets.blocks import FeedForwardKind

TITLES: Mapping[FeedForwardKind, str] = {
    "dense": "dense",
    "moe": "conventional MoE",
    "mofme": "MoFME",
    "mofme-linear": "MoFME, linear router",
    "mofme-sampled": "MoFME, router sampled",
    "mofme-attention": "MoFME, attention router",
    "mofme-mixture": "MoFME, mixture of routers",
    "generated": "MoFME, authors' generators",
}
CLAIMED = {"parameters saved, %": 72.0, "time saved, %": 39.0}


def as_result(costs: Mapping[str, Sequence[Cost]], side: int, command: str) -> Result:
    """The costs of each backbone, and what MoFME saves there against the conventional mixture of as many experts."""
    rows = [row for backbone, measured in costs.items() for row in cost_rows(backbone, measured)]
    rows += [row for backbone, measured in costs.items() for row in saved_rows(backbone, measured)]
    return Result(
        room="bench",
        paper="MoFME, arXiv 2312.16610",
        claim="MoFME saves more than 72 % of the parameters and 39 % of the inference time of a conventional mixture.",
        verdict=_verdict({backbone: savings(measured) for backbone, measured in costs.items()}, side),
        command=command,
        rows=rows,
        interval="95 % bootstrap of the median over the repeats",
        machine=this_machine(torch.get_num_threads(), precision()),
    )


def cost_rows(backbone: str, costs: Sequence[Cost]) -> list[Row]:
    """What each arm costs; the dense one comes first."""
    return [Row(f"Cost on {backbone}", title(cost.arm), _figures(cost, costs[0])) for cost in costs]


def saved_rows(backbone: str, costs: Sequence[Cost]) -> list[Row]:
    """What MoFME saves at each number of experts."""
    table = f"Saved by MoFME on {backbone}, against the conventional MoE"
    return [Row(table, _experts(count), figures) for count, figures in savings(costs).items()]


def _figures(cost: Cost, dense: Cost) -> dict[str, Figure]:
    figures = {
        "parameters, M": Figure(cost.parameters / 1e6),
        "activated, M": Figure(cost.activated / 1e6),
        "GMACs": Figure(cost.macs / 1e9),
        "time, ms": bootstrap(np.array(cost.milliseconds), np.median),
        "time against dense": bootstrap(np.array(cost.ratios_to(dense)), np.median),
    }
    if cost.peak_bytes is not None:
        figures["peak memory, MB"] = Figure(cost.peak_bytes / 1e6)
    return figures


def savings(costs: Sequence[Cost]) -> dict[int, dict[str, Figure]]:
    """By number of experts, in percent of what the conventional mixture needs."""
    by_arm = {cost.arm: cost for cost in costs}
    saved = {}
    for cost in costs:
        rival = by_arm.get(Arm("moe", cost.arm.num_experts))
        if cost.arm.feed_forward != "mofme" or rival is None or cost.arm.num_experts == 1:  # one is no mixture
            continue
        ratios = np.array(cost.ratios_to(rival))
        figures = {
            "parameters saved, %": Figure(100 * (1 - cost.parameters / rival.parameters)),
            "time saved, %": bootstrap(100 * (1 - ratios), np.median),
        }
        if cost.peak_bytes is not None and rival.peak_bytes:
            figures["peak memory saved, %"] = Figure(100 * (1 - cost.peak_bytes / rival.peak_bytes))
        saved[cost.arm.num_experts] = figures
    return saved


def _verdict(saved_on: Mapping[str, Mapping[int, Mapping[str, Figure]]], side: int) -> str:
    saved_on = {backbone: saved for backbone, saved in saved_on.items() if saved}
    if not saved_on:
        return "Nothing was compared with the paper's claim: one expert is no mixture."
    parts: list[str] = []
    reached: list[str] = []
    missed: list[str] = []
    for backbone, saved in saved_on.items():
        each = [
            f"{figures['parameters saved, %'].value:.0f} and {figures['time saved, %'].value:.0f} % at {count}"
            for count, figures in saved.items()
        ]
        parts.append(f"on {backbone} {', '.join(each)}")
        met = {count: all(figures[name].value >= CLAIMED[name] for name in CLAIMED) for count, figures in saved.items()}
        for counts, where in ((reached, True), (missed, False)):
            if some := [str(count) for count in met if met[count] is where]:
                counts.append(f"at {', '.join(some)} on {backbone}")
    return (
        f"Of parameters and of time MoFME saves, by number of experts, on a picture of {side} x {side}: "
        f"{'; '.join(parts)}. The paper's 72 and 39 % are both reached {' and '.join(reached) or 'nowhere'}, "
        f"missed {' and '.join(missed) or 'nowhere'}."
    )


def title(arm: Arm) -> str:
    """For people: "MoFME, linear router, 16 experts"."""
    name = TITLES[arm.feed_forward]
    return name if arm.feed_forward == "dense" else f"{name}, {_experts(arm.num_experts)}"


def _experts(count: int) -> str:
    return "1 expert" if count == 1 else f"{count} experts"
