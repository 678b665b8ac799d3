"""Perplexity against activated parameters, as a picture."""

from pathlib import Path

from matplotlib.figure import Figure as Canvas

from mofme.files import atomic_file
from mofme.language.dense_to_moe.comparison import ARMS, DENSE, Comparison, Measured


def plot_frontier(comparison: Comparison, path: Path) -> None:
    """A line for each arm that was traced and a dot for each other arm, all with the first seed, as a PNG."""
    canvas = Canvas(figsize=(7, 4.2), layout="constrained")
    axes = canvas.subplots()
    for arm in ARMS:
        points = [comparison.arms[arm][0], *comparison.frontier.get(arm, {}).values()]
        if len(points) > 1:
            points.append(comparison.arms[DENSE][0])
        points.sort(key=lambda point: point.activated)
        colour = "black" if arm == DENSE else None
        axes.plot(*zip(*map(_place, points), strict=True), "o-", markersize=5, label=arm, color=colour)
    axes.set(xlabel="activated parameters of an average token, million", ylabel="perplexity")
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter("{x:g}")
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
    with atomic_file(path) as file:
        canvas.savefig(file, format="png", dpi=110)


def _place(point: Measured) -> tuple[float, float]:
    return point.activated / 1e6, point.text.perplexity
