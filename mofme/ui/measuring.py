"""What a measurement of uploads has found so far, whether of pairs or of labelled frames."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean

import torch
from torch import Tensor

from mofme.measure.result import Result
from mofme.ui.figures import save_picture, thumbnail
from mofme.ui.jobs import Job
from mofme.ui.plots import bar_plot, scatter_plot
from mofme.vision.restorer import Restoration, Restorer

SHOWN = 3  # worst pictures, and best ones
_STRIP_SIDE = 400


@dataclass(frozen=True)
class Case:
    """One picture: a score before and after restoring, and the strip of pictures that shows it."""

    name: str
    before: float
    after: float
    strip: Path


@dataclass
class Measuring:
    """`cases` by set and `errors` by name so far, of `total` pictures; at the end the result and the report.

    `score` and `unit` name what a case's numbers are.
    """

    total: int
    score: str
    unit: str
    cases: dict[str, list[Case]] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)
    done: int = 0
    result: Result | None = None
    archive: Path | None = None

    def plots(self) -> list[str]:
        """Means of each set, and every picture, as SVG."""
        means = {
            name: (fmean(case.before for case in cases), fmean(case.after for case in cases))
            for name, cases in self.cases.items()
            if cases
        }
        dots = {name: [(case.name, case.before, case.after) for case in self.cases[name]] for name in means}
        title = f"{self.score}, {self.unit}"
        return [bar_plot(f"Mean {title}", means), scatter_plot(f"{title}, every picture", dots)]

    def worst(self) -> list[tuple[str, str]]:
        """Strips and captions of the pictures that lost most, or gained least."""
        ranked = self._ranked()
        return ranked[: min(SHOWN, (len(ranked) + 1) // 2)]

    def best(self) -> list[tuple[str, str]]:
        """Strips and captions of the pictures that gained most, other than the worst."""
        ranked = self._ranked()
        return ranked[: -SHOWN - 1 : -1][: len(ranked) // 2]

    def _ranked(self) -> list[tuple[str, str]]:
        cases = [case for some in self.cases.values() for case in some]
        cases.sort(key=lambda case: case.after - case.before)
        return [(str(case.strip), f"{case.name} · {case.after - case.before:+.1f} {self.unit}") for case in cases]


class Watched:
    """A restorer that can be stopped, and remembers what it restored last."""

    def __init__(self, restorer: Restorer, job: Job) -> None:
        self._restorer, self._job = restorer, job
        self.last = torch.empty(0)

    def __call__(self, image: Tensor, /) -> Restoration:
        self._job.check()
        restoration = self._restorer(image, on_progress=lambda _: self._job.check())
        self.last = restoration.image
        return restoration


def save_strip(path: Path, pictures: Sequence[Tensor]) -> None:
    """Write pictures (3, H, W) of equal size side by side, small."""
    path.parent.mkdir(parents=True, exist_ok=True)
    save_picture(torch.cat([thumbnail(picture, _STRIP_SIDE) for picture in pictures], dim=2), path)
