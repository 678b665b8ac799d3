"""What the plots are drawn with: SVG that follows the page's text colour, needs no script, and is a file as well."""

import html
import math
from collections.abc import Mapping, Sequence

# Readable side by side by the colour-blind (Okabe and Ito), on white and on black.
COLOURS = ("#0f8a7c", "#d55e00", "#56a0e0", "#c0699a", "#b8860b", "#7a6fd0")
GREY = "#94a3b8"
WIDTH = 360  # of a phone: larger screens scale the plot up
LINE = 18  # height of one line of a legend
_LETTER = 6.6  # mean width of a letter


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


def text_width(words: str) -> float:
    """About how wide `words` are."""
    return _LETTER * len(words)


def legend(y: float, colours: Mapping[str, str]) -> str:
    """Names beside their colours, the first line's foot at `y`."""
    return "".join(
        f"<rect x='{x:.0f}' y='{y + LINE * line - 9}' width='10' height='10' rx='2' fill='{colour}'/>"
        + text(x + 15, y + LINE * line, name)
        for (name, colour), (x, line) in zip(colours.items(), _places(colours), strict=True)
    )


def legend_height(colours: Mapping[str, str]) -> int:
    return LINE * max((line + 1 for _, line in _places(colours)), default=0)


def ticks(low: float, high: float) -> list[float]:
    """Round numbers between the two, about five."""
    power = 10 ** math.floor(math.log10((high - low) / 5))
    step = next(step for step in (power, 2 * power, 5 * power, 10 * power) if step >= (high - low) / 5)
    return [round(step * number, 6) for number in range(math.ceil(low / step), math.floor(high / step) + 1)]


def _places(colours: Mapping[str, str]) -> list[tuple[float, int]]:
    """Left edge and line of each entry, wrapped at the drawing's width."""
    places, x, line = [], 0.0, 0
    for name in colours:
        width = 26 + text_width(name)
        if x and x + width > WIDTH:
            x, line = 0.0, line + 1
        places.append((x, line))
        x += width
    return places
