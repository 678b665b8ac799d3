"""From what the study measured to tables and the verdict. Axis names: S seeds, P passages."""

from collections.abc import Callable, Sequence

import numpy as np

from mofme.language.moe_distillation.methods import METHODS, Method
from mofme.language.moe_distillation.quality import Quality
from mofme.language.moe_distillation.study import Candidate, Findings
from mofme.language.scoring import FloatArray
from mofme.measure.result import Figure, Result, Row, this_machine
from mofme.measure.statistics import bootstrap, students_mean, wider

_PAPER = "Every Expert Matters (arXiv 2502.12947)"
_CLAIM = "experts that a teacher leaves idle hold knowledge a student can use: KA and SAR beat GKD"
# For each measure its passages, and whether less is better.
_MEASURES: dict[str, tuple[Callable[[Quality], FloatArray], bool]] = {
    "KL on held-out text, nats": (lambda quality: quality.kl_P, True),
    "KL on its own text, nats": (lambda quality: quality.own_kl_SP.mean(0), True),
    "cross-entropy, nats": (lambda quality: quality.cross_entropy_P, True),
    "ROUGE-L, %": (lambda quality: 100 * quality.rouge_l_SP.mean(0), False),
}
_GAINS = dict(
    zip(
        _MEASURES,
        ("gain, KL on held-out text", "gain, KL on its own text", "gain, cross-entropy", "gain, ROUGE-L, points"),
        strict=True,
    )
)
DIFFERENCES: tuple[tuple[Method, Method], ...] = (
    ("ka", "gkd"),
    ("ka", "all"),
    ("ka", "top-(n-1)"),
    ("sar", "gkd"),
    ("sar", "all"),
    ("gkd", "kd"),
)


def as_result(found: Findings, seeds: Sequence[int], command: str) -> Result:
    """Everything that `compare` measured, beside the paper's claim."""
    rows = [Row("models", name, _candidate(one, found)) for name, one in found.candidates.items()]
    rows += [
        Row("students", "before", {name: Figure(float(of(found.before).mean())) for name, (of, _) in _MEASURES.items()})
    ]
    rows += [Row("students", method, _arm(found.arms[method])) for method in METHODS]
    rows += [Row("differences", f"{one} against {other}", _difference(found, one, other)) for one, other in DIFFERENCES]
    rows += [
        Row("idle experts", f"layer {number}", {"share of the router's probability, %": Figure(100 * float(mass))})
        for number, mass in enumerate(found.non_activated_L)
    ]
    return Result(
        room="moe_distillation",
        paper=_PAPER,
        claim=_CLAIM,
        verdict=_verdict(found),
        command=command,
        rows=rows,
        seeds=list(seeds),
        interval="95 %; of models a bootstrap over held-out passages, of students Student's over the seeds, of "
        "differences a paired bootstrap over passages, or Student's over the seeds where that is wider",
        machine=this_machine(threads=1),
    )


def _candidate(one: Candidate, found: Findings) -> dict[str, Figure]:
    student_P = found.candidates["student"].cross_entropy_P
    figures = {
        "parameters, M": Figure(one.parameters / 1e6),
        "activated, M": Figure(one.activated / 1e6),
        "cross-entropy, nats": bootstrap(one.cross_entropy_P),
    }
    if one is not found.candidates["student"]:
        figures["gain over the student, nats"] = bootstrap(student_P - one.cross_entropy_P)
    return figures


def _arm(seeds: Sequence[Quality]) -> dict[str, Figure]:
    return {
        name: students_mean(np.array([float(of(quality).mean()) for quality in seeds]))
        for name, (of, _) in _MEASURES.items()
    }


def _difference(found: Findings, one: Method, other: Method) -> dict[str, Figure]:
    """What `one` gains over `other` on the same passages with the same seeds; above 0 it is better."""
    pairs = list(zip(found.arms[one], found.arms[other], strict=True))
    figures = {}
    for name, (of, less_is_better) in _MEASURES.items():
        gain_SP = np.array([of(mine) - of(theirs) for mine, theirs in pairs]) * (-1 if less_is_better else 1)
        figures[_GAINS[name]] = wider(bootstrap(gain_SP.mean(0)), students_mean(gain_SP.mean(1)))
    return figures


def _verdict(found: Findings) -> str:
    against_gkd = {method: _difference(found, method, "gkd") for method in ("ka", "sar")}
    control = _difference(found, "ka", "top-(n-1)")
    outcomes = "; ".join(f"{method.upper()} against GKD gains {_said(gains)}" for method, gains in against_gkd.items())
    better = [method.upper() for method, gains in against_gkd.items() if _clear(gains, +1)]
    worse = [method.upper() for method, gains in against_gkd.items() if _clear(gains, -1)]
    held = {
        (True, False): f"the claim holds here for {' and '.join(better)}",
        (False, True): f"the claim fails here: {' and '.join(worse)} did worse",
        (True, True): "the claim holds on some measures and fails on others",
        (False, False): "the claim is not seen here",
    }[bool(better), bool(worse)]
    drawing = "adds something" if _clear(control, +1) else "adds nothing that shows"
    margin = _candidate(found.candidates["teacher"], found)["gain over the student, nats"].value
    return (
        f"With a teacher {margin:.2f} nats better than its student {held}: {outcomes}, and drawing experts by chance "
        f"{drawing} beside always using all but one."
    )


def _clear(gains: dict[str, Figure], side: int) -> bool:
    """Whether any of the measures lies beyond the noise on this side."""
    return any(figure.side() == side for figure in gains.values())


def _said(gains: dict[str, Figure]) -> str:
    words = []
    for name, figure in gains.items():
        what = name.removeprefix("gain, ").removesuffix(", points")
        unit = "points of ROUGE-L" if what == "ROUGE-L" else f"nats of {what}"
        words.append(f"{figure.value:+.3f} {unit} ({figure.noise()})")
    return ", ".join(words)
