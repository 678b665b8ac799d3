"""From what every arm measured to the tables and the verdict. Axis names: W windows, S seeds."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from mofme.language.dense_to_moe.comparison import (
    ARMS,
    CMOE,
    DENSE,
    OURS,
    PRUNED,
    RANDOM,
    UNIFORM,
    Comparison,
    Measured,
)
from mofme.language.dense_to_moe.cost import FloatArray
from mofme.language.scoring import BoolArray, TextScore
from mofme.measure.plots import plot
from mofme.measure.result import Figure, Result, Row, this_machine
from mofme.measure.statistics import median_by_ranks, students_mean, wider, wilson

_PAPER = "LaDiMo (arXiv 2408.04278)"
_FRONTIER = "frontier: built for the target, other policies chosen; first seed"
_CLAIM = "with 100K tokens a dense model becomes a mixture that activates over 20 % fewer parameters, accuracy kept"


def as_result(comparison: Comparison, seeds: Sequence[int], command: str, room: str = "dense_to_moe") -> Result:
    """Everything that `compare` measured, beside the paper's claim."""
    rows = [Row("quality", arm, _quality(comparison, arm)) for arm in ARMS]
    rows += [Row("differences", f"{OURS} against {arm}", _difference(comparison, arm)) for arm in ARMS if arm != OURS]
    rows += [Row(_FRONTIER, name, figures) for name, figures in _frontier(comparison)]
    rows += [Row("CPU time of one thread", arm, _time(comparison, arm)) for arm in comparison.seconds]
    return Result(
        room=room,
        paper=_PAPER,
        claim=_CLAIM,
        verdict=_verdict(comparison),
        command=command,
        rows=rows,
        seeds=list(seeds),
        interval="95 %; of the text Student's over its windows, of accuracy Wilson's over the questions, of "
        "differences Student's over windows or questions, or over seeds where that is wider, of time, a median, by "
        "ranks of the repeats",
        machine=this_machine(threads=1),
    )


def _quality(comparison: Comparison, arm: str) -> dict[str, Figure]:
    seeds = comparison.arms[arm]
    activated = float(np.mean([one.activated for one in seeds]))
    return {
        "activated parameters, M": Figure(activated / 1e6),
        "saved, %": Figure(100 * (1 - activated / comparison.parameters)),
        "perplexity": _text(seeds).perplexity_figure(),
        "nats a token": _text(seeds).nats_figure(),
        "accuracy, %": _share([one.right_N for one in seeds]),
        "accuracy, normalized, %": _share([one.right_normalized_N for one in seeds]),
    }


def _text(seeds: Sequence[Measured]) -> TextScore:
    """Each window's mean over the seeds."""
    return TextScore(np.mean([one.nats_W for one in seeds], axis=0), seeds[0].tokens_W)


def _share(right: Sequence[BoolArray]) -> Figure:
    """In percent. All seeds answer the same questions, so that the interval is that of one seed's number."""
    return wilson(float(np.mean(right)) * len(right[0]), len(right[0])).percent()


def _difference(comparison: Comparison, other: str) -> dict[str, Figure]:
    """What ours gains over another arm on the same windows and questions."""
    pairs = list(zip(comparison.arms[OURS], comparison.arms[other], strict=True))
    gain_SW = np.array([(theirs.nats_W - ours.nats_W) / ours.tokens_W for ours, theirs in pairs])
    right_SN = np.array([ours.right_normalized_N.astype(float) - theirs.right_normalized_N for ours, theirs in pairs])
    return {"gain, nats a token": _wider(gain_SW), "gain, points of normalized accuracy": _wider(100 * right_SN)}


def _wider(values_SX: FloatArray) -> Figure:
    """Mean with the wider of two intervals: over windows or questions, and over the seeds if there are several."""
    return wider(students_mean(values_SX.mean(0)), students_mean(values_SX.mean(1)))


def _frontier(comparison: Comparison) -> Iterator[tuple[str, dict[str, Figure]]]:
    for arm, points in comparison.frontier.items():
        for target, point in sorted([*points.items()], key=lambda one: one[0]):
            yield (
                f"{arm}: target {target:.0%}",
                {
                    "activated parameters, M": Figure(point.activated / 1e6),
                    "saved, %": Figure(100 * (1 - point.activated / comparison.parameters)),
                    "perplexity": point.text.perplexity_figure(),
                    "nats a token": point.text.nats_figure(),
                },
            )


def _time(comparison: Comparison, arm: str) -> dict[str, Figure]:
    taken, dense = comparison.seconds[arm], comparison.seconds[DENSE]
    figures = {}
    for column, name in enumerate(("read 256 tokens", "write one token")):
        figures[f"{name}, ms"] = median_by_ranks(1000 * taken[:, column])
        if arm != DENSE:
            figures[f"{name}: saved, %"] = median_by_ranks(100 * (1 - taken[:, column] / dense[:, column]))
    return figures


def _verdict(comparison: Comparison) -> str:
    dense, ours = _quality(comparison, DENSE), _quality(comparison, OURS)
    gains = ", ".join(
        f"{name} {_said(_difference(comparison, arm)['gain, nats a token'])}"
        for name, arm in (
            ("a random split", RANDOM),
            ("static pruning", PRUNED),
            ("a uniform top-k", UNIFORM),
            ("CMoE's way", CMOE),
        )
    )
    time = _time(comparison, OURS)
    accuracy = "accuracy, normalized, %"
    frontier = [
        f"{point.text.perplexity:.1f} with {100 * (1 - point.activated / comparison.parameters):.0f} %"
        for _, point in sorted(comparison.frontier.get(OURS, {}).items())
    ]
    along = f" Along the frontier perplexity is {', '.join(frontier)} fewer." if frontier else ""
    return (
        f"With {ours['saved, %'].value:.1f} % fewer activated parameters perplexity goes from "
        f"{dense['perplexity'].value:.1f} to {ours['perplexity'].value:.1f} and normalized accuracy from "
        f"{dense[accuracy].value:.1f} to {ours[accuracy].value:.1f} %.{along} In nats a token it gains over {gains}. "
        f"CPU time to read changes by {0 - time['read 256 tokens: saved, %'].value:+.0f} %, to write by "
        f"{0 - time['write one token: saved, %'].value:+.0f} %."
    )


def _said(figure: Figure) -> str:
    return f"{figure.value:+.3f}" + ("" if figure.low is None else f" ({figure.noise()})")


def plot_frontier(comparison: Comparison, path: Path) -> None:
    """A line for each arm that was traced and a dot for each other arm, all with the first seed, as a PNG."""
    with plot(path, 7, 4.2) as (axes,):
        for arm in ARMS:
            points = [comparison.arms[arm][0], *comparison.frontier.get(arm, {}).values()]
            if len(points) > 1:
                points.append(comparison.arms[DENSE][0])
            places = sorted((point.activated / 1e6, point.text.perplexity) for point in points)
            colour = "black" if arm == DENSE else None
            axes.plot(*zip(*places, strict=True), "o-", markersize=5, label=arm, color=colour)
        axes.set(xlabel="activated parameters of an average token, million", ylabel="perplexity", yscale="log")
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter("{x:g}")
        axes.grid(alpha=0.3)
        axes.legend(fontsize="small")
