"""What experts cost: parameters, MACs, time and memory of feed-forwards that differ in nothing but their experts.

All arms stand on one backbone and run in one process, in turn, at the same precision and with the same threads, so
that whatever else the machine does hits them alike; times are the process's own. Only memory is measured apart: a
process for each arm.
"""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from mofme.core.moe import activated_parameters, parameters
from mofme.core.training import bf16_pays
from mofme.measure.result import Figure, Result, Row, this_machine
from mofme.measure.statistics import bootstrap
from mofme.vision.models import SIZES
from mofme.vision.nets.unet import STRIDE, FeedForwardKind, RestorationNet

_SMALL = {name: value for name, value in SIZES["small"].items() if name not in ("feed_forward", "num_experts")}

# The shipped net's feed-forwards are twice as wide inside as outside; "small-x4" has the four times of a transformer;
# "tiny-x4", the ablation's, is small enough to be trained many times over.
TINY: Mapping[str, Any] = {"widths": [16, 32, 64], "blocks": [1, 1, 2], "expansion": 4}

BACKBONES: Mapping[str, Mapping[str, Any]] = {"small": _SMALL, "small-x4": {**_SMALL, "expansion": 4}, "tiny-x4": TINY}
# Not getrusage: its maximum goes from a parent to its children, so a large parent would hide them all.
_TELL_PEAK = "import re; print(1024 * int(re.search(r'VmHWM:\\s*(\\d+)', open('/proc/self/status').read())[1]))"
TITLES: Mapping[FeedForwardKind, str] = {
    "dense": "dense",
    "moe": "conventional MoE",
    "moe-top4": "conventional MoE, four at work",
    "mofme": "MoFME",
    "mofme-linear": "MoFME, linear router",
    "mofme-sampled": "MoFME, router sampled",
    "mofme-attention": "MoFME, attention router",
    "mofme-mixture": "MoFME, mixture of routers",
    "generated": "MoFME, authors' generators",
}
_EXPERT_KINDS: tuple[FeedForwardKind, ...] = ("moe", "moe-top4", "mofme", "generated")


class Arm(NamedTuple):
    """One feed-forward on the backbone; `num_experts` is 1 for the dense one."""

    feed_forward: FeedForwardKind
    num_experts: int


@dataclass(frozen=True)
class Cost:
    """What one arm costs. Counts are exact; `milliseconds` holds every repeat; `peak_bytes` is None if unknown.

    `activated` counts the parameters that work on one position: of experts side by side only the chosen ones.
    `peak_bytes` is the most memory that building the net and one forward took, above a process that did neither.
    """

    arm: Arm
    parameters: int
    activated: float
    macs: int
    milliseconds: tuple[float, ...]
    peak_bytes: int | None

    def ratios_to(self, other: "Cost") -> list[float]:
        """For every repeat, this time over the other's in the same repeat, when the machine was the same."""
        return [mine / theirs for mine, theirs in zip(self.milliseconds, other.milliseconds, strict=True)]


def arms(experts: Sequence[int]) -> list[Arm]:
    """The dense feed-forward first, then every kind of experts at each number of them."""
    return [Arm("dense", 1), *(Arm(kind, count) for count in experts for kind in _EXPERT_KINDS)]


def measure(
    backbone: str,
    side: int,
    chosen: Sequence[Arm],
    repeats: int,
    on_progress: Callable[[float], None] = lambda share: None,
) -> list[Cost]:
    """The cost of every chosen arm on one picture of `side` x `side` pixels, a multiple of 8, on the CPU."""
    if side % STRIDE or side <= 0:
        raise ValueError(f"the side must be a positive multiple of {STRIDE}, got {side}")
    # oneDNN compiles code for every number of tokens an expert gets and keeps the latest 1,024: with many arms in turn
    # a conventional mixture would be compiled anew at every run, and look up to twice as slow as it is.
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "20000")
    nets = [build(backbone, arm) for arm in chosen]
    image = _picture(side)
    macs = [_count_macs(net, image) for net in nets]  # runs every net once: the first time counts for nothing
    times: list[list[float]] = [[] for _ in nets]
    for repeat in range(repeats):
        for net, taken in zip(nets, times, strict=True):
            start = time.process_time()
            _restore(net, image)
            taken.append(1000 * (time.process_time() - start))
        on_progress(0.5 * (repeat + 1) / repeats)
    idle = _peak_of_process(backbone, None, side)
    costs = []
    for index, (arm, net) in enumerate(zip(chosen, nets, strict=True)):
        peak = _peak_of_process(backbone, arm, side)
        above = None if peak is None or idle is None else peak - idle
        costs.append(Cost(arm, parameters(net), activated_parameters(net), macs[index], tuple(times[index]), above))
        on_progress(0.5 + 0.5 * (index + 1) / len(nets))
    return costs


def precision() -> str:
    """What the nets compute in here."""
    return "bfloat16" if bf16_pays(torch.device("cpu")) else "float32"


