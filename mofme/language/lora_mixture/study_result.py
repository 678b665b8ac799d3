"""From what every arm got right to tables, a picture and the verdict. Axis names: K tasks, S seeds, N questions."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mofme.language.lora_mixture.explanation import FloatArray
from mofme.language.lora_mixture.study import ARMS, CONTROL, WIDE_CONTROL, Findings, Outcome
from mofme.measure.plots import plot
from mofme.measure.result import Figure, Result, Row, this_machine
from mofme.measure.statistics import stratified_bootstrap, students_mean

ROOM = "mixture_of_routers"
MEAN = "mean of the tasks"
CLAIMED = 1.0  # points
ENOUGH = 5  # seeds; with fewer neither a gain nor its absence is claimed


def as_result(found: Findings, seeds: Sequence[int], command: str) -> Result:
    """Everything that the study measured, beside the paper's claim."""
    rows = [Row("accuracy", f"{task.name}: {arm}", _arm(found, task.name, arm)) for task in found.tasks for arm in ARMS]
    rows += [
        Row("differences", f"{task}: {arm} against {control}", difference(found, task, arm, control))
        for arm, control in _pairs()
        for task in [*(task.name for task in found.tasks), MEAN]
    ]
    rows += [
        Row(
            "tasks",
            task.name,
            {
                "classes": Figure(task.classes),
                "training texts": Figure(task.training),
                "validation texts": Figure(task.validation),
                "test texts": Figure(len(task.right_N)),
                "encoder and head alone, %": Figure(100 * float(task.right_N.mean())),
            },
        )
        for task in found.tasks
    ]
    return Result(
        room=ROOM,
        paper="Mixture of Routers (arXiv 2503.23362)",
        claim="several sub-routers under a main router, as a plug-in for LoRA experts, gain about 1 % on average",
        verdict=verdict(found, len(seeds)),
        command=command,
        rows=rows,
        seeds=list(seeds),
        interval="95 %; Student's over the seeds, or where a column says so of a bootstrap over the test texts; paired",
        machine=this_machine(threads=1),
    )


def difference(found: Findings, task: str, arm: str, control: str) -> dict[str, Figure]:
    """Points of accuracy that an arm gains over another on one task, or on MEAN, all tasks counting alike."""
    names = [one.name for one in found.tasks] if task == MEAN else [task]
    gains = [_gain_SN(found, name, arm, control) for name in names]
    over_seeds = students_mean(np.mean([gain_SN.mean(1) for gain_SN in gains], axis=0))
    over_texts = stratified_bootstrap([gain_SN.mean(0) for gain_SN in gains])
    return {"gain, points": over_seeds, "gain, points, over texts": over_texts}


def verdict(found: Findings, seeds: int) -> str:
    """One sentence: what the mixtures gain, whether that is more than the noise, and whether 1 point could be true."""
    gains = [difference(found, MEAN, arm, control) for arm, control in _pairs()]
    shown = [_shown(gain) for gain in gains]
    said = [
        f"{gain.text(signed=True, digits=2)} over the {control} for the {arm}"
        for gain, (arm, control) in zip(shown, _pairs(), strict=True)
    ]
    # Zero lies outside of both intervals: other seeds and other texts would have shown it too.
    beyond = [gain for gain in gains if all(figure.side() for figure in gain.values())]
    if seeds < ENOUGH:
        conclusion = f"a first look, as a verdict wants {ENOUGH} seeds"
    elif not beyond:
        conclusion = "none is beyond the noise, a null result"
    elif all(gain["gain, points"].value > 0 for gain in beyond) and len(beyond) == len(gains):
        conclusion = "all are beyond the noise"
    else:
        conclusion = f"{len(beyond)} of {len(gains)} are beyond the noise"
    above = all(gain.side(CLAIMED) < 0 for gain in shown)
    holding = sum(gain.side(CLAIMED) == 0 for gain in shown)
    possible = "lies above all of these intervals" if above else f"lies within {holding} of these {len(shown)}"
    return (
        f"In points of accuracy, over {len(found.tasks)} tasks and {seeds} seed{'s' * (seeds > 1)}, the mixtures gain "
        f"{', '.join(said)}: {conclusion}, and the paper's gain of about 1 % {possible}."
    )


def plot_gains(found: Findings, path: Path) -> None:
    """The differences of each task and of their mean, with their intervals over the seeds, as a PNG."""
    tasks = [*(task.name for task in found.tasks), MEAN]
    with plot(path, 8, 4.5) as (axes,):
        for number, (arm, control) in enumerate(_pairs()):
            gains = [difference(found, task, arm, control)["gain, points"] for task in tasks]
            ends = np.array([[g.value - (g.low or g.value), (g.high or g.value) - g.value] for g in gains]).T
            at = np.arange(len(tasks)) + (number - 1.5) * 0.15
            axes.errorbar(at, [g.value for g in gains], ends, fmt="o", capsize=3, label=f"{arm} against {control}")
        axes.axhline(0, color="0.5", linewidth=1)
        axes.axhline(CLAIMED, color="0.5", linewidth=1, linestyle=":", label="the paper's claim")
        axes.set_xticks(range(len(tasks)), tasks)
        axes.set(ylabel="points of accuracy", title="What a mixture of routers gains")
        axes.figure.legend(fontsize="small", loc="outside lower center", ncols=2)


def _pairs() -> list[tuple[str, str]]:
    return [(arm, control) for arm, wide in WIDE_CONTROL.items() for control in (CONTROL, wide)]


def _arm(found: Findings, task: str, arm: str) -> dict[str, Figure]:
    outcomes = found.outcomes[task][arm]

    def over_seeds(values: Sequence[float]) -> Figure:
        return students_mean(np.array(values, np.float64))

    figures = {
        "accuracy, %": over_seeds([100 * float(one.right_N.mean()) for one in outcomes]),
        "load, coefficient of variation": over_seeds([one.load for one in outcomes]),
        "trained parameters": Figure(outcomes[0].parameters),
        "training, CPU s": over_seeds([one.seconds for one in outcomes]),
    }
    if arm in WIDE_CONTROL:
        figures["sub-routers agree, %"] = over_seeds([100 * one.agreement for one in outcomes])
        figures["sub-routers' divergence"] = over_seeds([one.divergence for one in outcomes])
    return figures


def _gain_SN(found: Findings, task: str, arm: str, control: str) -> FloatArray:
    def right_SN(outcomes: Sequence[Outcome]) -> FloatArray:
        return np.array([one.right_N for one in outcomes], np.float64)

    return 100 * (right_SN(found.outcomes[task][arm]) - right_SN(found.outcomes[task][control]))


def _shown(gain: dict[str, Figure]) -> Figure:
    """With the interval over the seeds; of a single seed, over the texts."""
    return gain["gain, points"] if gain["gain, points"].high is not None else gain["gain, points, over texts"]

