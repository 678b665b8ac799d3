"""What the app draws as HTML: tables, bars, cells coloured by their numbers, and the shipped results."""

import html
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import gradio as gr
import numpy as np
from numpy.typing import NDArray
from starlette.routing import Mount
from starlette.staticfiles import StaticFiles

from mofme.errors import ResultError
from mofme.measure.pages import headline, of_claim
from mofme.measure.result import RESULTS, Figure, Result, available_results, load_result
from mofme.ui.chart import interval_plot

# Where the server of a page finds the plots; it must have been given this route.
PLOTS = Mount("/plots", StaticFiles(directory=RESULTS, check_dir=False))


class Html(str):
    """Text that is HTML already: all other text is escaped."""


class Cell(Html):
    """A whole cell of a table, with what its tag says."""


def cell(content: str, tag: str = "td", **attributes: object) -> Cell:
    """A cell of a table; names of attributes may end in `_`, and empty ones are left out."""
    said = "".join(
        f" {name.rstrip('_')}='{html.escape(str(value))}'"
        for name, value in attributes.items()
        if value not in (None, "")
    )
    inside = content if isinstance(content, Html) else html.escape(content)
    return Cell(f"<{tag}{said}>{inside}</{tag}>")


def notes_html(notes: Iterable[str]) -> str:
    """What one should know of a result, a paragraph each."""
    return "".join(f"<p>Note: {html.escape(note)}.</p>" for note in notes)


def table(
    heads: Sequence[str], rows: Iterable[Sequence[str]], kind: str = "numbers", classes: Mapping[int, str] | None = None
) -> str:
    """A table that scrolls inside itself. `kind` is for the style sheet, and so are `classes`, by number of row."""
    lines = [_row(heads, "th"), *(_row(row, class_=(classes or {}).get(number)) for number, row in enumerate(rows))]
    return f"<div class='table {kind}'><table>{''.join(lines)}</table></div>"


def bars(shares: Mapping[str, float], written: Sequence[str] | None = None) -> str:
    """Labelled bars, as long as the shares (0 to 1); beside them what is written, or the shares in percent."""
    beside = written or [f"{100 * share:.0f} %" for share in shares.values()]
    rows = "".join(
        f"<div class='bar'><span>{html.escape(name)}</span><i><b style='width: {100 * share:.0f}%'></b></i>"
        f"<span>{html.escape(words)}</span></div>"
        for (name, share), words in zip(shares.items(), beside, strict=True)
    )
    return f"<div class='bars'>{rows}</div>"


def bar(share: float) -> Html:
    """A bar inside a cell of a table of the kind "models"."""
    return Html(f"<i><b style='width: {100 * share:.0f}%'></b></i>")


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

    def cells(self, row: int) -> list[Cell]:
        return [self._cell(float(value), "" if column else "first") for column, value in enumerate(self.values_RC[row])]

    def _cell(self, value: float, class_: str) -> Cell:
        if not np.isfinite(value) or (value == 0 and not self.zeros):
            return cell("", class_=class_)
        written = f"{self.scale * value:{'+' if self.signed else ''}.{self.digits}f}"
        return heat_cell(value / self.most, written if float(written) else "0", class_)


def numbered(count: int) -> list[str]:
    """Names of experts or sub-routers: 1, 2, ..."""
    return [str(number + 1) for number in range(count)]


def heat_cell(share: float, written: str, class_: str = "", title: str = "") -> Cell:
    """A cell as coloured as `share` (-1 to 1) is far from 0."""
    # Half of the colour at most, so that the number stays readable in light and in dark.
    return cell(written, class_=class_, style=f"--heat: {50 * min(1.0, abs(share)):.0f}%", title=title)


def heat_rows(
    corner: str, columns: Sequence[tuple[str, Sequence[str]]], rows: Iterable[tuple[str, list[Cell]]], kind: str = ""
) -> str:
    """A table of `heat_cell`s. `corner` says what the rows are; a column with one nameless part is not divided."""
    head = _row([corner, *(cell(name, "th", colspan=len(parts)) for name, parts in columns)], "th")
    if any(part for _, parts in columns for part in parts):
        head += _row(["", *(part for _, parts in columns for part in parts)], "th", "parts")
    body = "".join(_row([name, *cells]) for name, cells in rows)
    return f"<div class='table numbers heat {kind}'><table><thead>{head}</thead><tbody>{body}</tbody></table></div>"


