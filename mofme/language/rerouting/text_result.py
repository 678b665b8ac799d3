"""From what was measured of re-routed questions to tables and the verdict."""

from collections.abc import Sequence

import numpy as np
from scipy import stats

from mofme.language.rerouting.measurement import BASE, DESCENT, ORACLE, RANDOM_DESCENT, VOTE, Measured
from mofme.measure.result import Figure, Result, Row, this_machine
from mofme.measure.statistics import FloatArray, students_mean, wilson

_GAIN = "gain, points of accuracy"
_CHANCE = "gain, nats of the right choice"


def as_result(rows: Sequence[Measured], command: str, seed: int) -> Result:
    """Everything that `measure` measured, beside the paper's claim."""
    arms = [arm for arm, value in rows[0].items() if isinstance(value, dict) and "right" in value]
    tables = [Row("accuracy", arm, _accuracy(rows, arm)) for arm in arms]
    tables += [Row("against the routers' own choice", arm, _against(rows, arm)) for arm in arms if arm != BASE]
    tables.append(
        Row(
            "setting",
            "questions",
            {
                "measured": Figure(len(rows)),
                "references": Figure(rows[0]["library"]),
                **{f"first rate, {arm.split(':')[0]}": Figure(rate) for arm, rate in rows[0]["rates"].items()},
            },
        )
    )
    return Result(
        room="rerouting_text",
        paper="R2-T2, arXiv 2502.20395",
        claim="Descent on the neighbours' loss gains 5 to 10 points, about half of what the oracle gains.",
        verdict=_verdict(rows),
        command=command,
        rows=tables,
        seeds=[seed],
        interval="95 %; of accuracy Wilson's over the questions, of gains Student's over the questions, paired; "
        "p by McNemar's exact test",
        machine=this_machine(threads=1),
    )


def _column(rows: Sequence[Measured], arm: str, name: str) -> FloatArray:
    return np.array([float(row[arm][name]) for row in rows])


def _accuracy(rows: Sequence[Measured], arm: str) -> dict[str, Figure]:
    figures = {"right, %": wilson(_column(rows, arm, "right").sum(), len(rows)).percent()}
    if arm != VOTE:
        figures["CPU seconds" if arm == BASE else "CPU seconds more"] = students_mean(_column(rows, arm, "seconds"))
    return figures


def _against(rows: Sequence[Measured], arm: str) -> dict[str, Figure]:
    figures = {_GAIN: _points(rows, arm), "p": Figure(mcnemar(*_changed(rows, arm)))}
    return figures if arm == VOTE else {**figures, _CHANCE: _nats(rows, arm)}


def _points(rows: Sequence[Measured], arm: str) -> Figure:
    return students_mean(100 * (_column(rows, arm, "right") - _column(rows, BASE, "right")))


def _nats(rows: Sequence[Measured], arm: str) -> Figure:
    return students_mean(np.log(_column(rows, arm, "chance") + 1e-9) - np.log(_column(rows, BASE, "chance") + 1e-9))


def _changed(rows: Sequence[Measured], arm: str) -> tuple[int, int]:
    """How many questions became right, and how many wrong."""
    gain = _column(rows, arm, "right") - _column(rows, BASE, "right")
    return int((gain > 0).sum()), int((gain < 0).sum())


def mcnemar(better: int, worse: int) -> float:
    """Exact two-sided p of McNemar's test, from the questions that changed; 1 if none did."""
    if better + worse == 0:
        return 1.0
    return float(stats.binomtest(better, better + worse).pvalue)


def _verdict(rows: Sequence[Measured]) -> str:
    points, oracle = _points(rows, DESCENT), _points(rows, ORACLE)
    better, worse = _changed(rows, DESCENT)
    share = f"{100 * points.value / oracle.value:.0f} % of the oracle's" if oracle.value > 0 else "beside the oracle's"
    nats, random = _nats(rows, DESCENT), _nats(rows, RANDOM_DESCENT)
    return (
        f"On {len(rows)} questions gradient descent on neighbours changes accuracy by {points.text(signed=True)} "
        f"points, {points.noise()} ({better} questions become right, {worse} wrong), {share} "
        f"{oracle.text(signed=True)}; the right choice gains {nats.text(signed=True)} nats, with random references "
        f"{random.text(signed=True)}."
    )
