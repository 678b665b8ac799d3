"""Test errors of each arm under each of the paper's options, beside what the paper says; size on disk and time."""

import copy
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from mofme.core.binary import binary_layers, stochastic_sign, unbinarise
from mofme.core.training import bf16_pays
from mofme.errors import ModelError
from mofme.files import WEIGHTS_FILE
from mofme.measure.result import Figure, Result, Row, this_machine
from mofme.measure.statistics import students_mean, wilson
from mofme.papers.binaryconnect import judge
from mofme.papers.binaryconnect.net import ARMS, BINARY, DETERMINISTIC, DigitNet, Mnist, folded, load_digit_net
from mofme.papers.binaryconnect.training import (
    STATE,
    Run,
    error_of,
    load_run,
    predictions,
    recalibrated,
    save_digit_net,
    scores_of,
)

Report = Callable[[str], None]

PUBLISHED = dict(zip(ARMS, (1.29, 1.18, 1.30, 1.01), strict=True))
SIGNS, REAL, ENSEMBLE = "1: signs", "2: real weights", "3: an ensemble of drawn signs"
OPTIONS = (SIGNS, REAL, ENSEMBLE)
BATCHES = (1, 100)
FLOAT32 = "float32 (packed: unpacked once)"
BFLOAT16 = "packed: unpacked once to bfloat16"


@dataclass(frozen=True)
class Outcome:
    """A run and the digits of the test set it takes for others: by option, measured anew or as it came from training.

    Real nets know the option REAL only.
    """

    run: Run
    wrong: Mapping[tuple[str, bool], int]

    @property
    def own_option(self) -> str:
        """The one the paper tests this arm with."""
        return SIGNS if self.run.plan.arm == DETERMINISTIC else REAL


@dataclass(frozen=True)
class Evaluation:
    """All that was measured: `packed` of binary nets on disk by run, `milliseconds` each repeat of each way to compute,
    by batch."""

    tested: Sequence[Outcome]
    packed: Mapping[str, dict[str, Figure]]
    digits: int
    milliseconds: Mapping[tuple[str, int], Sequence[float]] = field(default_factory=dict)


def find_runs(folder: Path, report: Report) -> list[Path]:
    """The complete runs below `folder`, the arms in their order. Raises ModelError if there is none."""
    found = {path: load_run(path)[0] for path in folder.glob(f"*/{STATE}")}
    for run in found.values():
        if not run.complete:
            report(f"{run.plan.name} is left out: {run.epochs} of {run.plan.epochs} epochs are done")
    complete = {path: run.plan for path, run in found.items() if run.complete}
    if not complete:
        raise ModelError(f"{folder} holds no complete run: let `binary train` finish one")
    return sorted(complete, key=lambda path: (ARMS.index(complete[path].arm), complete[path].seed))


def evaluate(folder: Path, mnist: Mnist, nets: int, repeats: int, report: Report) -> Evaluation:
    """Test every complete run below `folder`; ensembles are of `nets` nets."""
    tested, packed = [], {}
    paths = find_runs(folder, report)
    for path in paths:
        run, net = load_run(path)
        report(f"testing {run.plan.name}")
        tested.append(Outcome(run, _wrong(net, mnist, nets)))
        if run.plan.arm in BINARY:
            packed[run.plan.name] = _pack(net, run, mnist)
    report("taking the time")
    return Evaluation(tested, packed, len(mnist.test), _times(paths, mnist, repeats))


def _wrong(net: DigitNet, mnist: Mnist, nets: int) -> dict[tuple[str, bool], int]:
    wrong = {}
    options = OPTIONS if any(binary_layers(net)) else (REAL,)
    for option in options:
        variants = [_drawn(net, seed) for seed in range(nets)] if option == ENSEMBLE else [copy.deepcopy(net)]
        for variant in variants:
            variant.use_real_weights(option == REAL)
        for anew in (False, True):
            used = [recalibrated(variant, mnist.training) if anew else variant for variant in variants]
            scores_NC = torch.stack([scores_of(variant, mnist.test) for variant in used]).mean(0)
            wrong[option, anew] = int((scores_NC.argmax(1) != mnist.test.labels_N).sum())
    return wrong


@torch.no_grad()
def _drawn(net: DigitNet, seed: int) -> DigitNet:
    drawn = copy.deepcopy(net)
    generator = torch.Generator().manual_seed(seed)
    for _, layer in binary_layers(drawn):
        layer.weight.copy_(stochastic_sign(layer.weight, generator))
    return drawn


