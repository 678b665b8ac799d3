"""Plots as SVG that follows the page's text colour, needs no script, and is a file as well."""

import html
import math
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mofme.measure.result import Figure

# Readable side by side by the colour-blind (Okabe and Ito), on white and on black.
COLOURS = ("#0f8a7c", "#d55e00", "#56a0e0", "#c0699a", "#b8860b", "#7a6fd0")
GREY = "#94a3b8"
WIDTH = 360  # of a phone: larger screens scale the plot up
LEFT, RIGHT = 44, WIDTH - 14  # of a chart's frame

Point = tuple[float, float]

_LINE = 18  # height of one line of a legend
_LETTER = 6.6  # mean width of a letter
_LETTER_HEIGHT = 12
_POINTS = 30  # of a smoothed curve
_ROWS = 8  # of a plot of intervals
_FREE = 1e-6  # costs up to here are none


@dataclass(frozen=True)
class Axis:
    """The ends of a scale, how its ticks are written, and which values they have, if not about five round ones."""

    low: float
    high: float
    written: Callable[[float], str] = "{:g}".format
    ticks: Sequence[float] | None = None

    @classmethod
    def around(cls, values: Iterable[float], least: float = 0.5) -> "Axis":
        """With some room around the values, `least` where they are all one; from 0 to 1 around none."""
        values = list(values) or [0.0, 1.0]
        margin = 0.08 * (max(values) - min(values)) or least
        return cls(min(values) - margin, max(values) + margin)

    def share(self, value: float) -> float:
        """Where a value stands between the ends, from 0 to 1."""
        return (value - self.low) / (self.high - self.low)

    def marks(self) -> list[tuple[float, str]]:
        """The ticks and what is written at them."""
        ticks = _round_numbers(self.low, self.high) if self.ticks is None else self.ticks
        return [(tick, self.written(tick)) for tick in ticks]


class Chart:
    """Lines and dots in a frame with two scales; `names` have `colours` above it, and `across` stands below."""

    def __init__(
        self, title: str, names: Iterable[str], x: Axis, y: Axis, across: str = "", height: float = 200
    ) -> None:
        self.colours = {name: COLOURS[number % len(COLOURS)] for number, name in enumerate(names)}
        self.top = 28 + legend_height(self.colours)
        self.bottom = self.top + height
        self._title, self._x, self._y = title, x, y
        self._parts = [
            text(0, 14, title, "font-weight='600'"),
            legend(34, self.colours),
            f"<rect x='{LEFT}' y='{self.top}' width='{RIGHT - LEFT}' height='{height}' fill='none' "
            "stroke='currentColor' opacity='.3'/>",
            text((LEFT + RIGHT) / 2, self.bottom + 34, across, "text-anchor='middle'"),
        ]
        for tick, words in x.marks():
            self.add(text(self.at((tick, y.low))[0], self.bottom + 16, words, "text-anchor='middle'"))
        for tick, words in y.marks():
            self.add(text(LEFT - 6, self.at((x.low, tick))[1] + 4, words, "text-anchor='end'"))

    def at(self, point: Point) -> Point:
        """Where a point stands in the drawing."""
        return (
            LEFT + self._x.share(point[0]) * (RIGHT - LEFT),
            self.bottom - self._y.share(point[1]) * (self.bottom - self.top),
        )

    def add(self, part: str) -> None:
        """Draw a part of one's own."""
        self._parts.append(part)

    def line(self, points: Iterable[Point], colour: str, more: str = "stroke-width='2'") -> None:
        path = "L".join(f"{x:.1f} {y:.1f}" for x, y in map(self.at, points))
        self.add(f"<path d='M{path}' fill='none' stroke='{colour}' {more}/>")

    def dot(self, point: Point, colour: str, told: str = "", radius: float = 5, more: str = "") -> None:
        self.add(_dot(self.at(point), colour, told, radius, more))

    def svg(self) -> str:
        return drawing(self._title, self._parts, self.bottom + 40)


def line_plot(title: str, lines: Mapping[str, Sequence[Point]], steps: int, across: str = "steps") -> str:
    """Lines of (step, value), each under its name, from step 0 to `steps`; the last value of each is a dot."""
    values = (value for line in lines.values() for _, value in line)
    chart = Chart(title, lines, Axis(0, max(1, steps)), Axis.around(values), across)
    for name, line in lines.items():
        if line:
            chart.line(line, chart.colours[name])
            chart.dot(line[-1], chart.colours[name], radius=3)
    return chart.svg()


def learning_curves(title: str, losses: Mapping[str, Sequence[float]]) -> str:
    """`losses` of every step, by name, smoothed over batches. Raises ValueError if there are none."""
    steps = max(map(len, losses.values()))
    return line_plot(title, {name: _smooth(one) for name, one in losses.items()}, steps, f"steps 1 to {steps}")