def peak_of(function: Callable[..., None], *words: str) -> int | None:
    """Peak memory in bytes of a fresh Python that calls a function of some module with `words`.

    None where the system does not tell, or if the process ended before it could.
    """
    call = f"import sys; from {function.__module__} import {function.__name__} as run; run(*sys.argv[1:])"
    answer = subprocess.run(
        [sys.executable, "-c", f"{call}\n{_TELL_PEAK}", *words],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    lines = answer.stdout.split()
    return int(lines[-1]) if lines and answer.returncode == 0 else None


def build(backbone: str, arm: Arm, seed: int = 0) -> RestorationNet:
    """An untrained net; draws of the caller are left as they would be."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = RestorationNet(**BACKBONES[backbone], **arm._asdict()).eval()
    return net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def _picture(side: int) -> torch.Tensor:
    picture = torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(0))
    return picture.contiguous(memory_format=torch.channels_last)


def _restore(net: nn.Module, image: torch.Tensor) -> None:
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=precision() == "bfloat16"):
        net(image)


def _count_macs(net: nn.Module, image: torch.Tensor) -> int:
    """Multiply-accumulates of one forward as it really ran: sparse experts count the positions they were given."""
    with FlopCounterMode(display=False) as counter:
        _restore(net, image)
    return counter.get_total_flops() // 2


def _peak_of_process(backbone: str, arm: Arm | None, side: int) -> int | None:
    """Peak memory of a fresh process that builds and runs one arm, or, without one, only imports the same code."""
    words = [backbone, str(side), str(torch.get_num_threads())]
    words += [] if arm is None else [arm.feed_forward, str(arm.num_experts)]
    return peak_of(run_once, *words)


def run_once(
    backbone: str, side: str, threads: str, kind: FeedForwardKind | None = None, num_experts: str = "1"
) -> None:
    """Build and run one arm in this process, for `peak_of`; without `kind` only set the threads."""
    torch.set_num_threads(int(threads))
    if kind is not None:
        _restore(build(backbone, Arm(kind, int(num_experts))), _picture(int(side)))


def as_result(costs: Mapping[str, Sequence[Cost]], command: str) -> Result:
    """The costs of each backbone, and what MoFME saves there against conventional mixtures of as many experts."""
    rows = [
        Row(f"Cost on {backbone}", title(cost.arm), _figures(cost, measured[0]))  # the dense one comes first
        for backbone, measured in costs.items()
        for cost in measured
    ]
    for backbone, measured in costs.items():
        # Both kinds of MoFME, against two and against four at work.
        for rival, kind in product(_EXPERT_KINDS[:2], _EXPERT_KINDS[2:]):
            for count, figures in savings(measured, kind, rival).items():
                rows.append(Row(saved(backbone, kind, rival), _experts(count), figures))
    return Result(
        room="bench",
        paper="MoFME, arXiv 2312.16610",
        claim="MoFME saves more than 72 % of the parameters and 39 % of the inference time of a conventional mixture.",
        verdict="",  # what it says of the paper's claim stands in `papers/mofme`
        command=command,
        rows=rows,
        interval="95 % bootstrap of the median over the repeats",
        machine=this_machine(torch.get_num_threads(), precision()),
    )


def saved(backbone: str, kind: FeedForwardKind = "mofme", rival: FeedForwardKind = "moe") -> str:
    """The title of the table that says what one kind of experts saves against another."""
    return f"Saved by {TITLES[kind]} on {backbone}, against the {TITLES[rival]}"


def _figures(cost: Cost, dense: Cost) -> dict[str, Figure]:
    figures = {
        "parameters, M": Figure(cost.parameters / 1e6),
        "activated, M": Figure(cost.activated / 1e6),
        "GMACs": Figure(cost.macs / 1e9),
        "CPU time, ms": bootstrap(np.array(cost.milliseconds), np.median),
        "time against dense": bootstrap(np.array(cost.ratios_to(dense)), np.median),
    }
    if cost.peak_bytes is not None:
        figures["peak memory, MB"] = Figure(cost.peak_bytes / 1e6)
    return figures


def savings(costs: Sequence[Cost], kind: FeedForwardKind, rival: FeedForwardKind) -> dict[int, dict[str, Figure]]:
    """By number of experts, in percent of what the rival needs."""
    by_arm = {cost.arm: cost for cost in costs}
    found: dict[int, dict[str, Figure]] = {}
    for arm, cost in by_arm.items():
        other = by_arm.get(Arm(rival, arm.num_experts))
        if arm.feed_forward == kind and other is not None and arm.num_experts > 1:  # one is no mixture
            figures = found[arm.num_experts] = {
                "parameters saved, %": Figure(100 * (1 - cost.parameters / other.parameters)),
                "time saved, %": bootstrap(100 * (1 - np.array(cost.ratios_to(other))), np.median),
            }
            if cost.peak_bytes is not None and other.peak_bytes:
                figures["peak memory saved, %"] = Figure(100 * (1 - cost.peak_bytes / other.peak_bytes))
    return found


def title(arm: Arm) -> str:
    """For people: "MoFME, linear router, 16 experts"."""
    name = TITLES[arm.feed_forward]
    return name if arm.feed_forward == "dense" else f"{name}, {_experts(arm.num_experts)}"


def _experts(count: int) -> str:
    return "1 expert" if count == 1 else f"{count} experts"
