"""What each claim of the papers is worth here, claim by claim, read off the results."""

from collections.abc import Iterator
from pathlib import Path

from mofme.measure.result import RESULTS, Judgement, Result, Verdict, available_results, load_result


def entries(folder: Path = RESULTS) -> Iterator[tuple[Result, Judgement]]:
    """Every claim that was judged, with its result, in the order of the papers' names. Raises ResultError."""
    results = [load_result(room, folder) for room in available_results(folder)]
    for result in sorted(results, key=lambda result: result.paper):
        for judgement in result.judgements:
            yield result, judgement


def ledger(whole: bool = True, folder: Path = RESULTS) -> tuple[list[str], list[list[str]]]:
    """Headings and lines; unless `whole`, papers, claims and verdicts alone."""
    headings = ["paper", "claim", "verdict here"]
    lines = [[result.paper.split(" (")[0].split(", ")[0], one.claim, one.verdict] for result, one in entries(folder)]
    if not whole:
        return headings, lines
    more = [
        [one.departs, one.scale, one.least(), one.bearing.text() if one.bearing else "", _needed(one)]
        for _, one in entries(folder)
    ]
    headings += ["method", "scale, here against the paper's", "least effect to be seen", "it hangs on", "it would take"]
    return headings, [[*line, *further] for line, further in zip(lines, more, strict=True)]


def _needed(one: Judgement) -> str:
    return one.needed if one.verdict is Verdict.UNSEEN else ""
