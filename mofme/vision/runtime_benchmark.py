"""Runtimes against torch on the same pictures: CPU time, share of what the CPU can multiply, and dB that are lost.

All work in turn on every picture, products of large matrices among them, so that whatever else the machine does hits
them alike.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from mofme.errors import ModelError
from mofme.measure.result import Figure, Result, Row, this_machine
from mofme.measure.statistics import bootstrap
from mofme.vision.benchmark import precision
from mofme.vision.datasets import PairFiles
from mofme.vision.metrics import psnr
from mofme.vision.restorer import Restorer
from mofme.vision.runtime import TORCH, installed
from mofme.vision.runtime_profile import KINDS, Reached

FULL = "torch, float32"
PRECISIONS = {"bfloat16": torch.bfloat16, "float32": torch.float32}
_SIDE = 1024  # of the matrices
_PRODUCTS = 20  # so many at a time last longer than a tick of the clock


class _FullPrecision(Restorer):
    def _precision(self) -> torch.autocast:
        return torch.autocast(self.device.type, enabled=False)


@dataclass(frozen=True)
class Trial:
    """One pair: operations of the restorer, and by its name each runtime's CPU seconds and PSNR.

    `peaks` is how many operations a second products of matrices reach at that time, by precision.
    """

    operations: int
    pixels: int
    seconds: Mapping[str, float]
    decibels: Mapping[str, float]
    peaks: Mapping[str, float]


def compare_runtimes(model: str, pairs: Sequence[PairFiles], repeats: int) -> Iterator[Trial]:
    """Each pair `repeats` times. Raises ModelError for a model that there is none of."""
    restorers: dict[str, Restorer] = {TORCH: Restorer.from_pretrained(model, "cpu")}
    restorers[FULL] = _FullPrecision.from_pretrained(model, "cpu")
    for name in installed():
        try:
            restorers[name] = Restorer.from_pretrained(model, "cpu", name)
        except ModelError:  # whose routing only torch can follow
            continue
    for pair in pairs:
        image, clean = pair.read()
        with FlopCounterMode(display=False) as counter:
            restorers[TORCH](image)
        decibels = {name: _psnr(restore(image).image, clean) for name, restore in restorers.items()}
        for _ in range(repeats):
            seconds = {}
            for name, restore in restorers.items():
                start = time.process_time()
                restore(image)
                seconds[name] = time.process_time() - start
            yield Trial(counter.get_total_flops(), image[0].numel(), seconds, decibels, matrix_peaks())


def matrix_peaks() -> dict[str, float]:
    """Operations a CPU second of torch.mm, in each precision."""
    found = {}
    for name, dtype in PRECISIONS.items():
        one, other = (torch.rand(_SIDE, _SIDE).to(dtype) for _ in range(2))
        one @ other  # the first time, which compiles, does not count
        start = time.process_time()
        for _ in range(_PRODUCTS):
            one @ other
        found[name] = 2 * _PRODUCTS * _SIDE**3 / max(time.process_time() - start, 1e-9)
    return found


def as_result(model: str, trials: Sequence[Trial], command: str, beside: Sequence[Row] = ()) -> Result:
    """A row a runtime, one a precision of products, and `beside`. Raises ModelError if nothing was measured."""
    if not trials:
        raise ModelError("there are no pairs to measure runtimes on")
    names = list(trials[0].seconds)
    peaks = {name: bootstrap(np.array([trial.peaks[name] for trial in trials]) / 1e9, np.median) for name in PRECISIONS}
    rows = [Row(f"Runtimes of {model}", name, _figures(name, trials)) for name in names]
    rows += [Row("Products of large matrices", name, {"GFLOP a CPU s": peak}) for name, peak in peaks.items()]
    rows += beside
    others = [name for name in names if name not in (TORCH, FULL)]
    told = [
        f"{name}: {_ratio(name, trials).text()} times as fast, {_lost(name, trials).text()} dB lost" for name in others
    ]
    return Result(
        room="runtimes",
        paper="",
        claim="Another runtime is at least 1.5 times as fast as eager torch, and at most 0.01 dB worse than float32.",
        verdict=f"Against eager torch in {precision()}. {'; '.join(told)}."
        if told
        else "No other runtime is installed.",
        command=command,
        rows=rows,
        interval="95 % bootstrap of the median over the repeats, of dB of the mean over them",
        machine=this_machine(torch.get_num_threads(), precision()),
    )


def profile_rows(profiles: Sequence[Mapping[str, Mapping[str, float]]]) -> list[Row]:
    """Of each runtime, what share of its time each kind of work took, over the pictures."""
    return [
        Row(
            "Where the time goes, %",
            name,
            {kind: bootstrap(np.array([one[name].get(kind, 0.0) for one in profiles])) for kind in KINDS},
        )
        for name in profiles[0]
    ]


def net_rows(nets: Mapping[str, Reached]) -> list[Row]:
    """Of each net, how large it is, and what of it each runtime does."""
    return [
        Row(
            f"Nets of known size, by {runtime}",
            name,
            {
                "parameters, M": Figure(net.parameters / 1e6),
                "GFLOP a megapixel": Figure(net.operations / net.pixels / 1e3),
                "CPU s a megapixel": bootstrap(1e6 / net.pixels * np.array(seconds), np.median),
                "GFLOP a CPU s": bootstrap(net.operations / 1e9 / np.array(seconds), np.median),
            },
        )
        for runtime in next(iter(nets.values())).seconds
        for name, net in nets.items()
        for seconds in [net.seconds[runtime]]
    ]


def _psnr(restored: Tensor, clean: Tensor) -> float:
    return psnr(restored[None], clean[None]).item()


def _ratio(name: str, trials: Sequence[Trial]) -> Figure:
    return bootstrap(np.array([trial.seconds[TORCH] / trial.seconds[name] for trial in trials]), np.median)


def _lost(name: str, trials: Sequence[Trial]) -> Figure:
    return bootstrap(np.array([trial.decibels[FULL] - trial.decibels[name] for trial in trials]))


def _figures(name: str, trials: Sequence[Trial]) -> dict[str, Figure]:
    per_megapixel = [1e6 * trial.seconds[name] / trial.pixels for trial in trials]
    figures = {
        "CPU s a megapixel": bootstrap(np.array(per_megapixel), np.median),
        "times as fast as torch": _ratio(name, trials),
        "lost, dB": _lost(name, trials),
    }
    for of in PRECISIONS:
        share = [100 * trial.operations / trial.seconds[name] / trial.peaks[of] for trial in trials]
        figures[f"of the {of} peak, %"] = bootstrap(np.array(share), np.median)
    return figures
