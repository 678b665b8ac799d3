"""Lines over the steps of a training, as SVG."""

from collections.abc import Mapping, Sequence

from mofme.ui.svg import COLOURS, WIDTH, drawing, legend, legend_height, text, ticks

_LEFT, _RIGHT, _HEIGHT = 44, WIDTH - 12, 200

Line = Sequence[tuple[float, float]]


def line_plot(title: str, lines: Mapping[str, Line], steps: int) -> str:
    """Lines of (step, value), each under its name, from step 0 to `steps`."""
    colours = {name: COLOURS[number % len(COLOURS)] for number, name in enumerate(lines)}
    values = [value for line in lines.values() for _, value in line] or [0.0, 1.0]
    margin = 0.08 * (max(values) - min(values)) or 0.5
    low, high = min(values) - margin, max(values) + margin
    top = 32 + legend_height(colours)
    bottom = top + _HEIGHT

    def at(step: float, value: float) -> str:
        x = _LEFT + step / max(1, steps) * (_RIGHT - _LEFT)
        return f"{x:.1f} {bottom - (value - low) / (high - low) * _HEIGHT:.1f}"

    parts = [text(0, 14, title, "font-weight='600'"), legend(34, colours)]
    parts.append(
        f"<path d='M{_LEFT} {top}V{bottom}H{_RIGHT}' fill='none' stroke='currentColor' opacity='.4'/>"
        + text((_LEFT + _RIGHT) / 2, bottom + 34, "steps", "text-anchor='middle'")
    )
    for tick in ticks(0, max(1, steps)):
        parts.append(text(float(at(tick, low).split()[0]), bottom + 16, f"{tick:g}", "text-anchor='middle'"))
    for tick in ticks(low, high):
        parts.append(text(_LEFT - 6, float(at(0, tick).split()[1]) + 4, f"{tick:g}", "text-anchor='end'"))
    for name, line in lines.items():
        if line:
            points = "L".join(at(step, value) for step, value in line)
            parts.append(f"<path d='M{points}' fill='none' stroke='{colours[name]}' stroke-width='2'/>")
            x, y = at(*line[-1]).split()
            parts.append(f"<circle cx='{x}' cy='{y}' r='3' fill='{colours[name]}'/>")
    return drawing(title, parts, bottom + 40)
