"""Numbers in a grid whose cells are the more coloured the larger they are: words or layers down, experts across."""

import html
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Block:
    """Columns that stand together: values (rows, columns), written times `scale` with `digits`.

    `most` is the size of the strongest colour. NaN (not known) and, without `zeros`, exact zeros (not chosen) are left
    empty; `signed` numbers bear their sign also when they are positive.
    """

    name: str
    columns: Sequence[str]
    values_RC: NDArray[np.floating]
    most: float = 1.0
    scale: float = 100.0
    digits: int = 0
    signed: bool = False
    zeros: bool = False


def numbered(count: int) -> list[str]:
    """Names of experts or sub-routers: 1, 2, ..."""
    return [str(number + 1) for number in range(count)]


def heat_grid(corner: str, rows: Sequence[str], blocks: Sequence[Block]) -> str:
    """HTML; wide and long grids scroll inside themselves. Rows may share a name. `corner` says what the rows are."""
    head = "".join(f"<th colspan='{len(block.columns)}'>{html.escape(block.name)}</th>" for block in blocks)
    parts = "".join(f"<th>{html.escape(name)}</th>" for block in blocks for name in block.columns)
    lines = "".join(
        f"<tr><td>{html.escape(name)}</td>{''.join(_cells(block, row) for block in blocks)}</tr>"
        for row, name in enumerate(rows)
    )
    return (
        f"<div class='table numbers heat grid'><table><thead><tr><th>{html.escape(corner)}</th>{head}</tr>"
        f"<tr class='parts'><th></th>{parts}</tr></thead><tbody>{lines}</tbody></table></div>"
    )


def _cells(block: Block, row: int) -> str:
    return "".join(_cell(block, float(value), first=column == 0) for column, value in enumerate(block.values_RC[row]))


def _cell(block: Block, value: float, first: bool) -> str:
    mark = " class='first'" if first else ""
    if not np.isfinite(value) or (value == 0 and not block.zeros):
        return f"<td{mark}></td>"
    # Half of the colour at most, so that the number stays readable in light and in dark.
    heat = 50 * min(1.0, abs(value) / block.most)
    written = f"{block.scale * value:{'+' if block.signed else ''}.{block.digits}f}"
    return f"<td{mark} style='--heat: {heat:.0f}%'>{written if float(written) else '0'}</td>"
