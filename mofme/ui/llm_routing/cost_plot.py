"""Cost against quality as SVG: models as dots, routers as lines, and what was chosen in a ring."""

import html
import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise

from mofme.ui.svg import COLOURS, GREY, WIDTH, drawing, legend, legend_height, text, text_width, ticks

Point = tuple[float, float]  # dollars per 1,000 prompts, quality in [0, 1]

_LEFT, _RIGHT, _HEIGHT = 40, WIDTH - 14, 250
_LETTER_HEIGHT = 12
_FREE = 1e-6  # costs up to here are none


def cost_plot(
    title: str, models: Mapping[str, Point], curves: Mapping[str, Sequence[Point]], chosen: str | None = None
) -> str:
    """Costs stand on a logarithmic scale; what costs nothing stands at its left end.

    Names are written where they do not meet another; every dot tells its own when pointed at. Raises ValueError if
    there is nothing to draw.
    """
    points = [*models.values(), *(point for curve in curves.values() for point in curve)]
    across, costs = _cost_axis([cost for cost, _ in points])
    low, high = min(quality for _, quality in points), max(quality for _, quality in points)
    margin = max(0.1 * (high - low), 0.02)
    low, high = max(low - margin, 0), min(high + margin, 1)
    colours = {name: COLOURS[number % len(COLOURS)] for number, name in enumerate(curves)}
    top = 28 + legend_height(colours)
    bottom = top + _HEIGHT

    def place(point: Point) -> Point:
        return across(point[0]), bottom - (point[1] - low) / (high - low) * _HEIGHT

    parts = [
        text(0, 14, title, "font-weight='600'"),
        legend(34, colours),
        f"<rect x='{_LEFT}' y='{top}' width='{_RIGHT - _LEFT}' height='{_HEIGHT}' fill='none' "
        "stroke='currentColor' opacity='.3'/>",
        *(text(across(cost), bottom + 16, f"${cost:g}", "text-anchor='middle'") for cost in costs),
        *(
            text(_LEFT - 6, place((0, tick / 100))[1] + 4, f"{tick:g} %", "text-anchor='end'")
            for tick in ticks(100 * low, 100 * high)
        ),
        text((_LEFT + _RIGHT) / 2, bottom + 34, "dollars per 1,000 prompts", "text-anchor='middle'"),
    ]
    lines = [[place(point) for point in curve] for curve in curves.values()]
    for name, line in zip(curves, lines, strict=True):
        path = "L".join(f"{x:.1f} {y:.1f}" for x, y in line)
        parts.append(f"<path d='M{path}' fill='none' stroke='{colours[name]}' stroke-width='2.5'/>")
    placed = {name: place(point) for name, point in models.items()}
    for name, (x, y) in placed.items():
        cost, quality = models[name]
        told = f"{name}: {100 * quality:.0f} %, ${cost:.3g}"
        parts.append(
            f"<circle cx='{x:.1f}' cy='{y:.1f}' r='4.5' fill='{GREY}'><title>{html.escape(told)}</title></circle>"
        )
    if chosen is not None:
        x, y = placed[chosen]
        parts.append(f"<circle cx='{x:.1f}' cy='{y:.1f}' r='9' fill='none' stroke='{COLOURS[1]}' stroke-width='3'/>")
    parts += _names(placed, chosen, lines, top, bottom)
    return drawing(title, parts, bottom + 40)


def _cost_axis(costs: Sequence[float]) -> tuple["_Across", list[float]]:
    """Where a cost stands, and the costs to write below."""
    paid = [cost for cost in costs if cost > _FREE] or [1.0]
    low, high = math.log10(min(paid)), math.log10(max(paid))
    if min(costs) <= _FREE:
        low -= 0.5
    margin = max(0.08 * (high - low), 0.1)
    across = _Across(low - margin, high + margin)
    powers = range(math.floor(across.low), math.ceil(across.high) + 1)
    for steps in ((1,), (1, 3), (1, 2, 5)):
        marks = [step * 10.0**power for power in powers for step in steps]
        marks = [mark for mark in marks if across.low <= math.log10(mark) <= across.high]
        if len(marks) >= 3:
            break
    return across, marks[:: max(1, len(marks) // 5)]


class _Across:
    """The logarithmic scale between two powers of ten."""

    def __init__(self, low: float, high: float) -> None:
        self.low, self.high = low, high

    def __call__(self, cost: float) -> float:
        power = math.log10(cost) if cost > _FREE else self.low
        return _LEFT + (max(power, self.low) - self.low) / (self.high - self.low) * (_RIGHT - _LEFT)


def _names(
    placed: Mapping[str, Point], chosen: str | None, lines: Sequence[Sequence[Point]], top: float, bottom: float
) -> list[str]:
    """Names beside their dots, the chosen one first, then from the best down, wherever there is room."""
    taken = [_box(x, y, 10 if name == chosen else 5) for name, (x, y) in placed.items()]
    taken += [_box(x, y, 2) for line in lines for x, y in _along(line)]
    written = []
    for name in sorted(placed, key=lambda name: (name != chosen, placed[name][1])):
        x, y = placed[name]
        bold = name == chosen
        width, away = text_width(name) * (1.15 if bold else 1), 13 if bold else 8
        beside = [(left, foot) for foot in (y + 4, y + 14, y - 6) for left in (x + away, x - away - width)]
        beside += [(x - width * part, foot) for foot in (y - away, y + away + 9) for part in (0.5, 0, 1, 0.25, 0.75)]
        for left, foot in beside:
            box = (left, foot - _LETTER_HEIGHT + 2, left + width, foot + 1)
            inside = box[0] >= _LEFT and box[2] <= _RIGHT and box[1] >= top and box[3] <= bottom
            if inside and not any(_meet(box, other) for other in taken):
                taken.append(box)
                written.append(text(left, foot, name, "font-weight='600'" if bold else "opacity='.85'"))
                break
    return written


def _box(x: float, y: float, reach: float) -> tuple[float, float, float, float]:
    return x - reach, y - reach, x + reach, y + reach


def _along(line: Sequence[Point]) -> Iterator[Point]:
    """Points of a line, close together."""
    for (x, y), (to_x, to_y) in pairwise(line):
        steps = max(1, round(math.hypot(to_x - x, to_y - y) / 4))
        for step in range(steps + 1):
            yield x + (to_x - x) * step / steps, y + (to_y - y) * step / steps


def _meet(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]
