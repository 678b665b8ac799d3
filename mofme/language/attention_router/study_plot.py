"""The study as a picture: what each seed gained, router against router."""

from pathlib import Path

from matplotlib.figure import Figure as Canvas

from mofme.files import atomic_file
from mofme.language.attention_router.study import Study
from mofme.language.attention_router.study_result import CLAIMED, PAIRS, TITLES, gains
from mofme.measure.statistics import students_mean


def plot_losses(found: Study, path: Path) -> None:
    """A point for each seed, the mean with its interval, and the published gain, as a PNG."""
    canvas = Canvas(figsize=(8, 3), layout="constrained")
    axes = canvas.subplots()
    for place, (first, second) in enumerate(PAIRS):
        gain_S = gains(found, first, second).mean(1)
        mean = students_mean(gain_S)
        if mean.low is not None and mean.high is not None:
            axes.plot([mean.low, mean.high], [place, place], color="C0", linewidth=2)
        axes.plot(mean.value, place, "o", color="C0")
        axes.plot(gain_S, [place + 0.18] * len(gain_S), ".", color="0.5", markersize=5)
    axes.axvline(0, color="0.6", linewidth=1)
    axes.axvline(CLAIMED, color="C1", linestyle=":", label="published: attention against linear")
    axes.set_yticks(range(len(PAIRS)), [f"{TITLES[first]}\nagainst {TITLES[second]}" for first, second in PAIRS])
    axes.invert_yaxis()
    axes.set(xlabel="gain on held-out text, nats a token (dots: seeds)")
    axes.legend(fontsize="small")
    with atomic_file(path) as file:
        canvas.savefig(file, format="png", dpi=110, metadata={"Software": None})
