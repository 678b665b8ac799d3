"""The Lab: a card for each experiment, which opens on a page of its own, so that the app itself opens fast."""

import html
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from mofme.ui.models import Services

_WIDTH, _HEIGHT = 160, 84


@dataclass(frozen=True)
class Experiment:
    """What a card shows: a name, what it is good for in one plain sentence, and what is drawn in 160 x 84 units."""

    name: str
    use: str
    drawn: str
    build: Callable[[Services], None]

    @property
    def address(self) -> str:
        return address_of(self.name)


def address_of(name: str) -> str:
    """As links write the name of a tab or an experiment."""
    return name.lower().replace(" ", "-")


def cards(groups: Mapping[str, Sequence[Experiment]]) -> str:
    """All cards under their headings (HTML)."""
    return "".join(
        f"<h3>{html.escape(group)}</h3><div class='cards'>{''.join(map(_card, experiments))}</div>"
        for group, experiments in groups.items()
    )


def _card(experiment: Experiment) -> str:
    return (
        f"<a class='card' href='{experiment.address}'><svg viewBox='0 0 {_WIDTH} {_HEIGHT}' aria-hidden='true'>"
        f"{experiment.drawn}</svg><b>{html.escape(experiment.name)}</b><span>{html.escape(experiment.use)}</span></a>"
    )


def dot(x: float, y: float, radius: float = 5, on: bool = False) -> str:
    return f"<circle cx='{x:g}' cy='{y:g}' r='{radius:g}'{_on(on)}/>"


def box(x: float, y: float, width: float, height: float, on: bool = False) -> str:
    return f"<rect x='{x:g}' y='{y:g}' width='{width:g}' height='{height:g}' rx='3'{_on(on)}/>"


def path(data: str, on: bool = False, more: str = "") -> str:
    """A line, as SVG writes paths."""
    return f"<path d='{data}' {more}{_on(on)}/>"


def _on(on: bool) -> str:
    return " class='on'" if on else ""


def _rays(x: float, y: float, ends: Sequence[tuple[float, float]]) -> str:
    return path("".join(f"M{x:g} {y:g}L{to_x:g} {to_y:g}" for to_x, to_y in ends))


_HILLS = "M{0} 58l14 -18l10 12l8 -9l12 15"
_FIVE = [(80, 12), (112, 34), (100, 70), (60, 70), (48, 34)]
_COLUMN = [(128, 16), (128, 42), (128, 68)]
_SPEECH = "M16 24h46q6 0 6 6v18q0 6 -6 6h-30l-10 10v-10h-6q-6 0 -6 -6v-18q0 -6 6 -6z"

# Before and after, and how far apart they are.
EVALUATE = (
    box(14, 14, 56, 48)
    + path(_HILLS.format(18))
    + "".join(path(f"M{x} 18l-6 14") for x in (32, 46, 60))
    + box(90, 14, 56, 48)
    + path(_HILLS.format(94), on=True)
    + path("M14 74h132M14 70v8M47 71v6M80 70v8M113 71v6M146 70v8")
)
# The way of a photo moved from one expert to another.
REROUTING = (
    box(10, 26, 40, 32)
    + path("M54 42C86 42 86 16 121 16", more="stroke-dasharray='4 4'")
    + path("M54 42C86 42 86 68 119 68", on=True)
    + "".join(dot(x, y, 7, on=y > 60) for x, y in _COLUMN)
)
# A question, and which of three models of different size is asked.
LLM_ROUTING = (
    path(_SPEECH)
    + path("M22 34h34M22 43h22")
    + _rays(70, 40, [(116, 18), (108, 66)])
    + path("M70 40L110 40", on=True)
    + dot(124, 14, 6)
    + dot(122, 40, 9, on=True)
    + dot(124, 68, 13)
)
# The same question, a little reworded, goes astray.
ROUTER_ROBUSTNESS = (
    path("M14 20h40v14h-40zM14 52h40v14h-40z")
    + path("M20 27h28M20 59h14")
    + path("M38 59h10", on=True)
    + path("M58 27H112", more="")
    + path("M58 59C84 59 84 28 100 29", on=True, more="stroke-dasharray='4 4'")
    + path("M94 58l6 6l12 -12")
    + dot(124, 27, 9)
    + dot(126, 60, 7)
)
# All neurons at work, and a few.
DENSE_TO_MOE = (
    "".join(dot(16 + 12 * column, 18 + 16 * row, 4, on=True) for row in range(4) for column in range(4))
    + path("M68 42h22m-7 -6l7 6l-7 6")
    + "".join(
        dot(108 + 12 * column, 18 + 16 * row, 4, on=(row, column) in {(0, 1), (1, 1), (3, 2), (2, 2)})
        for row in range(4)
        for column in range(4)
    )
)
# A large net fills a small one.
DISTILLATION = (
    dot(46, 42, 32)
    + "".join(dot(x, y, 5, on=True) for x, y in [(34, 28), (58, 28), (30, 48), (46, 60), (62, 48), (46, 42)])
    + path("M84 42h22m-7 -6l7 6l-7 6")
    + dot(132, 42, 17)
    + "".join(dot(x, y, 3.5, on=True) for x, y in [(127, 36), (138, 38), (131, 49)])
)
# Three routers vote, a main one decides.
MIXTURE_OF_ROUTERS = (
    "".join(dot(26, y, 6) for y in (16, 42, 68))
    + "".join(path(f"M34 {y}L68 42") for y in (16, 42, 68))
    + path("M70 42l12 -12l12 12l-12 12z", on=True)
    + path("M95 42L120 42", on=True)
    + "".join(dot(x, y, 7, on=y == 42) for x, y in _COLUMN)
)
# Experts that look at one another.
ATTENTION_ROUTER = "".join(_rays(x, y, _FIVE[number + 1 :]) for number, (x, y) in enumerate(_FIVE[:-1])) + "".join(
    dot(x, y, 8, on=number in (1, 3)) for number, (x, y) in enumerate(_FIVE)
)
# A digit, of cells that are on or off.
BINARY_WEIGHTS = "".join(
    box(48 + 13 * column, 6 + 12 * row, 10, 9, on=cell == "x")
    for row, cells in enumerate(("xxxxx", "....x", "...x.", "..x..", "..x..", "..x.."))
    for column, cell in enumerate(cells)
)
# A leg that hops, and the choices behind it.
INTERPRETABLE_CONTROL = (
    dot(40, 18, 7)
    + path("M40 25L30 45L46 58L36 72h14", on=True)
    + path("M10 73h64")
    + _rays(118, 18, [(100, 42), (136, 42)])
    + _rays(100, 42, [(90, 68), (110, 68)])
    + "".join(dot(x, y, 5, on=(x, y) == (110, 68)) for x, y in [(118, 18), (100, 42), (136, 42), (90, 68), (110, 68)])
)