def tradeoff_plot(title: str, across: str, dots: Mapping[str, tuple[float, Figure]]) -> str:
    """A dot, with its interval, for each name: what it costs, and the measured figure above it."""
    tall = [end for _, figure in dots.values() for end in (figure.value, figure.low, figure.high) if end is not None]
    chart = Chart(title, dots, Axis.around(cost for cost, _ in dots.values()), Axis.around(tall), across, 220)
    for name, (cost, figure) in dots.items():
        if figure.low is not None and figure.high is not None:
            ends = ((cost, figure.low), (cost, figure.high))
            chart.line(ends, chart.colours[name], "stroke-width='2' opacity='.5'")
        chart.dot((cost, figure.value), chart.colours[name], f"{name}: {figure.value:.1f}")
    return chart.svg()


def scatter_plot(title: str, sets: Mapping[str, Sequence[tuple[str, float, float]]]) -> str:
    """One dot a picture (its name, before, after): above the diagonal it became better."""
    axis = Axis.around((value for dots in sets.values() for dot in dots for value in dot[1:]), least=1)
    chart = Chart(title, sets if len(sets) > 1 else (), axis, axis, "before", RIGHT - LEFT)
    chart.line(((axis.low, axis.low), (axis.high, axis.high)), "currentColor", "opacity='.4' stroke-dasharray='4 4'")
    for name, dots in sets.items():
        for picture, before, after in dots:
            told = f"{picture}: {before:.2f}, {after:.2f}"
            chart.dot((before, after), chart.colours.get(name, COLOURS[0]), told, 4, "fill-opacity='.75'")
    chart.add(text(LEFT + 8, chart.top + 16, "after: better above the line", "opacity='.75'"))
    return chart.svg()


def cost_plot(
    title: str, models: Mapping[str, Point], curves: Mapping[str, Sequence[Point]], chosen: str | None = None
) -> str:
    """Cost (dollars per 1,000 prompts, by powers; at the left end what costs nothing) against quality (0 to 1): models
    as dots, named where there is room, routers as lines, a ring around `chosen`. Raises ValueError for nothing to draw.
    """
    points = [*models.values(), *(point for curve in curves.values() for point in curve)]
    powers = _powers([cost for cost, _ in points])
    low, high = min(quality for _, quality in points), max(quality for _, quality in points)
    margin = max(0.1 * (high - low), 0.02)
    percent = Axis(100 * max(low - margin, 0), 100 * min(high + margin, 1), "{:g} %".format)
    chart = Chart(title, curves, powers, percent, "dollars per 1,000 prompts", 250)

    def scaled(point: Point) -> Point:
        return max(math.log10(point[0]) if point[0] > _FREE else powers.low, powers.low), 100 * point[1]

    for name, curve in curves.items():
        chart.line(map(scaled, curve), chart.colours[name], "stroke-width='2.5'")
    for name, (cost, quality) in models.items():
        chart.dot(scaled((cost, quality)), GREY, f"{name}: {100 * quality:.0f} %, ${cost:.3g}", 4.5)
    if chosen is not None:
        chart.dot(scaled(models[chosen]), "none", radius=9, more=f"stroke='{COLOURS[1]}' stroke-width='3'")
    for part in _names({name: chart.at(scaled(point)) for name, point in models.items()}, chosen):
        chart.add(part)
    return chart.svg()


def bar_plot(title: str, bars: Mapping[str, tuple[float, float]]) -> str:
    """Two bars a row, before and after, from 0 to the largest of all; values in the unit that `title` names."""
    most = max((value for pair in bars.values() for value in pair), default=0) or 1
    digits = 1 if most >= 10 else 3
    parts = [text(0, 14, title, "font-weight='600'"), legend(30, {"before": GREY, "after": COLOURS[0]})]
    top = 56
    for name, pair in bars.items():
        parts.append(text(0, top, name))
        for offset, value, colour in zip((6, 22), pair, (GREY, COLOURS[0]), strict=True):
            length = max(0, value) / most * (WIDTH - 60)
            parts.append(f"<rect x='0' y='{top + offset}' width='{length:.1f}' height='14' rx='3' fill='{colour}'/>")
            parts.append(text(length + 6, top + offset + 11, f"{value:.{digits}f}"))
        top += 58
    return drawing(title, parts, top - 12)


def interval_plot(title: str, figures: Mapping[str, Figure], telling: str = "") -> str:
    """Dots with intervals under their names, on a scale that holds 0: `telling`, which stands out, and a few more."""
    names = [name for name in figures if name == telling or name in list(figures)[:_ROWS]]
    shown = {name: figures[name] for name in names}
    ends = [end for one in shown.values() for end in (one.value, one.low, one.high) if end is not None]
    axis = Axis.around([0, *ends])
    parts, y = [text(0, 14, title, "font-weight='600'")], 18.0

    def at(value: float) -> float:
        return 8 + axis.share(value) * (WIDTH - 16)

    for name, figure in shown.items():
        colour = COLOURS[0] if name == telling else GREY
        y += 7  # nearer to its own line than to the one above
        for line in textwrap.wrap(name, int(WIDTH / _LETTER / 1.15)):  # bold is wider
            y += 16
            parts.append(text(0, y, line, "font-weight='600'" if name == telling else "opacity='.85'"))
        y += 13
        if figure.low is not None and figure.high is not None:
            line = f"d='M{at(figure.low):.1f} {y:.1f}H{at(figure.high):.1f}' stroke='{colour}'"
            parts.append(f"<path {line} stroke-width='4' stroke-linecap='round' opacity='.5'/>")
        parts.append(_dot((at(figure.value), y), colour, f"{name}: {figure.text()}"))
    zero = f"<path d='M{at(0):.1f} 26V{y + 12:.1f}' stroke='currentColor' opacity='.4' stroke-dasharray='4 4'/>"
    marks = [text(at(tick), y + 28, words, "text-anchor='middle'") for tick, words in axis.marks()]
    return drawing(title, [zero, *parts, *marks], y + 34)


