"""The pictures beside the tables: one look, one way to write them."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from mofme.files import atomic_file
from mofme.measure.result import Figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@contextmanager
def plot(path: Path, width: float, height: float, columns: Sequence[float] = (1,)) -> Iterator[list["Axes"]]:
    """Axes to draw on, side by side by their relative widths, which the PNG at `path` shows if the block ends well.

    `width` and `height` are inches of all of them together.
    """
    from matplotlib.figure import Figure as Canvas  # takes half a second: not before it is needed

    canvas = Canvas(figsize=(width, height), layout="constrained")
    yield list(canvas.subplots(1, len(columns), width_ratios=columns, squeeze=False)[0])
    with atomic_file(path) as file:
        canvas.savefig(file, format="png", dpi=110, metadata={"Software": None})


def intervals(axes: "Axes", figures: Mapping[str, Figure]) -> None:
    """A line for each figure, the first on top: a dot, and a bar from end to end of its interval."""
    for place, figure in enumerate(figures.values()):
        if figure.low is not None and figure.high is not None:
            axes.plot([figure.low, figure.high], [place, place], color="C0", linewidth=2)
        axes.plot(figure.value, place, "o", color="C0")
    axes.set_yticks(range(len(figures)), list(figures), fontsize="small")
    axes.invert_yaxis()
    axes.grid(axis="x", alpha=0.3)
