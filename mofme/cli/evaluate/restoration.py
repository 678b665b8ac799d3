"""`python -m mofme evaluate restoration`: how close restored pictures come to clean ones."""

from __future__ import annotations

import dataclasses
import json
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table

if TYPE_CHECKING:
    from mofme.vision.evaluation.restoration import PairReport, Summary
    from mofme.vision.metrics import Lpips

_TITLES = {
    "psnr_rgb": "PSNR RGB",
    "ssim_rgb": "SSIM RGB",
    "psnr_y": "PSNR Y",
    "ssim_y": "SSIM Y",
    "lpips": "LPIPS ↓",
}


def restoration(
    pairs: Annotated[
        Path, typer.Argument(help="Folder with input/ and target/, or with folders that have (rain/, snow/).")
    ],
    model: Annotated[str, typer.Option(help="Name of a shipped model, or folder of one.")] = "small",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    out: Annotated[Path | None, typer.Option(help="Folder for restoration.csv, restoration.json.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON only.")] = False,
    lpips_weights: Annotated[
        Path | None, typer.Option(help="AlexNet's weights for LPIPS (.npz); without it they are downloaded.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first N pairs of each set.")] = None,
) -> None:
    """Restore pictures whose clean version is known; print PSNR, SSIM and LPIPS before and after.

    Exit code: 0 all is well, 1 some pairs could not be measured, 2 nothing was begun.
    """
    from mofme.errors import MofmeError
    from mofme.vision.evaluation.pairs import find_sets
    from mofme.vision.evaluation.restoration import evaluate, summarize, write_csv
    from mofme.vision.restorer import Restorer

    log = Console(stderr=True, highlight=False, soft_wrap=True)
    try:
        sets = find_sets(pairs)
        restorer = Restorer.from_pretrained(model, device=device)
        lpips = _lpips(lpips_weights, log)
        reports: dict[str, list[PairReport]] = {}
        for name, members in sets.items():
            members = members[:limit]
            results = evaluate(restorer, members, lpips)
            reports[name] = list(track(results, name, total=len(members), console=log))
        summaries = {name: summarize(rows) for name, rows in reports.items()}
        plain = {name: dataclasses.asdict(summary) for name, summary in summaries.items()}
        answer = json.dumps(plain, indent=2)
        if out is not None:
            write_csv(out / "restoration.csv", reports)
            (out / "restoration.json").write_text(answer + "\n", encoding="utf-8")
    except MofmeError as error:
        log.print(f"error: {error}", style="red", markup=False)
        raise typer.Exit(2) from None
    for report in (report for rows in reports.values() for report in rows if report.error):
        log.print(f"{report.name}: {report.error}", style="red", markup=False)
    if as_json:
        typer.echo(answer)
    else:
        for name, summary in summaries.items():
            Console().print(_table(name, summary))
    if any(summary.failed for summary in summaries.values()):
        raise typer.Exit(1)


def _lpips(weights: Path | None, log: Console) -> Lpips | None:
    from mofme.errors import ModelError
    from mofme.vision.metrics import Lpips

    try:
        with redirect_stdout(sys.stderr):  # torch announces a download on stdout, where the JSON goes
            return Lpips(weights)
    except ModelError as error:
        if weights is not None:
            raise
        log.print(f"LPIPS is left out. {error} with --lpips-weights.", markup=False)
        return None


def _table(name: str, summary: Summary) -> Table:
    measured = summary.pairs - summary.failed
    table = Table(title=f"{name}: {measured} of {summary.pairs} pairs, {summary.seconds:.2f} s a picture")
    for heading in ("", "input", "restored", "gain", "95 % interval", "median"):
        table.add_column(heading, justify="right" if heading else "left", no_wrap=True)
    for metric, gain in summary.gain.items():
        digits = 2 if metric.startswith("psnr") else 3
        table.add_row(
            _TITLES[metric],
            f"{summary.input[metric].mean:.{digits}f}",
            f"{summary.restored[metric].mean:.{digits}f}",
            f"{gain.mean:+.{digits}f}",
            f"{gain.low:+.{digits}f} to {gain.high:+.{digits}f}",
            f"{gain.median:+.{digits}f}",
        )
    return table
