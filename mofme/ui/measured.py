"""The shipped results, as HTML: what is shown is what the files below `assets/results/` say, and nothing else."""

import html
import re
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

from starlette.routing import Mount
from starlette.staticfiles import StaticFiles

from mofme.errors import ResultError
from mofme.measure.result import RESULTS, Result, available_results, load_result

# Where the server of a page finds the plots; it must have been given this route.
PLOTS = Mount("/plots", StaticFiles(directory=RESULTS, check_dir=False))


def measured_by_us(*starts: str, folder: Path = RESULTS) -> str:
    """A fold-out for each room whose name starts with one of `starts`: its verdict, the paper's claim, tables, plots,
    and how they came about.
    """
    rooms = [room for room in available_results(folder) if room.startswith(starts)]
    return "".join(_room(room, folder) for room in rooms) or "<p class='note'>Nothing yet.</p>"


def _title(room: str) -> str:
    return re.sub(r"\bmoe\b", "MoE", room.replace("_", " ").capitalize().replace("Llm", "LLM"), flags=re.IGNORECASE)


def result_tables(result: Result) -> str:
    """The tables of a result."""
    return "".join(
        f"<h4>{html.escape(title)}</h4>{_table(headings, lines)}"
        for title, (headings, lines) in result.tables().items()
    )


def _room(room: str, folder: Path) -> str:
    try:
        result = load_result(room, folder)
    except ResultError:
        return f"<p class='note'>The result {html.escape(room)} cannot be read: measure it again.</p>"
    plots = "".join(_plot(path) for path in sorted(folder.glob(f"{room}-*.png")))
    return (
        f"<details class='result'><summary><b>{html.escape(_title(room))}</b> "
        f"<span>{html.escape(result.verdict)}</span></summary>"
        f"<p class='note'>{html.escape(result.paper)} claims: {html.escape(result.claim)}</p>"
        f"{result_tables(result)}{plots}<p class='note'>{html.escape(result.source().replace('`', ''))}</p></details>"
    )


def _table(headings: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    head = "".join(f"<th>{html.escape(heading)}</th>" for heading in headings)
    rows = "".join(f"<tr>{''.join(f'<td>{html.escape(cell)}</td>' for cell in line)}</tr>" for line in lines)
    return f'<div class="table numbers"><table><tr>{head}</tr>{rows}</table></div>'


def _plot(path: Path) -> str:
    """Fetched when its fold-out is opened: inside the page, all plots would be most of what a visitor waits for."""
    title = path.stem.replace("_", " ").replace("-", " ")
    return f'<img src="plots/{quote(path.name)}" loading="lazy" alt="Plot: {html.escape(title)}">'