def _pack(net: DigitNet, run: Run, mnist: Mnist) -> dict[str, Figure]:
    """Signs work in the packed net, whatever the arm."""
    net.use_real_weights(False)
    ready = recalibrated(net, mnist.training)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        save_digit_net(folder / "packed", ready, run, "", {})
        save_file({name: tensor.contiguous() for name, tensor in folded(ready).state_dict().items()}, folder / "float")
        loaded, _ = load_digit_net(folder / "packed")
        differing = (predictions(loaded, mnist.test) != predictions(ready, mnist.test)).sum()
        packed, single = (path.stat().st_size for path in (folder / "packed" / WEIGHTS_FILE, folder / "float"))
    figures = {
        "packed, kB": packed / 1000,
        "single precision, kB": single / 1000,
        "times smaller": single / packed,
        "predictions that differ": int(differing),
        SIGNS.partition(": ")[2] + ", packed: error, %": 100 * error_of(loaded, mnist.test),
    }
    return {name: Figure(value) for name, value in figures.items()}


def _times(paths: Sequence[Path], mnist: Mnist, repeats: int) -> dict[tuple[str, int], list[float]]:
    """Every way in turn, so that whatever else the machine does hits them alike."""
    binary = next((run_net for run_net in map(load_run, paths) if run_net[0].plan.arm in BINARY), None)
    if binary is None:
        return {}
    unpacked = folded(binary[1])
    unbinarise(unpacked)
    ways: dict[str, Callable[[Tensor], Tensor]] = {FLOAT32: unpacked}
    if bf16_pays(torch.device("cpu")):
        half = copy.deepcopy(unpacked).bfloat16()
        ways[BFLOAT16] = lambda x_ND: half(x_ND.bfloat16())
    times: dict[tuple[str, int], list[float]] = {(way, batch): [] for batch in BATCHES for way in ways}
    with torch.inference_mode():
        for batch in BATCHES:
            x = mnist.test[:batch].inputs_ND()
            for repeat in range(-3, repeats):  # the first ones count for nothing
                for way, compute in ways.items():
                    start = time.perf_counter()
                    compute(x)
                    if repeat >= 0:
                        times[way, batch].append(1000 * (time.perf_counter() - start))
    return times


def as_result(evaluation: Evaluation, command: str) -> Result:
    """Everything measured, beside the paper's claim; every table states its seeds and epochs."""
    digits = evaluation.digits
    of_arm = {arm: [one for one in evaluation.tested if one.run.plan.arm == arm] for arm in ARMS}
    rows = [Row("test error", arm, _errors(runs, arm, digits)) for arm, runs in of_arm.items() if runs]
    rows += [
        Row("test-time options", f"{arm}, {option}", _option(of_arm[arm], option, digits))
        for arm in BINARY
        if of_arm[arm]
        for option in OPTIONS
    ]
    rows += [Row("size on disk", name, figures) for name, figures in evaluation.packed.items()]
    rows += [
        Row("time", way, _time(evaluation, way)) for way in dict.fromkeys(way for way, _ in evaluation.milliseconds)
    ]
    result = Result(
        room="binary_mnist",
        paper="BinaryConnect (arXiv 1511.00363)",
        claim="weights of one bit regularise: permutation-invariant MNIST at 1.29 % (deterministic) and 1.18 % "
        "(stochastic) test error, 1.30 % without a regulariser",
        verdict="",
        command=command,
        rows=rows,
        seeds=sorted({one.run.plan.seed for one in evaluation.tested}),
        interval="95 %; of errors Student's over the seeds, or for one seed Wilson's over the test digits; of time "
        "Student's over the repeats",
        machine=this_machine(threads=1),
    )
    return judge(result)


def _errors(runs: Sequence[Outcome], arm: str, digits: int) -> dict[str, Figure]:
    """Test error with the arm's own option and batch normalisation measured anew, and how it came about."""
    return {
        "error, %": _share([one.wrong[one.own_option, True] for one in runs], digits),
        "published, %": Figure(PUBLISHED[arm]),
        "validation error, %": Figure(100 * float(np.mean([one.run.best_error for one in runs]))),
        "seeds": Figure(len(runs)),
        "epochs": Figure(float(np.mean([one.run.plan.epochs for one in runs]))),
        "CPU minutes a run": Figure(float(np.mean([one.run.seconds for one in runs])) / 60),
    }


def _option(runs: Sequence[Outcome], option: str, digits: int) -> dict[str, Figure]:
    return {
        name: _share([one.wrong[option, anew] for one in runs], digits)
        for name, anew in (("error, %", True), ("batch norm as trained, %", False))
    }


def _share(wrong: Sequence[int], digits: int) -> Figure:
    if len(wrong) > 1:
        return students_mean(100 * np.array(wrong) / digits)
    return wilson(wrong[0], digits).percent()


def _time(evaluation: Evaluation, way: str) -> dict[str, Figure]:
    figures = {}
    for batch in BATCHES:
        taken, plain = (np.array(evaluation.milliseconds[name, batch]) for name in (way, FLOAT32))
        figures[f"batch {batch}, ms"] = students_mean(taken)
        if way != FLOAT32:
            figures[f"batch {batch}, times faster"] = students_mean(plain / taken)
    return figures
