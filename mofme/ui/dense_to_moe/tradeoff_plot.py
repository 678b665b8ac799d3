"""What each model costs and how well it does, as SVG."""

import html
from collections.abc import Mapping

from mofme.measure.result import Figure
from mofme.ui.svg import COLOURS, WIDTH, drawing, legend, legend_height, text, ticks

_LEFT, _RIGHT, _HEIGHT = 44, WIDTH - 12, 220


def tradeoff_plot(title: str, across: str, dots: Mapping[str, tuple[float, Figure]]) -> str:
    """A dot, with its interval, for each name: what it costs, and the measured figure above it."""
    colours = {name: COLOURS[number % len(COLOURS)] for number, name in enumerate(dots)}
    tall = [end for _, figure in dots.values() for end in (figure.value, figure.low, figure.high) if end is not None]
    low, high = _spread(tall)
    left, right = _spread([cost for cost, _ in dots.values()])
    top = 32 + legend_height(colours)
    bottom = top + _HEIGHT

    def at_x(cost: float) -> float:
        return _LEFT + (cost - left) / (right - left) * (_RIGHT - _LEFT)

    def at_y(value: float) -> float:
        return bottom - (value - low) / (high - low) * _HEIGHT

    parts = [text(0, 14, title, "font-weight='600'"), legend(34, colours)]
    parts.append(
        f"<path d='M{_LEFT} {top}V{bottom}H{_RIGHT}' fill='none' stroke='currentColor' opacity='.4'/>"
        + text((_LEFT + _RIGHT) / 2, bottom + 34, across, "text-anchor='middle'")
    )
    parts += [text(at_x(tick), bottom + 16, f"{tick:g}", "text-anchor='middle'") for tick in ticks(left, right)]
    parts += [text(_LEFT - 6, at_y(tick) + 4, f"{tick:g}", "text-anchor='end'") for tick in ticks(low, high)]
    for name, (cost, figure) in dots.items():
        x, y = at_x(cost), at_y(figure.value)
        if figure.low is not None and figure.high is not None:
            parts.append(
                f"<path d='M{x:.1f} {at_y(figure.low):.1f}V{at_y(figure.high):.1f}' stroke='{colours[name]}' "
                "stroke-width='2' opacity='.5'/>"
            )
        parts.append(
            f"<circle cx='{x:.1f}' cy='{y:.1f}' r='5' fill='{colours[name]}'>"
            f"<title>{html.escape(name)}: {figure.value:.1f}</title></circle>"
        )
    return drawing(title, parts, bottom + 40)


def _spread(values: list[float]) -> tuple[float, float]:
    """Ends with room around the values."""
    margin = 0.08 * (max(values) - min(values)) or 0.5
    return min(values) - margin, max(values) + margin