def drawing(title: str, parts: Sequence[str], height: float) -> str:
    """The SVG element that holds `parts`, `WIDTH` wide."""
    # As a file it is dark on white; on the page, the style sheet gives it the page's colour.
    return (
        f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {WIDTH} {height:.0f}' role='img' color='#334155' "
        f"font-family='system-ui, sans-serif' font-size='12' fill='currentColor' aria-label='{html.escape(title)}'>"
        f"{''.join(parts)}</svg>"
    )


def text(x: float, y: float, words: str, more: str = "") -> str:
    return f"<text x='{x:.1f}' y='{y:.1f}' {more}>{html.escape(words)}</text>"


def legend(y: float, colours: Mapping[str, str]) -> str:
    """Names beside their colours, the first line's foot at `y`."""
    return "".join(
        f"<rect x='{x:.0f}' y='{y + _LINE * line - 9}' width='10' height='10' rx='2' fill='{colour}'/>"
        + text(x + 15, y + _LINE * line, name)
        for (name, colour), (x, line) in zip(colours.items(), _places(colours), strict=True)
    )


def legend_height(names: Iterable[str]) -> int:
    return _LINE * max((line + 1 for _, line in _places(names)), default=0)


def _dot(place: Point, colour: str, told: str, radius: float = 5, more: str = "") -> str:
    """`told` is read when it is pointed at."""
    title = f"<title>{html.escape(told)}</title>" if told else ""
    return f"<circle cx='{place[0]:.1f}' cy='{place[1]:.1f}' r='{radius:g}' fill='{colour}' {more}>{title}</circle>"


def _round_numbers(low: float, high: float) -> list[float]:
    """Between the two, about five."""
    power = 10 ** math.floor(math.log10((high - low) / 5))
    step = next(step for step in (power, 2 * power, 5 * power, 10 * power) if step >= (high - low) / 5)
    return [round(step * number, 6) for number in range(math.ceil(low / step), math.floor(high / step) + 1)]


def _places(names: Iterable[str]) -> list[tuple[float, int]]:
    """Left edge and line of each entry of a legend, wrapped at the drawing's width."""
    places, x, line = [], 0.0, 0
    for name in names:
        width = 26 + _LETTER * len(name)
        if x and x + width > WIDTH:
            x, line = 0.0, line + 1
        places.append((x, line))
        x += width
    return places


def _smooth(losses: Sequence[float]) -> list[Point]:
    """Means of neighbouring steps, each in the middle of its steps."""
    if not losses:
        raise ValueError("no step, no curve")
    parts = np.array_split(np.arange(len(losses)), min(_POINTS, len(losses)))
    values = np.asarray(losses, float)
    return [(float(part.mean()) + 0.5, float(values[part].mean())) for part in parts]


def _powers(costs: Sequence[float]) -> Axis:
    """The logarithms of costs, with a place on the left for what costs nothing."""
    paid = [cost for cost in costs if cost > _FREE] or [1.0]
    low, high = math.log10(min(paid)), math.log10(max(paid))
    if min(costs) <= _FREE:
        low -= 0.5
    margin = max(0.08 * (high - low), 0.1)
    low, high = low - margin, high + margin
    for steps in ((1,), (1, 3), (1, 2, 5)):
        marks = [power + math.log10(step) for power in range(math.floor(low), math.ceil(high) + 1) for step in steps]
        marks = [mark for mark in marks if low <= mark <= high]
        if len(marks) >= 3:
            break
    return Axis(low, high, lambda power: f"${10**power:.3g}", marks[:: max(1, len(marks) // 5)])


def _names(placed: Mapping[str, Point], chosen: str | None) -> Iterator[str]:
    """Names beside their dots, the chosen one first, then from the best down, wherever there is room."""
    taken = [(x - 5, x + 5, y) for x, y in placed.values()]
    for name in sorted(placed, key=lambda name: (name != chosen, placed[name][1])):
        x, y = placed[name]
        letter, away = (1.15 * _LETTER, 13) if name == chosen else (_LETTER, 8)  # bold is wider
        width = letter * len(name)
        for left in (x + away, x - away - width):
            right = left + width
            free = all(right < start or end < left or abs(y - other) > _LETTER_HEIGHT for start, end, other in taken)
            if left > LEFT and right < RIGHT and free:
                taken.append((left, right, y))
                yield text(left, y + 4, name, "font-weight='600'" if name == chosen else "opacity='.85'")
                break
