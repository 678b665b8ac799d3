"""Pairs, degraded and clean, measured picture by picture."""

import dataclasses
import math
from collections.abc import Iterator
from pathlib import Path

from mofme.errors import MofmeError
from mofme.ui.jobs import Engine, Job, without_folders
from mofme.ui.limits import Limits
from mofme.ui.measuring import Case, Measuring, Watched, save_strip
from mofme.vision.evaluation.pairs import Pair, find_sets
from mofme.vision.evaluation.restoration import PairReport, as_result, evaluate, write_csv
from mofme.vision.picture.file import read_picture


def measure_pairs(
    engine: Engine, job: Job, model: str | None, folder: Path, report_folder: Path, limits: Limits
) -> Iterator[Measuring]:
    """Measure the sets of pairs in `folder`; `report_folder` gets the CSV and a strip a picture."""
    sets = find_sets(folder)
    state = Measuring(sum(map(len, sets.values())), "PSNR", "dB")
    if state.total > limits.batch_pictures:
        raise MofmeError(f"{state.total} pairs are more than the limit of {limits.batch_pictures}: upload fewer.")
    restorer = Watched(engine.restorer(model), job)
    reports: dict[str, list[PairReport]] = {}
    yield state
    for name, pairs in sets.items():
        state.cases[name], reports[name] = [], []
        measured = evaluate(restorer, pairs, max_megapixels=limits.megapixels)
        for pair in pairs:
            with engine.turn:
                report = next(measured)
            job.check_cancelled()
            report = dataclasses.replace(report, error=without_folders(report.error))
            reports[name].append(report)
            if report.error:
                state.errors[pair.name] = report.error
            else:
                strip = report_folder / "pictures" / name / f"{len(reports[name]):03d}.jpg"
                title = f"{name}: {pair.name}" if len(sets) > 1 else pair.name
                state.cases[name].append(_case(title, pair, report, restorer, strip))
            state.done += 1
            yield state
    state.result = as_result(reports, f"tab Evaluate, model {model}")
    write_csv(report_folder / "restoration.csv", reports)
    yield state


def _case(title: str, pair: Pair, report: PairReport, restorer: Watched, strip: Path) -> Case:
    """A pair that was measured, so that both scores and the target are there."""
    before, after = (scores.psnr_rgb if scores else 0.0 for scores in (report.input, report.restored))
    # What was just measured kept to the limit already.
    first, truth = (read_picture(path, math.inf).rgb for path in (pair.input, pair.target or pair.input))
    save_strip(strip, [first, restorer.last, truth])
    return Case(title, before, after, strip)
