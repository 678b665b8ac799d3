"""From what every router measured to the tables and the verdict. Axis names: S seeds, P passages."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mofme.core.routers import RouterKind
from mofme.language.attention_router.study import ROUTERS, Measured, Study
from mofme.language.scoring import FloatArray
from mofme.measure.plots import intervals, plot
from mofme.measure.result import Figure, Result, Row, this_machine
from mofme.measure.statistics import students_mean

TITLES = {"linear": "linear router", "mlp": "two-layer router", "attention": "attention router"}
PAIRS: tuple[tuple[RouterKind, RouterKind], ...] = (("attention", "linear"), ("attention", "mlp"), ("mlp", "linear"))
CLAIMED = 0.008  # nats, test loss 2.117 against 2.109 with 8 experts (table 2 of the paper)
_OVER_SEEDS = "gain, nats a token (seeds)"
_TO_SEE = "smallest gain these seeds can tell, nats"


def as_result(found: Study, seeds: Sequence[int], command: str) -> Result:
    """Everything that `study` measured, beside the paper's claim."""
    rows = [Row("held-out loss, nats a token", TITLES[router], _losses(found.arms[router])) for router in ROUTERS]
    rows += [
        Row("differences", f"{TITLES[first]} against {TITLES[second]}", _difference(found, first, second))
        for first, second in PAIRS
    ]
    rows += [Row("loads and cost", TITLES[router], _cost(found, router)) for router in ROUTERS]
    return Result(
        room="attention_router",
        paper="Yuan 2.0-M32 (arXiv 2405.17976)",
        claim="A router that accounts for the correlation between experts selects them better than a linear one: with "
        f"8 experts a test loss of 2.109 against 2.117, {CLAIMED} nats less",
        verdict=_verdict(found),
        command=command,
        rows=rows,
        seeds=list(seeds),
        interval="95 %; Student's over the paired seeds or, where it says so, over the passages, and over the repeats "
        "of the time",
        machine=this_machine(threads=1),
    )


def _losses(seeds: Sequence[Measured]) -> dict[str, Figure]:
    texts = list(seeds[0].scores)
    figures = {"all texts": students_mean(np.array([one.score.nats for one in seeds]))}
    return figures | {text: students_mean(np.array([one.scores[text].nats for one in seeds])) for text in texts}


def gains(found: Study, first: RouterKind, second: RouterKind) -> FloatArray:
    """What the first gains over the second in nats a token, (S, P): positive where it predicts better."""
    pairs = zip(found.arms[first], found.arms[second], strict=True)
    return np.array([(theirs.score.nats_W - ours.score.nats_W) / ours.score.tokens_W for ours, theirs in pairs])


def _difference(found: Study, first: RouterKind, second: RouterKind) -> dict[str, Figure]:
    gain_SP = gains(found, first, second)
    over_seeds = students_mean(gain_SP.mean(1))
    figures = {_OVER_SEEDS: over_seeds, "gain, nats a token (passages)": students_mean(gain_SP.mean(0))}
    if over_seeds.low is not None:
        figures[_TO_SEE] = Figure(over_seeds.value - over_seeds.low)
    return figures


def _cost(found: Study, router: RouterKind) -> dict[str, Figure]:
    arms, linear = found.arms[router], found.seconds["linear"]
    return {
        "load entropy": students_mean(np.array([one.load_entropy for one in arms])),
        "parameters": Figure(arms[0].parameters),
        "of these in routers": Figure(arms[0].router_parameters),
        "CPU time of 1,024 tokens, ms": students_mean(1000 * found.seconds[router]),
        "time against linear": students_mean(found.seconds[router] / linear),
        "training, CPU s": students_mean(np.array([one.training_seconds for one in arms])),
    }


def _verdict(found: Study) -> str:
    by_pair = {pair: _difference(found, *pair) for pair in PAIRS}
    linear, mlp = (by_pair["attention", other] for other in ("linear", "mlp"))
    plan = found.setting.plan
    entropy = [float(np.mean([one.load_entropy for one in found.arms[router]])) for router in ROUTERS]
    return (
        f"After {plan.steps * plan.batch * plan.context / 1e6:.1f} M tokens the attention router is "
        f"{_said(linear[_OVER_SEEDS])} nats a token than the linear router and {_said(mlp[_OVER_SEEDS])} than a "
        f"two-layer router of as many parameters; {_resolution(linear.get(_TO_SEE))}; load entropy is "
        f"{entropy[0]:.2f} with the linear, {entropy[1]:.2f} with the two-layer and {entropy[2]:.2f} with the "
        "attention router."
    )


def _said(gain: Figure) -> str:
    sign, word = (1, "better") if gain.value >= 0 else (-1, "worse")
    words = f"{word} by {gain.map(lambda nats: sign * nats).text(digits=4)}"
    return f"{words} with one seed" if gain.low is None else f"{words[:-1]}, {gain.noise()} of the seeds)"


def _resolution(to_see: Figure | None) -> str:
    if to_see is None:
        return f"one seed cannot tell the published gain of {CLAIMED}"
    could = "could" if to_see.value <= CLAIMED else "could not"
    return f"the published gain of {CLAIMED} {could} be seen here, where {to_see.value:.4f} is the least that can"


def plot_losses(found: Study, path: Path) -> None:
    """A point for each seed, the mean with its interval, and the published gain, as a PNG."""
    gains_PS = [gains(found, *pair).mean(1) for pair in PAIRS]
    titles = [f"{TITLES[first]}\nagainst {TITLES[second]}" for first, second in PAIRS]
    with plot(path, 8, 3) as (axes,):
        intervals(axes, dict(zip(titles, map(students_mean, gains_PS), strict=True)))
        for place, gain_S in enumerate(gains_PS):
            axes.plot(gain_S, [place + 0.18] * len(gain_S), ".", color="0.5", markersize=5)
        axes.axvline(0, color="0.6", linewidth=1)
        axes.axvline(CLAIMED, color="C1", linestyle=":", label="published: attention against linear")
        axes.set(xlabel="gain on held-out text, nats a token (dots: seeds)")
        axes.legend(fontsize="small")
