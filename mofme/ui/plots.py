"""Two small plots as SVG: they follow the page's text colour, need no script, and are files for the report."""

import html
import math
from collections.abc import Mapping, Sequence

# Readable side by side by the colour-blind (Okabe and Ito), on white and on black.
COLOURS = ("#0f8a7c", "#d55e00", "#56a0e0", "#c0699a", "#b8860b", "#7a6fd0")
BEFORE = "#94a3b8"
_WIDTH = 360  # of a phone: larger screens scale the plot up


def bar_plot(title: str, bars: Mapping[str, tuple[float, float]]) -> str:
    """Two bars a row, before and after, from 0 to the largest of all; values in the unit that `title` names."""
    most = max((value for pair in bars.values() for value in pair), default=0) or 1
    digits = 1 if most >= 10 else 3
    parts = [_text(0, 14, title, "font-weight='600'"), _legend(30, {"before": BEFORE, "after": COLOURS[0]})]
    top = 56
    for name, pair in bars.items():
        parts.append(_text(0, top, name))
        for offset, value, colour in zip((6, 22), pair, (BEFORE, COLOURS[0]), strict=True):
            length = max(0, value) / most * (_WIDTH - 60)
            parts.append(f"<rect x='0' y='{top + offset}' width='{length:.1f}' height='14' rx='3' fill='{colour}'/>")
            parts.append(_text(length + 6, top + offset + 11, f"{value:.{digits}f}"))
        top += 58
    return _svg(title, parts, top - 12)


def scatter_plot(title: str, sets: Mapping[str, Sequence[tuple[str, float, float]]]) -> str:
    """One dot a picture (its name, before, after): above the diagonal it became better."""
    values = [value for dots in sets.values() for _, before, after in dots for value in (before, after)]
    low, high = min(values, default=0), max(values, default=1)
    margin = 0.05 * (high - low) or 1
    low, high = low - margin, high + margin
    left, side = 40, _WIDTH - 50
    colours = {name: COLOURS[number % len(COLOURS)] for number, name in enumerate(sets)}
    shown = colours if len(sets) > 1 else {}
    top = 28 + 18 * max((line + 1 for _, line in _legend_places(shown)), default=0)

    def at(value: float) -> float:
        return (value - low) / (high - low) * side

    parts = [_text(0, 14, title, "font-weight='600'"), _legend(34, shown)]
    parts.append(
        f"<rect x='{left}' y='{top}' width='{side}' height='{side}' fill='none' stroke='currentColor' opacity='.3'/>"
        "<path stroke='currentColor' opacity='.4' stroke-dasharray='4 4' "
        f"d='M{left} {top + side}L{left + side} {top}'/>"
    )
    for tick in _ticks(low, high):
        x, y = left + at(tick), top + side - at(tick)
        parts.append(_text(x, top + side + 16, f"{tick:g}", "text-anchor='middle'"))
        parts.append(_text(left - 6, y + 4, f"{tick:g}", "text-anchor='end'"))
    for name, dots in sets.items():
        for picture, before, after in dots:
            parts.append(
                f"<circle cx='{left + at(before):.1f}' cy='{top + side - at(after):.1f}' r='4' fill='{colours[name]}' "
                f"fill-opacity='.75'><title>{html.escape(picture)}: {before:.2f}, {after:.2f}</title></circle>"
            )
    parts.append(_text(left + side / 2, top + side + 34, "before", "text-anchor='middle'"))
    parts.append(_text(left + 8, top + 16, "after: better above the line", "opacity='.75'"))
    return _svg(title, parts, top + side + 40)


def _ticks(low: float, high: float) -> list[float]:
    """Round numbers between the two, about five."""
    power = 10 ** math.floor(math.log10((high - low) / 5))
    step = next(step for step in (power, 2 * power, 5 * power, 10 * power) if step >= (high - low) / 5)
    return [round(step * number, 6) for number in range(math.ceil(low / step), math.floor(high / step) + 1)]


def _legend_places(colours: Mapping[str, str]) -> list[tuple[float, int]]:
    """Left edge and line of each entry, wrapped at the plot's width."""
    places, x, line = [], 0.0, 0
    for name in colours:
        width = 26 + 6.6 * len(name)
        if x and x + width > _WIDTH:
            x, line = 0.0, line + 1
        places.append((x, line))
        x += width
    return places


def _legend(y: float, colours: Mapping[str, str]) -> str:
    return "".join(
        f"<rect x='{x:.0f}' y='{y + 18 * line - 9}' width='10' height='10' rx='2' fill='{colour}'/>"
        + _text(x + 15, y + 18 * line, name)
        for (name, colour), (x, line) in zip(colours.items(), _legend_places(colours), strict=True)
    )


def _text(x: float, y: float, words: str, more: str = "") -> str:
    return f"<text x='{x:.1f}' y='{y:.1f}' {more}>{html.escape(words)}</text>"


def _svg(title: str, parts: Sequence[str], height: float) -> str:
    # As a file it is dark on white; on the page, the style sheet gives it the page's colour.
    return (
        f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {_WIDTH} {height:.0f}' role='img' color='#334155' "
        f"font-family='system-ui, sans-serif' font-size='12' fill='currentColor' aria-label='{html.escape(title)}'>"
        f"{''.join(parts)}</svg>"
    )
