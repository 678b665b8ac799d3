"""Two small plots of scores before and after, as SVG."""

import html
from collections.abc import Mapping, Sequence

from mofme.ui.svg import COLOURS, GREY, WIDTH, drawing, legend, legend_height, text, ticks


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


def scatter_plot(title: str, sets: Mapping[str, Sequence[tuple[str, float, float]]]) -> str:
    """One dot a picture (its name, before, after): above the diagonal it became better."""
    values = [value for dots in sets.values() for _, before, after in dots for value in (before, after)]
    low, high = min(values, default=0), max(values, default=1)
    margin = 0.05 * (high - low) or 1
    low, high = low - margin, high + margin
    left, side = 40, WIDTH - 50
    colours = {name: COLOURS[number % len(COLOURS)] for number, name in enumerate(sets)}
    shown = colours if len(sets) > 1 else {}
    top = 28 + legend_height(shown)

    def at(value: float) -> float:
        return (value - low) / (high - low) * side

    parts = [text(0, 14, title, "font-weight='600'"), legend(34, shown)]
    parts.append(
        f"<rect x='{left}' y='{top}' width='{side}' height='{side}' fill='none' stroke='currentColor' opacity='.3'/>"
        "<path stroke='currentColor' opacity='.4' stroke-dasharray='4 4' "
        f"d='M{left} {top + side}L{left + side} {top}'/>"
    )
    for tick in ticks(low, high):
        x, y = left + at(tick), top + side - at(tick)
        parts.append(text(x, top + side + 16, f"{tick:g}", "text-anchor='middle'"))
        parts.append(text(left - 6, y + 4, f"{tick:g}", "text-anchor='end'"))
    for name, dots in sets.items():
        for picture, before, after in dots:
            parts.append(
                f"<circle cx='{left + at(before):.1f}' cy='{top + side - at(after):.1f}' r='4' fill='{colours[name]}' "
                f"fill-opacity='.75'><title>{html.escape(picture)}: {before:.2f}, {after:.2f}</title></circle>"
            )
    parts.append(text(left + side / 2, top + side + 34, "before", "text-anchor='middle'"))
    parts.append(text(left + 8, top + 16, "after: better above the line", "opacity='.75'"))
    return drawing(title, parts, top + side + 40)
