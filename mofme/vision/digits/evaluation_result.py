"""From what was measured of digit nets to the tables and the verdict."""

from collections.abc import Sequence

import numpy as np

from mofme.measure.result import Figure, Result, Row, this_machine
from mofme.measure.statistics import students_mean, wilson
from mofme.vision.digits.evaluation import BATCHES, FLOAT32, OPTIONS, SIGNS, Evaluation, Outcome, Packed
from mofme.vision.digits.net import ARMS, BINARY, DETERMINISTIC, DROPOUT, FLOAT, STOCHASTIC

ROOM = "binary_mnist"
PUBLISHED = {DETERMINISTIC: 1.29, STOCHASTIC: 1.18, FLOAT: 1.30, DROPOUT: 1.01}
_PAPER = "BinaryConnect (arXiv 1511.00363)"
_CLAIM = (
    "weights of one bit regularise: permutation-invariant MNIST at 1.29 % (deterministic) and 1.18 % (stochastic) test "
    "error, 1.30 % without a regulariser"
)


def as_result(evaluation: Evaluation, command: str) -> Result:
    """Everything measured, beside the paper's claim; every table states its seeds and epochs."""
    arms = [arm for arm in ARMS if _of(evaluation, arm)]
    rows = [Row("test error", arm, _errors(evaluation, arm)) for arm in arms]
    rows += [
        Row("test-time options", f"{arm}, {option}", _option(evaluation, arm, option))
        for arm in arms
        if arm in BINARY
        for option in OPTIONS
    ]
    rows += [Row("size on disk", one.run.plan.name, _size(one)) for one in evaluation.packed]
    rows += [
        Row("time", way, _time(evaluation, way)) for way in dict.fromkeys(way for way, _ in evaluation.milliseconds)
    ]
    return Result(
        room=ROOM,
        paper=_PAPER,
        claim=_CLAIM,
        verdict=_verdict(evaluation, arms),
        command=command,
        rows=rows,
        seeds=sorted({one.run.plan.seed for one in evaluation.tested}),
        interval="95 %; of errors Student's over the seeds, or for one seed Wilson's over the test digits; of time "
        "Student's over the repeats",
        machine=this_machine(threads=1),
    )


def _of(evaluation: Evaluation, arm: str) -> list[Outcome]:
    return [one for one in evaluation.tested if one.run.plan.arm == arm]


def _errors(evaluation: Evaluation, arm: str) -> dict[str, Figure]:
    runs = _of(evaluation, arm)
    return {
        "error, %": error(evaluation, arm),
        "published, %": Figure(PUBLISHED[arm]),
        "validation error, %": Figure(100 * float(np.mean([one.run.best_error for one in runs]))),
        "seeds": Figure(len(runs)),
        "epochs": Figure(float(np.mean([one.run.plan.epochs for one in runs]))),
        "CPU minutes a run": Figure(float(np.mean([one.run.seconds for one in runs])) / 60),
    }


def error(evaluation: Evaluation, arm: str) -> Figure:
    """Test error in percent, with the arm's own option and batch normalisation measured anew."""
    runs = _of(evaluation, arm)
    return _share([one.wrong[one.own_option, True] for one in runs], evaluation.digits)


def _option(evaluation: Evaluation, arm: str, option: str) -> dict[str, Figure]:
    runs = _of(evaluation, arm)
    return {
        name: _share([one.wrong[option, anew] for one in runs], evaluation.digits)
        for name, anew in (("error, %", True), ("batch norm as trained, %", False))
    }


def _share(wrong: Sequence[int], digits: int) -> Figure:
    if len(wrong) > 1:
        return students_mean(100 * np.array(wrong) / digits)
    return wilson(wrong[0], digits).percent()


def _size(one: Packed) -> dict[str, Figure]:
    return {
        "packed, kB": Figure(one.packed_bytes / 1000),
        "single precision, kB": Figure(one.float_bytes / 1000),
        "times smaller": Figure(one.float_bytes / one.packed_bytes),
        "predictions that differ": Figure(one.differing),
        SIGNS.partition(": ")[2] + ", packed: error, %": Figure(one.error),
    }


def _time(evaluation: Evaluation, way: str) -> dict[str, Figure]:
    figures = {}
    for batch in BATCHES:
        taken, plain = (np.array(evaluation.milliseconds[name, batch]) for name in (way, FLOAT32))
        figures[f"batch {batch}, ms"] = students_mean(taken)
        if way != FLOAT32:
            figures[f"batch {batch}, times faster"] = students_mean(plain / taken)
    return figures


def _verdict(evaluation: Evaluation, arms: Sequence[str]) -> str:
    runs = [one.run.plan for one in evaluation.tested]
    epochs, seeds = ({getattr(plan, name) for plan in runs} for name in ("epochs", "seed"))
    said = ", ".join(f"{arm} {error(evaluation, arm).value:.2f} % ({PUBLISHED[arm]:.2f})" for arm in arms)
    verdict = (
        f"After {_range(epochs)} epochs ({len(seeds)} seed{'s' * (len(seeds) > 1)}; the paper's 1,000) the test error "
        f"is, with the published one in brackets: {said}"
    )
    if not evaluation.packed:
        return f"{verdict}."
    smaller = min(one.float_bytes / one.packed_bytes for one in evaluation.packed)
    differing = max(one.differing for one in evaluation.packed)
    return f"{verdict}; packed, the file is {smaller:.1f} times smaller and at most {differing} predictions differ."


def _range(numbers: set[int]) -> str:
    return f"{min(numbers)}" if len(numbers) == 1 else f"{min(numbers)} to {max(numbers)}"
