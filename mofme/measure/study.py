"""What a study keeps, so that stopped and started again it goes on from there, and the plots beside its tables."""

import json
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from mofme.errors import ModelError
from mofme.files import atomic_file
from mofme.measure.result import Figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Kept = TypeVar("Kept")


class Study:
    """A folder of what was measured under one setting, noted in `<note>.json` beside it.

    Raises ModelError, naming what differs, if the note tells of another setting: what was measured in another way is
    never taken for one's own. What was kept without any note is taken for the same.
    """

    def __init__(self, folder: Path, setting: Mapping[str, Any], note: str = "setting") -> None:
        self.folder = folder
        path, told = folder / f"{note}.json", json.loads(json.dumps(setting))
        if not path.is_file():
            with atomic_file(path, "w") as file:
                json.dump(told, file, indent=2)
        before = json.loads(path.read_text(encoding="utf-8"))
        if differing := sorted(name for name in before.keys() | told.keys() if before.get(name) != told.get(name)):
            raise ModelError(f"{path} tells of another {', '.join(differing)}: take another folder, or delete this one")

    def kept(self, name: str, kind: Callable[..., Kept], make: Callable[[], Kept]) -> Kept:
        """What `<name>.json` holds, or else what `make` makes, kept there: a dataclass of numbers, texts and arrays.

        It is always read from the file, so that a study that was stopped says what one says that was not. `kind` is
        the dataclass, or takes its fields by name.
        """
        path = self.folder / f"{name}.json"
        if not path.is_file():
            made: Any = make()
            with atomic_file(path, "w") as file:
                json.dump(asdict(made), file, default=np.ndarray.tolist)
        plain = json.loads(path.read_text(encoding="utf-8"))
        return kind(**{field: np.array(value) if isinstance(value, list) else value for field, value in plain.items()})


class Log:
    """Rows that are written down as soon as they are measured, a JSON object a line."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)

    def rows(self) -> list[dict[str, Any]]:
        """All rows so far. Where writing the last one was cut short, the log goes on after the one before."""
        lines = self.path.read_bytes().splitlines(keepends=True) if self.path.is_file() else []
        if lines and not lines[-1].endswith(b"\n"):
            with self.path.open("r+b") as file:
                file.truncate(self.path.stat().st_size - len(lines.pop()))
        return [json.loads(line) for line in lines]

    def append(self, row: Mapping[str, Any]) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")


def fingerprint(value: object) -> int:
    """A number that another text, or other questions, hardly share."""
    return zlib.crc32(repr(value).encode("utf-8", "surrogatepass"))


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