def heat_grid(corner: str, rows: Sequence[str], blocks: Sequence[Block], kind: str = "grid") -> str:
    """Numbers, the more coloured the larger; wide and long grids scroll. `corner` says what the rows are."""
    columns = [(block.name, block.columns) for block in blocks]
    cells = [[part for block in blocks for part in block.cells(row)] for row in range(len(rows))]
    return heat_rows(corner, columns, zip(rows, cells, strict=True), kind)


def heat_table(columns: Mapping[str, Sequence[str]], rows: Mapping[str, Sequence[Figure | None]]) -> str:
    """Percentages, the more coloured the larger, with intervals when pointed at. `columns` holds the parts of each
    column (one nameless part: it is not divided); a row has a figure for every part, or None.
    """

    def written(figure: Figure | None) -> Cell:
        if figure is None:
            return cell("")
        known = figure.low is not None and figure.high is not None
        interval = f"{figure.low:.0f} to {figure.high:.0f} %" if known else ""
        return heat_cell(figure.value / 100, f"{figure.value:.0f}", title=interval)

    return heat_rows("", list(columns.items()), ((name, list(map(written, figures))) for name, figures in rows.items()))


def result_tables(result: Result) -> str:
    """The tables of a result."""
    return "".join(
        f"<h3>{html.escape(title)}</h3>{table(heads, lines)}" for title, (heads, lines) in result.tables().items()
    )


def measured_by_us(*starts: str, folder: Path = RESULTS) -> str:
    """Of rooms whose names start so: what it means in one sentence, a chart, and folded all that was measured."""
    rooms = [room for room in available_results(folder) if room.startswith(starts)]
    inside = "".join(_room(room, folder) for room in rooms) or "<p class='note'>Nothing yet.</p>"
    return f"<div class='results'>{inside}</div>"


def measured_box(*starts: str, elem_id: str | None = None) -> gr.HTML:
    """The same below its headline, at the end of a tab."""
    return gr.HTML(f"<h2>Measured by us</h2>{measured_by_us(*starts)}", padding=False, elem_id=elem_id)


def _row(cells: Sequence[str], tag: str = "td", class_: str | None = None) -> str:
    parts = (one if isinstance(one, Cell) else cell(one, tag) for one in cells)
    return f"<tr{f' class={class_}' if class_ else ''}>{''.join(parts)}</tr>"


def _room(room: str, folder: Path) -> str:
    try:
        result = load_result(room, folder)
    except ResultError:
        return f"<p class='note'>The result {html.escape(room)} cannot be read: measure it again.</p>"
    plots = "".join(_plot(path) for path in sorted(folder.glob(f"{room}-*.png")))
    told = headline(result)
    sentence = html.escape(told.sentence if told else result.verdict)
    chart = interval_plot(told.column, told.figures, told.telling) if told else ""
    verdict = f"<p>{html.escape(result.verdict)}</p>" if told else ""
    verdicts = ", ".join(one.verdict for one in result.judgements)
    judged = f" · the paper's claim{'s' * (len(result.judgements) > 1)}: {verdicts}" if verdicts else ""
    claims = "".join(
        f"<p class='note'>{html.escape('; '.join(': '.join(line) for line in of_claim(one).items() if line[1]))}.</p>"
        for one in result.judgements
    )
    return (
        f"<section class='result'><span class='note'>{html.escape(_title(room))}{judged}</span><p><b>{sentence}</b></p>"
        f"<div class='plots'>{chart}</div><details><summary>All figures</summary>{verdict}{claims}"
        f"<p class='note'>{html.escape(result.paper)} claims: {html.escape(result.claim)}</p>{result_tables(result)}"
        f"{plots}<p class='note'>{html.escape(result.source().replace('`', ''))}</p></details></section>"
    )


def _title(room: str) -> str:
    return re.sub(r"\bmoe\b", "MoE", room.replace("_", " ").capitalize().replace("Llm", "LLM"), flags=re.IGNORECASE)


def _plot(path: Path) -> str:
    """Fetched when its fold-out is opened: inside the page, all plots would be most of what a visitor waits for."""
    title = path.stem.replace("_", " ").replace("-", " ")
    return f'<img src="plots/{quote(path.name)}" loading="lazy" alt="Plot: {html.escape(title)}">'
