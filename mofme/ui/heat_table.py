"""Percentages as an HTML table whose cells are the more coloured the larger they are."""

import html
from collections.abc import Mapping, Sequence

from mofme.measure.result import Figure


def heat_table(
    columns: Mapping[str, Sequence[str]], rows: Mapping[str, Sequence[Figure | None]], caption: str = ""
) -> str:
    """`columns` holds the parts of each column (one nameless part: it is not divided); a row has a figure for every
    part, from 0 to 100, or None where nothing was measured. Pointing at a cell tells its interval.
    """
    divided = any(len(parts) > 1 for parts in columns.values())
    head = "".join(f"<th colspan='{len(parts)}'>{html.escape(name)}</th>" for name, parts in columns.items())
    lines = [f"<tr><th></th>{head}</tr>"]
    if divided:
        parts_head = "".join(f"<th>{html.escape(part)}</th>" for parts in columns.values() for part in parts)
        lines.append(f"<tr class='parts'><th></th>{parts_head}</tr>")
    lines += [f"<tr><td>{html.escape(name)}</td>{''.join(map(_cell, figures))}</tr>" for name, figures in rows.items()]
    title = f"<caption>{html.escape(caption)}</caption>" if caption else ""
    return f"<div class='table numbers heat'><table>{title}{''.join(lines)}</table></div>"


def _cell(figure: Figure | None) -> str:
    if figure is None:
        return "<td></td>"
    interval = ""
    if figure.low is not None and figure.high is not None:
        interval = f" title='{figure.low:.0f} to {figure.high:.0f} %'"
    # Half of the colour at most, so that the number stays readable in light and in dark.
    return f"<td style='--heat: {figure.value / 2:.0f}%'{interval}>{figure.value:.0f}</td>"
