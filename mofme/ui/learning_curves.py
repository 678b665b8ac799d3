"""How losses fell while models learnt, as SVG: a line each, smoothed so that batches do not hide the trend."""

from collections.abc import Mapping, Sequence

import numpy as np

from mofme.ui.svg import COLOURS, WIDTH, drawing, legend, legend_height, text, ticks

_LEFT, _HEIGHT = 40, 170
_POINTS = 30


def learning_curves(title: str, losses: Mapping[str, Sequence[float]]) -> str:
    """`losses` of every step, by name. Raises ValueError if there are none."""
    curves = {name: _smooth(values) for name, values in losses.items()}
    steps = max(len(values) for values in losses.values())
    heights = [height for curve in curves.values() for _, height in curve]
    low, high = min(heights), max(heights)
    margin = 0.05 * (high - low) or 0.1
    low, high = low - margin, high + margin
    colours = {name: COLOURS[number % len(COLOURS)] for number, name in enumerate(curves)}
    top = 28 + legend_height(colours)
    bottom, right = top + _HEIGHT, WIDTH - 10
    parts = [
        text(0, 14, title, "font-weight='600'"),
        legend(34, colours),
        f"<rect x='{_LEFT}' y='{top}' width='{right - _LEFT}' height='{_HEIGHT}' fill='none' stroke='currentColor' "
        "opacity='.3'/>",
        text((_LEFT + right) / 2, bottom + 18, f"steps 1 to {steps}", "text-anchor='middle'"),
    ]
    for tick in ticks(low, high):
        y = bottom - (tick - low) / (high - low) * _HEIGHT
        parts.append(text(_LEFT - 6, y + 4, f"{tick:g}", "text-anchor='end'"))
    for name, curve in curves.items():
        path = "L".join(
            f"{_LEFT + step / steps * (right - _LEFT):.1f} {bottom - (loss - low) / (high - low) * _HEIGHT:.1f}"
            for step, loss in curve
        )
        parts.append(f"<path d='M{path}' fill='none' stroke='{colours[name]}' stroke-width='2.5'/>")
    return drawing(title, parts, bottom + 24)


def _smooth(losses: Sequence[float]) -> list[tuple[float, float]]:
    """Means of neighbouring steps, each in the middle of its steps."""
    if not losses:
        raise ValueError("no step, no curve")
    parts = np.array_split(np.arange(len(losses)), min(_POINTS, len(losses)))
    values = np.asarray(losses, float)
    return [(float(part.mean()) + 0.5, float(values[part].mean())) for part in parts]
